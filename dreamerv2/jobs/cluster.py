"""Runs on a Ray cluster.

Ray places them, starts a run again elsewhere when its node dies, and ends all when the command that
asked for them ends, however that happens.
"""

import contextlib
import functools
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import ray
from ray.exceptions import RayError

from common.interrupt import SIGNALS
from common.when import EverySeconds
from dreamerv2.jobs import processes, record
from dreamerv2.jobs.job import Job, memory_share
from dreamerv2.jobs.record import Progress
from dreamerv2.jobs.storage import ERRORS, Mirror, Storage, patiently
from dreamerv2.run import lock

NAMESPACE = "dreamerv2"
ANSWERS_WITHIN = 10.0  # seconds
STATUS_EVERY = 2.0  # seconds
POLL = 0.5  # seconds
STORE_AGAIN = 10.0  # seconds after a store was not reached
SCRATCH = ".nodes"  # under the root: what nodes hold of the runs that they make for a store
# A run that takes its node down each time must end some day.
MOST_RESTARTS = 20
# Exit codes of a training that something else ended: a machine that shuts down, or has no memory.
KILLED = {-signal.SIGKILL, *(code for n in SIGNALS for code in (-n, 128 + n))}


# The cluster


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Within `with`, this process is connected to a cluster.

    address: `HOST:PORT`; `auto` for one that runs on this machine; `local` for a new one on this
      machine, which ends with this process.

    Raises:
        ValueError: no such address. ConnectionError: nothing answers there, said within 20 s.
    """
    settings: dict[str, Any] = {}
    if address == "local":
        settings = {"include_dashboard": False}
    elif address != "auto":
        check_answers(address)
    settings |= {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(address, **settings)
    except Exception as error:  # Ray has no class for a node that does not come up
        raise ConnectionError(f"--ray {address}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def check_answers(address: str) -> None:
    """ConnectionError unless a cluster answers; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError(f"--ray {address}: expected HOST:PORT, auto or local")
    # What Ray's own clients ask first. One with a token, which this question lacks, is a cluster.
    question = "/ray.rpc.NodeInfoGcsService/GetClusterId"
    locked = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(question)(b"", timeout=ANSWERS_WITHIN)
        except grpc.RpcError as error:
            if error.code() not in locked:
                raise ConnectionError(
                    f"--ray {address}: no Ray cluster answers there; start one with "
                    "ray start --head, or write --ray local"
                ) from None


def check_fits(cpus: int, gpus: float) -> None:
    """ValueError unless one of the nodes can take a run."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(has.get("CPU", 0) >= cpus and has.get("GPU", 0) >= gpus for has in resources):
        return
    kinds = Counter((has.get("CPU", 0), has.get("GPU", 0)) for has in resources)
    nodes = [f"{n} x ({cpu:g} CPUs, {gpu:g} GPUs)" for (cpu, gpu), n in kinds.items()]
    raise ValueError(
        f"--cpus-per-run {cpus} --gpus-per-run {gpus:g}: no node of the cluster has as many; "
        f"its nodes are {', '.join(nodes)}"
    )


def default_gpus() -> float:
    """GPUs of a run where nothing is said: one, if the cluster has any."""
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


# The end of a run at the driver


class Status(NamedTuple):
    """What a run says of itself."""

    node: str
    progress: Progress


class OnCluster:
    """A run that the cluster makes, or will make when it has a place for it.

    collect: called at its end; gets what the driver needs of its files.
    """

    elsewhere = False

    def __init__(self, actor: Any, collect: Callable[[], None]):
        self._actor, self._end, self._collect = actor, actor.make.remote(), collect
        self._status = Status("", Progress())
        self._asked: Any = None
        self._due = EverySeconds(STATUS_EVERY)
        self._stopped_by: int | None = None
        self._failure = ""
        self.note = "handed to Ray"

    @property
    def node(self) -> str:
        return self._status.node

    def poll(self) -> int | None:
        if not _ready(self._end):
            self._ask()
            return None
        try:
            code, self._failure = ray.get(self._end)
        except RayError as error:
            code, self._failure = 1, " ".join(str(error).split())
        ray.kill(self._actor)
        self._collect()
        return 128 + self._stopped_by if self._stopped_by else code

    def _ask(self) -> None:
        """Keeps the status up to date, without waiting."""
        if self._asked is None:
            if self._due():
                self._asked = self._actor.status.remote()
        elif _ready(self._asked):
            try:
                self._status = ray.get(self._asked)
            except RayError:  # its node died
                self._status = self._status._replace(node="")
                if self._stopped_by:  # nor has it heard that
                    ray.kill(self._actor)
            self._asked = None

    def send_signal(self, number: int) -> None:
        self._stopped_by = number
        if self.node:
            self._actor.stop.remote(number)
        else:
            ray.kill(self._actor)

    def failure(self, code: int) -> str:
        return self._failure

    def progress(self) -> Progress:
        return self._status.progress


class WithAnother:
    """A run that another command has handed to the same cluster."""

    elsewhere = True
    node = "?"
    note = "another sweep makes it; waiting for it"

    def __init__(self, job: Job, name: str):
        self._job, self._name = job, name
        self._due = EverySeconds(STATUS_EVERY)
        self._left = False

    def poll(self) -> int | None:
        if self._left:
            return 0
        if self._due():
            try:
                ray.get_actor(self._name)
            except ValueError:
                return 0
        return None

    def send_signal(self, number: int) -> None:
        """Nobody waits for it any longer; it belongs to the other command."""
        self._left = True

    def failure(self, code: int) -> str:
        raise AssertionError("it never fails: it is only waited for")

    def progress(self) -> Progress:
        return self._job.progress()


class Starter:
    """Hands runs to the cluster. cpus, gpus: what one takes."""

    def __init__(self, cpus: int, gpus: float):
        self._cpus, self._gpus = cpus, gpus

    def __call__(
        self, job: Job, storage: Storage | None = None
    ) -> OnCluster | WithAnother | processes.Elsewhere:
        """Starts a run, or finds the one that is under way.

        storage: where runs are kept; None: in their logdirs.
        """
        holder = lock.holder(job.logdir)
        if holder:
            return processes.Elsewhere(job, holder)
        name = f"{storage.uri if storage else job.logdir.parent}/{job.name}"
        training = ray.remote(Training).options(
            name=name,  # no second one of this name: Ray keeps runs apart
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_restarts=MOST_RESTARTS,
            max_task_retries=-1,
            max_concurrency=3,  # `make` takes one place for the whole run
        )
        task = Task.of(job, self._cpus, self._gpus, storage.uri if storage else "")
        fetch = functools.partial(storage.fetch_small, job.logdir) if storage else lambda: None
        collect = functools.partial(patiently, fetch)
        try:
            return OnCluster(training.remote(task), collect)
        except ValueError:  # the name is taken
            return WithAnother(job, name)


def _ready(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])


# The end of a run at its node


class Task(NamedTuple):
    """A job as a node needs it."""

    logdir: Path
    command: tuple[str, ...]
    cwd: Path
    total_frames: int
    share_memory: bool  # whether the node says how much memory the replay takes
    cpus: int
    gpus: float
    storage: str  # URI; empty where all nodes share the logdir

    @classmethod
    def of(cls, job: Job, cpus: int, gpus: float, storage: str) -> "Task":
        share = not job.config.replay.memory_gib
        where = job.logdir, job.command, Path.cwd()
        return cls(*where, job.total_frames, share, cpus, gpus, storage)


class Training:
    """An actor that makes one run, in a process beside it, and says how far that has come."""

    def __init__(self, task: Task):
        self._task = task
        self._node = ray.get_runtime_context().get_node_id()
        self._logdir = task.logdir
        if task.storage:  # the driver, or another node on this machine, may use the logdir itself
            self._logdir = task.logdir.parent / SCRATCH / self._node / task.logdir.name
        self._mirror: Mirror | None = None
        self._process: subprocess.Popen | None = None
        self._stopped_by: int | None = None
        self._making = threading.Lock()

    def make(self) -> tuple[int, str]:
        """Makes the run; its exit code, and what went wrong.

        A training that something else ended, such as a machine that shuts down, takes this actor
        with it: Ray then starts both again, elsewhere if need be.
        """
        with self._making:  # Ray asks again where only the connection was lost
            return self._make()

    def _make(self) -> tuple[int, str]:
        while lock.holder(self._logdir):  # a worker that died here, whose training still saves
            if self._stopped_by:
                return 128 + self._stopped_by, ""
            time.sleep(POLL)
        self._logdir.parent.mkdir(parents=True, exist_ok=True)
        if self._task.storage:
            self._remove_scratch()
            storage = Storage(self._task.storage)
            patiently(lambda: storage.fetch(self._logdir))
            self._mirror = Mirror(storage, self._logdir)
        code = self._train()
        failed = code and not self._stopped_by
        text = record.note_failure(self._logdir, code) if failed and code not in KILLED else ""
        if self._mirror:
            patiently(self._mirror.push)
            self._remove_scratch()
        if failed and code in KILLED:
            os._exit(1)
        return code, text

    def _remove_scratch(self) -> None:
        """Removes what this machine holds of the run, that of a node that died here included."""
        nodes = self._logdir.parents[1]
        for logdir in nodes.glob(f"*/{self._logdir.name}"):
            if not lock.holder(logdir):
                shutil.rmtree(logdir)
                record.log_path(logdir).unlink(missing_ok=True)

    def _train(self) -> int:
        """Trains in a process, and stores what it saves; its exit code."""
        log = record.log_path(self._logdir)
        process = processes.launch(self._command(), log, self._task.cpus, self._cwd())
        self._process = process
        if self._stopped_by:  # before there was a process
            process.send_signal(self._stopped_by)
        while (code := process.poll()) is None:
            time.sleep(POLL)
            if self._mirror and self._mirror.is_behind():
                try:
                    self._mirror.push()
                except ERRORS as error:  # tried again; the last one, at the end, with patience
                    with log.open("a") as file:
                        file.write(f"WARNING: {self._task.storage}: {error}\n")
                    time.sleep(STORE_AGAIN)
        return code

    def _command(self) -> list[str]:
        """The command with this node's interpreter, folder, and part of this node's memory."""
        task = self._task
        words = [str(self._logdir) if word == str(task.logdir) else word for word in task.command]
        share = memory_share(self._runs_here()) if task.share_memory else []
        return [sys.executable, *words[1:], *share]

    def _runs_here(self) -> int:
        """How many runs like this one the node has room for."""
        (has,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == self._node)
        rooms = [has.get("CPU", 1) // self._task.cpus]
        if self._task.gpus:
            rooms.append(has.get("GPU", 1) // self._task.gpus)
        return max(1, int(min(rooms)))

    def _cwd(self) -> Path | None:
        """Where the driver was started, so that a checkout there is used here, too."""
        return self._task.cwd if self._task.cwd.is_dir() else None

    @ray.method(max_task_retries=0)
    def status(self) -> Status:
        """Where it runs and how far it has come."""
        node = f"{ray.util.get_node_ip_address()}/{self._node[:6]}"
        return Status(node, record.progress(self._logdir, self._task.total_frames))

    @ray.method(max_task_retries=0)
    def stop(self, number: int) -> None:
        """Lets the run save and end."""
        self._stopped_by = number
        if self._process:
            self._process.send_signal(number)
