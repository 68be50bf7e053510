"""Runs on a Ray cluster.

Ray places them, starts a run again elsewhere when its node dies, and ends all when the command that
asked for them ends, however that happens.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from common.interrupt import SIGNALS
from common.when import EverySeconds
from dreamerv2.jobs import processes, record
from dreamerv2.jobs.job import Job, memory_share
from dreamerv2.jobs.record import Progress
from dreamerv2.run import lock

NAMESPACE = "dreamerv2"
ANSWERS_WITHIN = 14.0  # seconds
STATUS_EVERY = 2.0  # seconds
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
    ray.init(address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR", **settings)
    try:
        yield
    finally:
        ray.shutdown()


def check_answers(address: str) -> None:
    """ConnectionError unless a cluster answers; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError(f"--ray {address}: expected HOST:PORT, auto or local")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "health-check",
            "--address",
            address,
        ]
        subprocess.run(command, capture_output=True, timeout=ANSWERS_WITHIN, check=True)
    except (OSError, OverflowError, subprocess.SubprocessError):
        raise ConnectionError(
            f"--ray {address}: no Ray cluster answers there; start one with ray start --head, "
            "or write --ray local"
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
    """A run that the cluster makes, or will make when it has a place for it."""

    elsewhere = False

    def __init__(self, actor: Any):
        self._actor, self._end = actor, actor.make.remote()
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

    def poll(self) -> int | None:
        if self._due():
            try:
                ray.get_actor(self._name)
            except ValueError:
                return 0
        return None

    def send_signal(self, number: int) -> None:
        """It belongs to the other command."""

    def failure(self, code: int) -> str:
        raise AssertionError("it never fails: it is only waited for")

    def progress(self) -> Progress:
        return self._job.progress()


class Starter:
    """Hands runs to the cluster. cpus, gpus: what one takes."""

    def __init__(self, cpus: int, gpus: float):
        self._cpus, self._gpus = cpus, gpus

    def __call__(self, job: Job) -> OnCluster | WithAnother | processes.Elsewhere:
        """Starts a run, or finds the one that is under way."""
        holder = lock.holder(job.logdir)
        if holder:
            return processes.Elsewhere(job, holder)
        name = str(job.logdir)
        training = ray.remote(Training).options(
            name=name,  # no second one of this name: Ray keeps runs apart
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_restarts=MOST_RESTARTS,
            max_task_retries=-1,
            max_concurrency=3,  # `make` takes one place for the whole run
        )
        try:
            return OnCluster(training.remote(Task.of(job, self._cpus, self._gpus)))
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

    @classmethod
    def of(cls, job: Job, cpus: int, gpus: float) -> "Task":
        share = not job.config.replay.memory_gib
        return cls(job.logdir, job.command, Path.cwd(), job.total_frames, share, cpus, gpus)


class Training:
    """An actor that makes one run, in a process beside it, and says how far that has come."""

    def __init__(self, task: Task):
        self._task = task
        self._process: subprocess.Popen | None = None
        self._stopped_by: int | None = None

    def make(self) -> tuple[int, str]:
        """Makes the run; its exit code, and what went wrong.

        A training that something else ended, such as a machine that shuts down, takes this actor
        with it: Ray then starts both again, elsewhere if need be.
        """
        logdir = self._task.logdir
        while lock.holder(logdir) and not self._stopped_by:  # its node is dead, and it still saves
            time.sleep(1)
        if self._stopped_by:
            return 128 + self._stopped_by, ""
        self._process = processes.launch(
            self._command(), record.log_path(logdir), self._task.cpus, self._cwd()
        )
        if self._stopped_by:
            self._process.send_signal(self._stopped_by)
        code = self._process.wait()
        if code in KILLED and not self._stopped_by:
            os._exit(1)
        return code, record.note_failure(logdir, code) if code and not self._stopped_by else ""

    def _command(self) -> list[str]:
        """The command with this node's interpreter and its part of this node's memory."""
        task = self._task
        share = memory_share(self._runs_here()) if task.share_memory else []
        return [sys.executable, *task.command[1:], *share]

    def _runs_here(self) -> int:
        """How many runs like this one the node has room for."""
        here = ray.get_runtime_context().get_node_id()
        (has,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
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
        node = f"{ray.util.get_node_ip_address()}/{ray.get_runtime_context().get_node_id()[:6]}"
        return Status(node, record.progress(self._task.logdir, self._task.total_frames))

    @ray.method(max_task_retries=0)
    def stop(self, number: int) -> None:
        """Lets the run save and end."""
        self._stopped_by = number
        if self._process:
            self._process.send_signal(number)
