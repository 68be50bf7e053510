"""What is kept of a failure, and what is said of it."""

import errno
import shutil
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import checkpoint
from common.files import write_atomically, write_text
from dreamerv2.run import snapshot

# The state is copied once in so many updates, or when the batches since then take so many bytes:
# less than 1 % of the time of an update, and a minute of updates to do again after a failure.
UPDATES_PER_COPY = 100
BATCH_BYTES = 512 * 2**20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def advice(error: BaseException) -> str:
    """What the user can do, ending in `, and `; nothing if that is not known."""
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return "free some space, and "
    return ""


class Before(NamedTuple):
    """What went into an update."""

    state: dict[str, np.ndarray]  # of the agent
    carry: Any
    batch: dict[str, np.ndarray]
    agent_steps: int


class Recorder:
    """Makes the state before an update that broke again, without a copy at every update.

    It keeps a copy of the agent's state from some updates ago and the batches since then. Updates
    are functions of these, so that doing them again leads to the one that broke.
    """

    def __init__(self) -> None:
        self._state: dict[str, np.ndarray] | None = None
        self._carry: Any = None
        self._since: list[tuple[dict[str, np.ndarray], int]] = []
        self._bytes = 0

    def note(self, agent: Any, carry: Any, batch: dict[str, np.ndarray], agent_steps: int) -> None:
        """Called before every update with what goes into it. The arrays must not be changed."""
        full = len(self._since) >= UPDATES_PER_COPY or self._bytes >= BATCH_BYTES
        if self._state is None or full:
            self._state = agent.state_dict()
            self._since, self._bytes = [], 0
            self._carry = carry
        self._since.append((batch, agent_steps))
        self._bytes += sum(array.nbytes for array in batch.values())

    def rewind(self, agent: Any) -> Before | None:
        """What went into the first update that left something not finite, or into the last one.

        The agent is left as it was before that update. None: there was no update.
        """
        if self._state is None:
            return None
        agent.load_state_dict(self._state)
        carry = self._carry
        for batch, agent_steps in self._since:
            before = Before(agent.state_dict(), carry, batch, agent_steps)
            carry, metrics = agent.train(batch, carry, agent_steps)
            losses = [float(v) for k, v in metrics.items() if k.endswith(("_loss", "_grad_norm"))]
            skipping = any(key.endswith("_skipped") for key in metrics)
            if agent.nonfinite() or not (skipping or np.isfinite(losses).all()):
                break
        agent.load_state_dict(before.state)
        return before


def new_folder(logdir: Path, agent_steps: int) -> Path:
    """A folder for one failure, `failure/<agent steps, 12 digits>[-2, -3, ...]`."""
    base = logdir / "failure" / f"{agent_steps:012d}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    folder.mkdir(parents=True)
    return folder


def write(
    logdir: Path, agent_steps: int, before: Before, meta: Mapping[str, Any], text: str
) -> Path:
    """Writes a new folder: `checkpoint.npz`, a checkpoint of the agent before the update, with the
    carried state under `carry/`; `batch.npz`; `failure.txt`. Returns the folder.

    OSError where that fails; then nothing of it stays.
    """
    folder = new_folder(logdir, agent_steps)
    try:
        _fill(folder, before, meta, text)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _fill(folder: Path, before: Before, meta: Mapping[str, Any], text: str) -> None:
    carry, dtypes = snapshot.pack_tensors(before.carry or {})
    arrays = {**snapshot.under("agent", before.state), **snapshot.under("carry", carry)}
    checkpoint.save(folder / "checkpoint.npz", arrays, {**meta, "carry_dtypes": dtypes})
    with write_atomically(folder / "batch.npz") as file:
        np.savez_compressed(file, **before.batch)  # type: ignore[arg-type]
    write_text(folder / "failure.txt", text + "\n")


def keep_traceback(logdir: Path, agent_steps: int, error: BaseException) -> str:
    """Writes `traceback.txt` into a folder of its own; the end of a message that says where."""
    try:
        path = new_folder(logdir, agent_steps) / "traceback.txt"
        write_text(path, "".join(traceback.format_exception(error)))
    except OSError:
        return ""
    return f"; traceback in {path}"
