"""What the workers of one run have to do alike: end, save, and go on to the next phase.

Every worker runs the same loop on environments and episodes of its own. An update needs all of
them, so that whatever decides about the next one must be known to all: after each round of steps
they exchange one row of numbers. Worker 0 leads: it alone evaluates, logs and writes checkpoints.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.cluster import ALONE, Cluster, watched
from common.interrupt import Interrupt
from common.when import EverySeconds

Exchange = Callable[[Sequence[int]], np.ndarray]


class Round(NamedTuple):
    """What came of a round."""

    others_steps: int  # agent steps that the other workers made in it
    ready: bool  # whether all have an episode to learn from


class Alone:
    """A run in one process, which has nothing to agree on."""

    def __init__(self, cluster: Cluster = ALONE):
        self.cluster = cluster
        self.index, self.size = cluster.index, cluster.size
        self.leads = self.index == 0
        self.signal = self.interrupt = Interrupt()

    def folder(self, logdir: Path) -> Path:
        """Where this worker keeps its episodes."""
        return logdir if self.leads else logdir / f"worker_{self.index}"

    def clock(self, clock: EverySeconds) -> "EverySeconds | AgreedClock":
        """A clock that strikes on all workers in the same round."""
        return clock

    def join(self, agent_steps: int, updates: int, config: int, stored_steps: int) -> int:
        """Compares what a worker begins with; the steps in the replays of the others.

        config: a checksum of the configuration.
        """
        return 0

    def round(self, steps: int, ready: bool) -> Round:
        """Tells the others how many steps were made here, and whether there is an episode."""
        return Round(0, ready)

    def updating(self) -> contextlib.AbstractContextManager:
        """Around an update, which fails where a worker is lost."""
        return contextlib.nullcontext()


class AgreedClock:
    """The clock of worker 0, as the others hear of it."""

    def __init__(self, clock: EverySeconds):
        self._clock = clock
        self._due = False

    def ask(self) -> bool:
        """What the clock itself says."""
        return self._clock()

    def tell(self, due: bool) -> None:
        """What all agree on."""
        self._due = due

    def __call__(self) -> bool:
        return self._due

    def restart(self) -> None:
        """Counts from now."""
        self._clock.restart()
        self._due = False


class Team(Alone):
    """One of several workers.

    `interrupt` is what all have agreed on: a signal that one of them has got, its own `signal` or
    another's.

    exchange: see `common.cluster.exchange`; it is there when the agent is.
    """

    exchange: Exchange

    def __init__(self, cluster: Cluster):
        super().__init__(cluster)
        self.interrupt = Interrupt()
        self._clock: AgreedClock | None = None

    def clock(self, clock: EverySeconds) -> AgreedClock:
        """See `Alone`."""
        self._clock = AgreedClock(clock)
        return self._clock

    def join(self, agent_steps: int, updates: int, config: int, stored_steps: int) -> int:
        """See `Alone`; ValueError where the workers do not begin alike."""
        rows = self.exchange([agent_steps, updates, config, stored_steps])
        for number, (steps, made, checksum, _) in enumerate(rows.tolist()):
            if checksum != rows[0, 2]:
                raise ValueError(
                    f"workers: {self.cluster.name(number)} has another configuration than worker "
                    "0; start all with the same flags"
                )
            if [steps, made] != rows[0, :2].tolist():
                raise ValueError(
                    f"workers: {self.cluster.name(number)} is at agent step {steps:,}, worker 0 "
                    f"at {rows[0, 0]:,}; --logdir must be one directory that all of them see"
                )
        return int(rows[:, 3].sum()) - stored_steps

    def round(self, steps: int, ready: bool) -> Round:
        """See `Alone`."""
        assert self._clock is not None
        due = self.leads and self._clock.ask()
        rows = self.exchange([steps, self.signal.number or 0, due, ready])
        total, number, due = int(rows[:, 0].sum()), int(rows[:, 1].max()), bool(rows[0, 2])
        self.interrupt.number = self.interrupt.number or number or None
        self._clock.tell(due)
        return Round(total - steps, bool(rows[:, 3].all()))

    def updating(self) -> contextlib.AbstractContextManager:
        """See `Alone`; raises `WorkerLostError`."""
        return watched(self.cluster)


def make_team(cluster: Cluster) -> Alone:
    """The part of this process in a run."""
    return Team(cluster) if cluster.size > 1 else Alone(cluster)
