"""The learner of a run: updates of the agent on batches from replay, each of them watched."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from common.log.progress import Progress, Stopwatch
from dreamerv2.run import failure, snapshot
from dreamerv2.run.errors import RunError
from dreamerv2.run.monitor import Guard
from dreamerv2.run.team import Alone

Batch = dict[str, np.ndarray]


class Learner:
    """Makes the updates of a run. It has the state that goes from one update to the next.

    batches: endless, of `share` sequences each.
    fail(name): called when the tensor of that name is not finite; raises.

    updates: so far. Kept here: asking the agent at every step would wait for its device.
    half_done: whether an exception has left half an update.
    """

    def __init__(
        self,
        agent: Any,
        batches: Iterator[Batch],
        share: int,
        *,
        team: Alone,
        stopwatch: Stopwatch,
        progress: Progress,
        fail: Callable[[str], None],
    ):
        self.batches = batches
        self.updates = int(agent.updates)
        self.half_done = False
        self._agent, self._share = agent, share
        self._team, self._stopwatch, self._progress = team, stopwatch, progress
        self._fail = fail
        self._guard = Guard()
        self._recorder = failure.Recorder()
        self._carry: Mapping[str, Any] | None = None
        self._first = True

    def update(self, agent_steps: int) -> dict[str, float]:
        """One update on one batch; its metrics as floats."""
        with self._stopwatch("data"):
            batch = next_batch(self.batches)
        start = time.perf_counter()
        if self._first:
            self._progress.phase("compile")
            described = (f"{k} {v.dtype} {[*v.shape]}" for k, v in batch.items())
            self._progress.show("Batch: " + ", ".join(described))
        with self._stopwatch("train"), self._team.updating():
            if self._team.size == 1:
                self._recorder.note(self._agent, self._carry, batch, agent_steps)
            self.half_done = True
            self._carry, metrics = self._agent.train(batch, self._carry, agent_steps)
            metrics = {name: float(value) for name, value in metrics.items()}
            self.updates = int(self._agent.updates)
            self.half_done = False
        if self._first:
            self._progress.show(f"First update, compiled: {time.perf_counter() - start:.1f} s")
            self._first = False
        self._watch(metrics)
        return metrics

    def _watch(self, metrics: Mapping[str, float]) -> None:
        bad = self._guard.bad(metrics)
        if bad:
            self._fail(bad)
        if self._guard.warning:
            self._progress.show(self._guard.warning)
        if self._guard.skipped:
            self.forget_broken_carry()

    def check_parameters(self) -> None:
        """Fails if a parameter is not finite."""
        bad = self._agent.nonfinite()
        if bad:
            self._fail(bad)

    def forget_broken_carry(self) -> None:
        """A state that is not finite is not handed on: the next update starts without one."""
        if not snapshot.finite(self._carry):
            self._carry = None

    def before_failure(self) -> failure.Before | None:
        """What went into the update that broke; the agent is left as it was before it.

        None where there was no update, and in a team, of which no one has the whole batch.
        """
        return self._recorder.rewind(self._agent) if self._team.size == 1 else None

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays of the carried state, and what else a checkpoint needs, as JSON."""
        carry, dtypes = snapshot.pack_tensors(self._carry or {})
        return carry, {"guard": self._guard.state(), "carry_dtypes": dtypes}

    def load_state(self, carry: Mapping[str, np.ndarray], run: Mapping[str, Any]) -> None:
        """carry: none for a worker whose sequences were others than those of the checkpoint."""
        self._guard.load_state(run["guard"])
        carry = snapshot.unpack_tensors(carry, run["carry_dtypes"]) if carry else {}
        if carry and all(len(value) == self._share for value in carry.values()):
            self._carry = carry


def next_batch(batches: Iterator[Batch]) -> Batch:
    """The next batch; what replay finds wrong with the stored episodes is a `RunError`."""
    try:
        return next(batches)
    except ValueError as error:
        raise RunError(str(error)) from error
