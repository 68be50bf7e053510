"""Fault injection: `make faults`, or `python tests/faults/run.py [--only NAME ...] [--scale 0.1]`.

Breaks real runs on purpose and prints one table: tried, held, fell short. `--scale` makes a part of
the trials. Needs no device; a small tmpfs is mounted where that is allowed.
"""

import argparse
import os
import resource
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
# The runs are so small that more threads only wait for each other; the children inherit this.
os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from disk import full_disks  # noqa: E402
from environments import broken_environments  # noqa: E402
from fuzz import COMMANDS, fuzzed_calls, sound_calls  # noqa: E402
from kills import kills_in_runs, kills_in_writes  # noqa: E402
from outcome import Outcome  # noqa: E402
from signals import signals_in_phases, two_processes  # noqa: E402

SECTIONS = {
    "writes": ("kill -9 inside a write", kills_in_writes, 200),
    "kills": ("kill -9 at a random moment of a run", kills_in_runs, 50),
    "signals": ("SIGINT, SIGTERM, SIGHUP, two SIGINT in each phase", signals_in_phases, 16),
    "two": ("two processes on one logdir", two_processes, 5),
    "disk": ("a disk that is full", full_disks, 10),
    "environments": ("broken environments at three precisions", broken_environments, 60),
    "sound": ("calls with nothing wrong", sound_calls, len(COMMANDS)),
    "fuzz": ("fuzzed calls, seed 0", lambda n, where: fuzzed_calls(n, where, 0), 500),
    "fuzz-new": ("fuzzed calls, a new seed", lambda n, where: fuzzed_calls(n, where, None), 500),
}


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> int:
    """The command; returns 1 if anything fell short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the trials")
    args = parser.parse_args()
    rows: list[tuple[str, Outcome, float]] = []
    for name in args.only:
        title, section, trials = SECTIONS[name]
        start = cpu_seconds()
        with tempfile.TemporaryDirectory(prefix="faults-") as directory:
            outcome = section(max(1, round(trials * args.scale)), Path(directory))
        rows.append((title, outcome, cpu_seconds() - start))
        for text in outcome.short:
            print(f"{name}: {text}", flush=True)
    print("\n| fault | tried | held | fell short | CPU seconds |\n|---|--:|--:|--:|--:|")
    for title, outcome, seconds in rows:
        held = outcome.tried - len(outcome.short)
        note = f" ({outcome.note})" if outcome.note else ""
        numbers = f"{outcome.tried} | {held} | {len(outcome.short)} | {seconds:.0f}"
        print(f"| {title}{note} | {numbers} |")
    return int(any(outcome.short for _, outcome, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
