"""The machines and devices that train one agent together, through `tf.distribute`."""

import contextlib
import dataclasses
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from common.device import import_tensorflow, usable_cores

LAST_PORT = 65535
# How long a worker waits for the others to come, and after how long it says so again.
PATIENCE_SECONDS = 300.0
REMINDER_SECONDS = 30.0
_EXAMPLE = (
    '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": N}}, '
    "N from 0, the same list on every machine"
)


class WorkerLostError(ConnectionError):
    """Another worker has died, or cannot be reached any more."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run by their addresses, `HOST:PORT`; `index` is this process."""

    addresses: tuple[str, ...] = ("",)
    index: int = 0

    @property
    def size(self) -> int:
        return len(self.addresses)

    def name(self, index: int) -> str:
        """What messages call a worker."""
        return f"worker {index} ({self.addresses[index]})"


ALONE = Cluster()


def from_environment() -> Cluster:
    """The cluster of the variable TF_CONFIG; see `from_tf_config`."""
    return from_tf_config(os.environ.get("TF_CONFIG"))


def from_tf_config(text: str | None) -> Cluster:
    """The cluster that the text of `TF_CONFIG` describes; ValueError where it does not."""
    if not text:
        raise ValueError(f"workers: TF_CONFIG is not set; expected {_EXAMPLE}")
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ValueError(f"TF_CONFIG is not JSON ({error}); expected {_EXAMPLE}") from None
    try:
        jobs = given["cluster"]
        addresses, task = tuple(jobs["worker"]), given["task"]
        kinds, index = {*jobs, task["type"]}, int(task["index"])
    except KeyError as error:
        raise ValueError(f"TF_CONFIG: {error} is missing; expected {_EXAMPLE}") from None
    except (TypeError, ValueError):
        raise ValueError(f"TF_CONFIG is of another form; expected {_EXAMPLE}") from None
    if kinds != {"worker"}:
        other = sorted(kinds - {"worker"})[0]
        raise ValueError(f"TF_CONFIG: job {other!r}, expected workers alone: {_EXAMPLE}")
    _check_addresses(addresses, index)
    return Cluster(addresses, index)


def _check_addresses(addresses: Sequence[Any], index: int) -> None:
    for address in addresses:
        fits = isinstance(address, str) and re.fullmatch(r".+:\d{1,5}", address)
        if not fits or int(address.rpartition(":")[2]) > LAST_PORT:
            raise ValueError(f"TF_CONFIG: worker {address!r}, expected HOST:PORT")
    if len(set(addresses)) < len(addresses):
        raise ValueError("TF_CONFIG: an address is there twice; expected one for each worker")
    if not 0 <= index < len(addresses):
        raise ValueError(f"TF_CONFIG: task index {index}, expected 0 to {len(addresses) - 1}")


def meet(cluster: Cluster, show: Callable[[str], Any], patience: float = PATIENCE_SECONDS) -> None:
    """Waits until all workers are there.

    TensorFlow waits as well, but without end, without a word, and deaf to Ctrl-C.

    Raises:
        ValueError: this worker's port cannot be used, or one did not come in `patience` seconds.
    """
    missing = [number for number in range(cluster.size) if number != cluster.index]
    port = int(cluster.addresses[cluster.index].rpartition(":")[2])
    began = said = time.monotonic()
    show(f"Worker {cluster.index} of {cluster.size} at {cluster.addresses[cluster.index]}")
    try:
        server = socket.create_server(("", port), backlog=4 * cluster.size)
    except OSError as error:
        raise ValueError(
            f"TF_CONFIG: port {port} of {cluster.name(cluster.index)} cannot be used: "
            f"{error.strerror}"
        ) from None
    with server:
        while missing := [number for number in missing if not _listens(cluster.addresses[number])]:
            now = time.monotonic()
            if now - began > patience:
                raise ValueError(
                    f"TF_CONFIG: {cluster.name(missing[0])} did not come in {patience:.0f} s; "
                    "start the same command there, with its own index"
                )
            if now - said > REMINDER_SECONDS:
                show(f"Waiting for {', '.join(map(cluster.name, missing))}")
                said = now
            time.sleep(0.2)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def count_devices(devices: int | str) -> tuple[str, int]:
    """(`GPU` or `CPU`, number) of this machine's devices that `devices` asks for.

    GPUs where there are any, and `all` are all of them. Else the CPU, which is one device, unless
    more are asked for: see `split_cpu`. ValueError where there are not as many.
    """
    tf = import_tensorflow()
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        count = gpus if devices == "all" else int(devices)
        if count > gpus:
            raise ValueError(f"devices: {count} asked for, this machine has {gpus} GPU")
        return "GPU", count
    cpu = tf.config.list_physical_devices("CPU")[0]
    there = len(tf.config.get_logical_device_configuration(cpu) or [cpu])
    count = there if devices == "all" else int(devices)
    if count > there:
        split_cpu(count)
    return "CPU", count


def split_cpu(count: int) -> None:
    """Makes so many devices of the CPU, each with its share of the cores.

    The operations of small networks are too short for several cores, which wait for each other
    after each. Devices that compute a part of the batch each do not wait.

    Raises:
        ValueError: there are fewer cores; or TensorFlow computes already, when it is too late.
    """
    tf, cores = import_tensorflow(), usable_cores()
    if count > cores:
        raise ValueError(f"devices: {count} asked for, this machine has {cores} cores")
    part = tf.config.LogicalDeviceConfiguration()
    try:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [part] * count)
        tf.config.threading.set_intra_op_parallelism_threads(cores // count)
        tf.config.threading.set_inter_op_parallelism_threads(count)
    except RuntimeError:
        raise ValueError(
            f"devices: {count} asked for, but this process computes on one CPU already"
        ) from None


def make_strategy(kind: str, count: int, cluster: Cluster = ALONE, show=print) -> Any:
    """The `tf.distribute` strategy for so many devices of each worker; None for one in all.

    With several workers it waits for all of them, and must come before the first tensor.

    Raises:
        ValueError: see `meet`; or several CPUs of each worker, which TensorFlow does not do.
    """
    tf = import_tensorflow()
    if cluster.size == 1:
        names = [f"{kind}:{number}" for number in range(count)]
        return tf.distribute.MirroredStrategy(names) if count > 1 else None
    if kind == "CPU" and count > 1:
        raise ValueError(f"devices: {count} CPUs of each worker, expected 1; start more workers")
    if kind == "GPU":
        tf.config.set_visible_devices(tf.config.list_physical_devices("GPU")[:count], "GPU")
    meet(cluster, show)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
        num_accelerators={"GPU": count} if kind == "GPU" else {},
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except tf.errors.OpError as error:
        raise ValueError(f"TF_CONFIG: the workers did not connect: {error.message}") from error


def exchange(strategy: Any, cluster: Cluster) -> Callable[[Sequence[int]], np.ndarray]:
    """A function that all workers call with as many whole numbers: a row of each, `[workers, N]`.

    It raises `WorkerLostError`.
    """
    tf = import_tensorflow()
    copies = len(strategy.extended.worker_devices)

    @tf.function(autograph=False)
    def add(rows):
        def everywhere():
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(rows))

        return strategy.experimental_local_results(strategy.run(everywhere))[0]

    def rows_of_all(row: Sequence[int]) -> np.ndarray:
        rows = np.zeros([cluster.size, len(row)], np.int64)
        rows[cluster.index] = row
        with watched(cluster):
            return add(tf.constant(rows)).numpy() // copies

    return rows_of_all


@contextlib.contextmanager
def watched(cluster: Cluster) -> Iterator[None]:
    """Turns what TensorFlow says when a worker does not answer into a `WorkerLostError`."""
    tf = import_tensorflow()
    lost = tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError
    try:
        yield
    except (*lost, tf.errors.CancelledError, tf.errors.InternalError) as error:
        if not re.search("ollective|oordination|RecvBuf", str(error)):
            raise
        raise WorkerLostError(f"{_gone(cluster, str(error))} is gone; see what it says") from error


def _gone(cluster: Cluster, text: str) -> str:
    """Who is gone, as far as TensorFlow's message tells."""
    numbers = {int(number) for number in re.findall(r"/job:worker/replica:0/task:(\d+)", text)}
    if "CoordinationService" in text:  # worker 0 has it
        numbers.add(0)
    names = [cluster.name(n) for n in sorted(numbers - {cluster.index}) if n < cluster.size]
    return ", ".join(names) or "another worker"
