"""What came of the trials of one kind of fault, and the runs that they break."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from common import checkpoint

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "--configs vector debug --prefill 100 --pretrain 2 --train_every 2 --save_every 0.5 "
    "--eval_every 60 --eval_eps 1 --replay.capacity 1000000"
)


@dataclasses.dataclass
class Outcome:
    """tried: number of trials. short: a line for each that did not hold. note: for the table."""

    tried: int = 0
    short: list[str] = dataclasses.field(default_factory=list)
    note: str = ""

    def add(self, name: str, problem: str | None) -> None:
        self.tried += 1
        sys.stderr.write(f"{'FELL SHORT' if problem else 'held'}: {name}\n")
        if problem:
            self.short.append(f"{name}: {problem}")


def start(logdir: Path, *flags: str, **options) -> subprocess.Popen:
    """A small real run in a process of its own."""
    words = [*SMALL.split(), *flags]
    argv = [sys.executable, "-m", "dreamerv2.train", "--logdir", str(logdir), *words]
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        argv, cwd=ROOT, env=env, text=True, preexec_fn=_default_signals, **pipes
    )


def _default_signals() -> None:
    """Under `nohup`, or started with `&`, this script ignores some, and children inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def damaged(logdir: Path) -> str | None:
    """The first checkpoint or episode that is not whole."""
    for path in (logdir / "checkpoints").glob("*.npz"):
        try:
            checkpoint.load(path)
        except checkpoint.CheckpointError as error:
            return str(error)
    for path in logdir.glob("*_episodes/*.npz"):
        try:
            with np.load(path) as file:
                lengths = {len(file[key]) for key in file.files}
        except Exception as error:
            return f"{path.name}: {error}"
        if lengths != {int(path.stem.rsplit("-", 1)[1]) + 1}:
            return f"{path.name}: its rows are {lengths}"
    return None


def one_line(code: int, err: str) -> str | None:
    """What is wrong with how a command ended, if it should have been an error in one line."""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    if "Traceback" in err:
        return f"a traceback: {err.strip().splitlines()[-1]}"
    return None if code in (1, 2) and len(lines) == 1 else f"exit code {code}, {len(lines)} errors"
