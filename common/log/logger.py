"""Collect metrics and clips of a run and hand them to terminal, metrics.jsonl and other outputs."""

import contextlib
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from common.files import close_last_line
from common.log import video
from common.when import EverySeconds

Scalars = Mapping[str, float]
Clips = Mapping[str, np.ndarray]


class Output(Protocol):
    """A place where rows go. `step` is in environment frames."""

    def write(self, step: int, scalars: Scalars, clips: Clips) -> None: ...

    def close(self) -> None: ...


class Logger:
    """Gathers one row of metrics until `write` sends it to every output.

    agent_steps: where the run is; rows carry `step = agent_steps * multiplier` (env frames).
    """

    _cpu_of_others = 0.0  # CPU seconds of this process that went into runs before

    def __init__(self, outputs: Sequence[Output], multiplier: int = 1):
        self.agent_steps = 0
        self._outputs = tuple(outputs)
        self._multiplier = multiplier
        self._scalars: dict[str, float] = {}
        self._clips: dict[str, np.ndarray] = {}
        self._started = time.monotonic()
        self._cpu_before = -Logger._cpu_of_others
        self._fps_time = self._started
        self._fps_step: int | None = None

    @property
    def step(self) -> int:
        """Environment frames so far."""
        return self.agent_steps * self._multiplier

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the run, over all its resumes, without the pauses in between."""
        return time.monotonic() - self._started

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of the run's process, all threads, over all its resumes."""
        return self._cpu_before + time.process_time()

    def add(self, mapping: Mapping[str, Any], prefix: str | None = None) -> None:
        """Take scalars (no dimensions) and clips ([T, H, W, C]) under `prefix_name`."""
        for name, value in mapping.items():
            name = f"{prefix}_{name}" if prefix else name
            value = np.asarray(value)
            if value.ndim == 0:
                self.scalar(name, value)
            elif value.ndim == 4:
                self.video(name, value)
            else:
                raise ValueError(f"Metric {name!r} has shape {value.shape}: not a scalar or clip.")

    def scalar(self, name: str, value: Any) -> None:
        self._scalars[name] = float(value)

    def video(self, name: str, frames: np.ndarray) -> None:
        """Take a clip [T, H, W, C], uint8 or float in [0, 1]; see `video.showable`."""
        self._clips[name] = video.showable(np.asarray(frames))

    def write(self, fps: bool = False) -> None:
        """Send the row to the outputs; `fps` adds the frames per second since it was last asked."""
        if fps:
            self.scalar("fps", self._frames_per_second())
        if not self._scalars and not self._clips:
            return
        for output in self._outputs:
            output.write(self.step, self._scalars, self._clips)
        self._scalars, self._clips = {}, {}

    def close(self) -> None:
        Logger._cpu_of_others = time.process_time()
        for output in self._outputs:
            output.close()

    def state(self) -> dict[str, Any]:
        """The clocks as plain numbers, for a checkpoint."""
        now = time.monotonic()
        return {
            "seconds": now - self._started,
            "cpu_seconds": self.cpu_seconds,
            "fps_seconds": now - self._fps_time,
            "fps_step": self._fps_step,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        now = time.monotonic()
        self._started = now - state["seconds"]
        # Runs of before this was counted: the wall clock is the best guess.
        self._cpu_before = state.get("cpu_seconds", state["seconds"]) - Logger._cpu_of_others
        self._fps_time = now - state["fps_seconds"]
        self._fps_step = state["fps_step"]

    def _frames_per_second(self) -> float:
        now, step = time.monotonic(), self.step
        frames = 0 if self._fps_step is None else step - self._fps_step
        seconds = max(now - self._fps_time, 1e-6)
        self._fps_time, self._fps_step = now, step
        return frames / seconds


class TerminalOutput:
    """One compact line of chosen metrics, at most one in `interval` seconds.

    Rows in between are not lost: the line shows the latest value of each metric since the last.
    """

    def __init__(
        self,
        show: Callable[[str], Any],
        metrics: Sequence[str],
        interval: float = 5.0,
    ):
        self._show = show
        self._metrics = tuple(metrics)
        self._interval = interval
        self._shown = -math.inf
        self._step = 0
        self._latest: dict[str, float] = {}

    def write(self, step: int, scalars: Scalars, clips: Clips) -> None:
        self._step = step
        self._latest.update({k: v for k, v in scalars.items() if k in self._metrics})
        if time.monotonic() - self._shown >= self._interval:
            self._flush()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if not self._latest:
            return
        parts = [f"{k} {compact(self._latest[k])}" for k in self._metrics if k in self._latest]
        self._show(f"[{self._step:,}] {' | '.join(parts)}")
        self._shown = time.monotonic()
        self._latest = {}


class Tolerant:
    """An output whose loss must not end a run: what it cannot write is a warning, said once.

    name: what is written, for the warning. make: builds the output, at the first row. After a
    failure rows are lost until `retry` says that it is time to build the output anew.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Output],
        warn: Callable[[str], Any] = print,
        retry: Callable[[], bool] | None = None,
    ):
        self._name, self._make, self._warn = name, make, warn
        self._retry = retry or EverySeconds(60)
        self._output: Output | None = None
        self._failing = False

    def write(self, step: int, scalars: Scalars, clips: Clips) -> None:
        if self._failing and not self._retry():
            return
        try:
            self._output = self._output or self._make()
            self._output.write(step, scalars, clips)
        except Exception as error:
            if not is_write_error(error):
                raise
            self._drop()
            if not self._failing:
                self._warn(
                    f"WARNING: {self._name} cannot be written ({short_error(error)}); the run goes "
                    "on without it; free some space or mend the disk"
                )
            self._failing = True
        else:
            if self._failing:
                self._warn(f"{self._name} is written again")
            self._failing = False

    def _drop(self) -> None:
        """An output may hold a file and a thread."""
        output, self._output = self._output, None
        if output is not None:
            with contextlib.suppress(Exception):  # it has failed already
                output.close()

    def close(self) -> None:
        try:
            if self._output is not None:
                self._output.close()
        except Exception as error:
            if not is_write_error(error):
                raise
            self._warn(f"WARNING: the end of {self._name} was not written ({short_error(error)})")


def is_write_error(error: Exception) -> bool:
    """Whether a file could not be written. TensorFlow's file system has errors of its own."""
    return isinstance(error, OSError) or type(error).__module__.startswith("tensorflow")


def short_error(error: Exception) -> str:
    """What went wrong, in one line."""
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__


class JSONLOutput:
    """DIR/metrics.jsonl: one JSON object per row, `step` first; a value that is not finite is null.

    A file that is there is continued; what a killed process left as half a line is closed first.
    """

    def __init__(self, directory: str | Path):
        self._path = Path(directory) / "metrics.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        close_last_line(self._path)

    def write(self, step: int, scalars: Scalars, clips: Clips) -> None:
        if not scalars:
            return
        row = {k: v if math.isfinite(v) else None for k, v in scalars.items()}
        self._append(json.dumps({"step": step, **row}) + "\n")

    def close(self) -> None:
        pass

    def _append(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)


class GIFOutput:
    """DIR/STEP-NAME.gif for every clip. A clip that cannot be written is a warning."""

    def __init__(self, directory: str | Path, fps: float = 20):
        self._directory = Path(directory)
        self._fps = fps

    def write(self, step: int, scalars: Scalars, clips: Clips) -> None:
        for name, frames in clips.items():
            path = self._directory / f"{step:012d}-{name}.gif"
            try:
                video.save_gif(path, frames, self._fps)
            except Exception as error:
                warn_of_gif(path.name, error)

    def close(self) -> None:
        pass


def compact(value: float) -> str:
    """A number in few characters: 1234567 -> 1,234,567; 3.14159 -> 3.14; 0.00012 -> 0.00012."""
    if math.isfinite(value) and (value == int(value) or abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def warn_of_gif(name: str, error: Exception) -> None:
    """A clip that cannot be written does not end a run."""
    warnings.warn(f"The clip {name} was not written: {error}", RuntimeWarning, stacklevel=3)
