"""What the files of a run tell: how far it has come, what it logged, how it ended."""

import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.checkpoint import Checkpoints
from common.config import Config
from common.log.metrics import Row, read_last_rows, read_metrics
from dreamerv2.run import blocks, finish

# Information, warnings and errors of TensorFlow's C++ (a fatal one is kept), and SDL's.
NATIVE_NOTE = re.compile(
    r"[IWE]\d{4} \d\d:|\d{4}-\d\d-\d\d .{15,20}: [IWE] |WARNING: All log messages before absl"
    r"|To enable the following instructions:|error: XDG_RUNTIME_DIR|ALSA lib |pygame \d"
)
SCORE_EPISODES = 10


class Run(NamedTuple):
    """One run as its files tell it. `status`: finished, failed, unfinished or not started."""

    logdir: Path
    config: Config
    status: str
    error: str
    rows: list[Row]  # metrics.jsonl
    checkpoint: Path | None  # the newest one when this was read
    checkpoint_bytes: int | None
    device: str

    @property
    def name(self) -> str:
        return self.logdir.name or self.logdir.resolve().name

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    def series(self, key: str, over: str = "step") -> tuple[np.ndarray, np.ndarray]:
        """(x, y) of the rows with a finite `key`; `over` is `step` [env frames] or `updates`."""
        points = [(r[over], r[key]) for r in self.rows if None not in (r.get(key), r.get(over))]
        x, y = np.array(points, np.float64).reshape(-1, 2).T
        return x, y

    def last(self, key: str) -> float | None:
        """The newest value of a metric."""
        _, y = self.series(key)
        return float(y[-1]) if len(y) else None


def read_run(logdir: Path, planned: Config | None = None) -> Run:
    """The run in a logdir, whatever its state; its log, if there is one, is `LOGDIR.log`.

    planned: what the run is to be. It may not have begun, or have been longer.

    Raises:
        ConfigError or OSError: there is no `config.yaml` that can be read, and no plan.
    """
    saved = logdir / "config.yaml"
    config = blocks.load_config(saved) if saved.exists() or planned is None else planned
    checkpoint = Checkpoints(logdir / "checkpoints", config.keep_checkpoints).latest()
    log = read_log(logdir)
    status, error = "unfinished" if log or checkpoint else "not started", ""
    # The last checkpoint is written before the last evaluation, which may have failed.
    steps = (planned or config).steps
    asked = config.update({"logdir": str(logdir), "steps": steps})
    failed = ends_with_error(log) and not finish.finished(asked)
    if failed:
        status, error = "failed", log[-1].removeprefix("error: ")
    elif checkpoint and int(checkpoint.stem) >= steps:
        status = "finished"
    device = [line for line in log if line.startswith("Device: ")]
    return Run(
        logdir=logdir,
        config=config,
        status=status,
        error=error,
        rows=read_metrics(logdir / "metrics.jsonl"),
        checkpoint=checkpoint,
        checkpoint_bytes=checkpoint.stat().st_size if checkpoint else None,
        device=device[-1].removeprefix("Device: ") if device else "",
    )


class Progress(NamedTuple):
    """How far a run has come; None for what is not known."""

    env_frames: int | None = None
    score: float | None = None  # mean return of its last training episodes
    seconds_left: float | None = None


def progress(logdir: Path, total_frames: int) -> Progress:
    """Progress from the end of what a run has logged, however long that is.

    total_frames: how long the run is to be, env frames.
    """
    rows = read_last_rows(logdir / "metrics.jsonl")
    if not rows:
        return Progress()
    scores = [row["train_return"] for row in rows if row.get("train_return") is not None]
    rates = [row["fps"] for row in rows if row.get("fps")]
    frames = int(rows[-1]["step"])
    return Progress(
        frames,
        float(np.mean(scores[-SCORE_EPISODES:])) if scores else None,
        max(0, total_frames - frames) / rates[-1] if rates else None,
    )


def read_log(logdir: Path) -> list[str]:
    """Lines that the run printed, or none; without empty ones and native libraries' notes."""
    path = log_path(logdir)
    text = path.read_text(errors="replace") if path.exists() else ""
    return [line for line in text.splitlines() if line.strip() and not NATIVE_NOTE.match(line)]


def ends_with_error(log: Sequence[str]) -> bool:
    """Whether the last line that a run printed is an error."""
    return bool(log) and log[-1].startswith("error: ")


def log_path(logdir: Path) -> Path:
    """Where commands that make many runs keep what each prints."""
    named = logdir if logdir.name else logdir.resolve()
    return named.with_name(named.name + ".log")


def note_failure(logdir: Path, code: int) -> str:
    """Ends the log of a run that broke with one line that says so, and returns what it says."""
    lines = read_log(logdir) or ["no output"]
    text = lines[-1].removeprefix("error: ")
    if code < 0:
        text = f"killed by {signal.Signals(-code).name}; last line: {text}"
    with log_path(logdir).open("a") as log:
        log.write(f"\nerror: {text}\n")
    return text
