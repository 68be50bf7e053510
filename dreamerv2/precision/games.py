"""Greedy games of finished runs: what an agent reaches with its most likely actions.

All runs play the same games, because the seed of a game depends on its number alone. What a run has
played stands in `RUN/greedy.json`, so that no game is played twice.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from common.files import check_writable, write_json
from common.report.stats import bootstrap_mean
from dreamerv2.jobs.record import Run
from dreamerv2.play import evaluation
from dreamerv2.run import restore

FILE = "greedy.json"
SEED = 1000  # of the games; far from the seeds that people give to runs


def returns(run: Run) -> list[float]:
    """Returns of the greedy games of a run's last checkpoint; empty where none were played."""
    try:
        saved = json.loads((run.logdir / FILE).read_text())
        newest = run.checkpoint.stem if run.checkpoint else None
        if (saved["checkpoint"], saved["seed"]) == (newest, SEED):
            return [float(value) for value in saved["returns"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # played with another checkpoint, never, or by something else
    return []


def mean_return(run: Run) -> float | None:
    """The mean over its games; None without any."""
    found = returns(run)
    return sum(found) / len(found) if found else None


def summary(run: Run) -> dict[str, Any] | None:
    """Mean, its bootstrap 95 % interval over games, and how many they are; None without any."""
    found = returns(run)
    if not found:
        return None
    low, high = bootstrap_mean(found)
    several = len(found) > 1
    return {
        "games": len(found),
        "mean": sum(found) / len(found),
        "low": float(low) if several else None,
        "high": float(high) if several else None,
        "returns": found,
    }


def play_missing(runs: Sequence[Run], count: int) -> None:
    """Plays `count` games with each finished run that has fewer, and says what they reach.

    A run that cannot play is told of on stderr; a comparison does not fail for it.
    """
    missing = [run for run in runs if run.finished and len(returns(run)) < count]
    for number, run in enumerate(missing, 1):
        where = f"[{number}/{len(missing)}] {run.name}"
        print(f"{where}: {count} greedy games ...", flush=True)
        start = time.monotonic()
        try:
            _play(run, count)
        except (ValueError, OSError) as error:  # a game without end, a damaged file, a full disk
            sys.stderr.write(f"warning: {run.name} has no greedy games: {error}\n")
            continue
        found, seconds = summary(run), time.monotonic() - start
        assert found
        print(f"{where}: mean return {found['mean']:.4g}, {seconds:.0f} s", flush=True)


def _play(run: Run, count: int) -> None:
    check_writable(run.logdir / FILE)
    saved = restore.read(run.logdir)
    (policy,) = evaluation.policies(saved, "eval", random=False).values()
    games = evaluation.evaluate(
        saved.env, policy, count, SEED, saved.max_steps, show=lambda line: None
    )
    content = {"checkpoint": saved.path.stem, "seed": SEED, **games._asdict()}
    write_json(run.logdir / FILE, content)
