"""Greedy games of finished runs: what an agent reaches with its most likely actions.

All runs play the same games, because the seed of a game depends on its number alone. What a run has
played stands in `RUN/greedy.json`; it counts as long as the run's last checkpoint is the same.
"""

import functools
import json
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.files import check_writable, write_json
from common.report.stats import bootstrap_mean
from dreamerv2.jobs.record import Run
from dreamerv2.play import evaluation
from dreamerv2.run import failure, restore

FILE = "greedy.json"
SEED = 1000  # of the games; far from the seeds that people give to runs


def played(run: Run) -> list[float]:
    """Returns of the games of a run's last checkpoint; empty where none were played."""
    try:
        note = json.loads((run.logdir / FILE).read_text())
        if note["seed"] == SEED and note["checkpoint"] == _identity(run.checkpoint):
            return [float(value) for value in note["returns"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no games, those of another checkpoint, or the file of something else
    return []


def common_count(runs: Sequence[Run]) -> int:
    """How many games can be compared: the fewest of any finished run that has played."""
    counts = [len(played(run)) for run in runs if run.finished]
    return min(filter(None, counts), default=0)


def mean_return(run: Run, count: int) -> float | None:
    """The mean over the first `count` games; None where the run has fewer."""
    found = summary(run, count)
    return found["mean"] if found else None


def summary(run: Run, count: int) -> dict[str, Any] | None:
    """The first `count` games: returns, mean, and its bootstrap 95 % interval over games."""
    returns = played(run)[:count]
    if not returns or len(returns) < count:
        return None
    low, high = bootstrap_mean(returns)
    several = count > 1
    return {
        "mean": sum(returns) / count,
        "low": float(low) if several else None,
        "high": float(high) if several else None,
        "returns": returns,
    }


def missing(runs: Sequence[Run], count: int) -> list[Run]:
    """The finished runs that have played fewer games."""
    return [run for run in runs if run.finished and len(played(run)) < count]


def play(runs: Sequence[Run], count: int) -> None:
    """Plays `count` games with each run, and says what it reaches.

    A run that cannot play is told of on stderr; a comparison does not fail for it.
    """
    for number, run in enumerate(runs, 1):
        where = f"[{number}/{len(runs)}] {run.name}"
        print(f"{where}: {count} greedy games ...", flush=True)
        start = time.monotonic()
        try:
            games = _play(run, count)
        except Exception as error:  # a damaged file, a full disk, whatever an environment raises
            text = failure.describe(error)
            sys.stderr.write(f"warning: {run.name} has no greedy games: {text}\n")
            continue
        mean, seconds = sum(games.returns) / count, time.monotonic() - start
        cut = f", {len(games.cut)} cut after {max(games.lengths):,} agent steps" * bool(games.cut)
        print(f"{where}: mean return {mean:.4g}{cut}, {seconds:.0f} s", flush=True)


def _play(run: Run, count: int) -> evaluation.Result:
    assert run.checkpoint
    check_writable(run.logdir / FILE)
    saved, identity = restore.read_file(run.checkpoint), _identity(run.checkpoint)
    (policy,) = evaluation.policies(saved, "eval", random=False).values()
    steps = saved.max_steps
    games = evaluation.evaluate(
        saved.env, policy, count, SEED, steps, show=lambda line: None, cut=True
    )
    note = {"checkpoint": identity, "seed": SEED, "cut_at": steps, **games._asdict()}
    write_json(run.logdir / FILE, note)
    return games


def _identity(checkpoint: Path | None) -> list[Any] | None:
    """What tells a checkpoint from another one, also from one of the same step."""
    if checkpoint is None:
        return None
    found = checkpoint.stat()
    return [checkpoint.stem, _checksum(checkpoint, found.st_mtime_ns, found.st_size)]


@functools.cache
def _checksum(checkpoint: Path, mtime_ns: int, size: int) -> int:
    """mtime_ns, size: of a file that is still the same one."""
    return zlib.crc32(checkpoint.read_bytes())
