"""Environments that break after a while, at three precisions: the run goes on, or ends in one line
from which a healthy environment goes on."""

import contextlib
import io
import random
from pathlib import Path

import numpy as np
from outcome import Outcome, damaged

from common.envs.scripted import Scripted
from dreamerv2.run import blocks
from dreamerv2.run.errors import RunBrokenError, RunError
from dreamerv2.run.factory import make_runner

NAN, INF = np.float32(np.nan), np.float32(np.inf)
BROKEN = {
    "reward nan": {"reward": NAN},
    "reward inf": {"reward": INF},
    "reward -inf": {"reward": -INF},
    "reward 1e30": {"reward": np.float32(1e30)},
    "reward -1e20": {"reward": np.float32(-1e20)},
    "reward None": {"reward": None},
    "reward a word": {"reward": "much"},
    "reward a list": {"reward": [1.0, 2.0]},
    "reward 1e6": {"reward": np.float32(1e6)},
    "vector nan": {"counter": np.array([0, NAN])},
    "vector inf": {"counter": np.array([INF, 0])},
    "vector 1e30": {"counter": np.array([1e30, 0])},
    "vector 1e6": {"counter": np.array([1e6, 0], np.float32)},
    "vector too long": {"counter": np.zeros(3, np.float32)},
    "vector None": {"counter": None},
    "flag a number": {"is_last": 0.5},
    "flag None": {"is_terminal": None},
    "another key": {"extra": np.zeros(2)},
    "an object": {"counter": object()},
    "an exception": {},
}
SIZES = {
    **{"jit": False, "imag_horizon": 3, r"rssm\.(hidden|deter)": 8, r"rssm\.(stoch|discrete)": 3},
    **{r".*\.mlp_layers": [6], r".*\.layers": 1, r".*\.units": 6, "prefill": 60, "steps": 130},
    **{"train_every": 10, "eval_every": 100, "log_every": 50, r".*\.cnn_keys": "$^"},
    **{"replay.minlen": 5, "replay.maxlen": 8, "dataset.batch": 2, "dataset.length": 8},
}


class Broken(Scripted):
    """Reports wrong values at some steps, or raises."""

    def __init__(self, values: dict | None):
        super().__init__(20, size=8)
        self._values, self._count = values, 0

    def step(self, action):
        self._count += 1
        row = super().step(action)
        if self._values is None or self._count % 45:
            return row
        if not self._values:
            raise RuntimeError("the emulator has crashed")
        return {**row, **self._values}


def play(logdir: Path, precision, values: dict | None) -> None:
    """A run to its end, or the error that ends it."""
    changes = SIZES | {"logdir": str(logdir), "precision": precision}
    config = blocks.make_config([], changes)
    envs = {"train": [Broken(values)], "eval": [Scripted(20, size=8)]}
    with contextlib.redirect_stdout(io.StringIO()):
        make_runner(config, lambda mode, seeds: envs[mode]).run()


def broken_environments(trials: int, where: Path) -> Outcome:
    outcome = Outcome()
    cases = [(name, p) for name in BROKEN for p in (32, 16, "bfloat16")]
    for name, precision in random.Random(0).sample(cases, min(trials, len(cases))):
        logdir = where / f"{name} {precision}"
        problem = None
        try:
            play(logdir, precision, BROKEN[name])
        except (RunBrokenError, RunError) as error:
            if len(str(error).splitlines()) != 1:
                problem = "more than one line"
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        try:
            play(logdir, precision, None)
        except Exception as error:
            problem = f"a healthy environment does not go on: {error}"
        outcome.add(f"{name} at {precision}", problem or damaged(logdir))
    return outcome
