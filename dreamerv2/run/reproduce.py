"""Does an update that broke a run again: `python -m dreamerv2.run.reproduce FOLDER`.

FOLDER is one of LOGDIR/failure. Prints what the update reports that is not finite.
"""

import math
import sys
from pathlib import Path

import numpy as np

from common import checkpoint
from common.commands import MISTAKES, one_line_errors
from dreamerv2.run import restore, snapshot


def reproduce(folder: Path) -> dict[str, float]:
    """The metrics of the update whose state and batch are in the folder.

    Raises:
        ValueError or OSError: it has none, or they are damaged.
    """
    path = folder / "checkpoint.npz"
    saved = restore.read_file(path)
    agent = saved.agent()
    arrays, meta = checkpoint.load(path)
    try:
        carry = snapshot.unpack_tensors(snapshot.below("carry", arrays), meta["carry_dtypes"])
        with np.load(folder / "batch.npz", allow_pickle=False) as file:
            batch = {key: file[key] for key in (*agent.wm.input_keys, "action")}
    except (*checkpoint.DAMAGE, TypeError) as error:
        raise ValueError(f"{folder}: expected a folder of LOGDIR/failure ({error})") from error
    _, metrics = agent.train(batch, carry or None, saved.agent_steps)
    return {name: float(value) for name, value in metrics.items()}


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        if len(argv) != 1:
            raise ValueError("write python -m dreamerv2.run.reproduce LOGDIR/failure/NAME")
        metrics = reproduce(Path(argv[0]))
    broken = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    print("\n".join(f"{name} {value}" for name, value in broken.items()) or "all is finite")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
