"""How fast the agent is on this machine, as a share of what the machine can do.

    python -m dreamerv2.bench [--size full small] [--precision 32 bfloat16] [--json FILE]

Each size and precision is measured in a process of its own, after warm-up: the rate of a large
matrix product, one whole update and its parts, the first update, a policy step, replay, the
environment, memory. `--size` takes `full` (block `atari`), `small` (`atari small`), or blocks
joined by `+`. Any other flag is one of train's.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.commands import MISTAKES, Parser, one_line_errors


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args, flags = parse(argv)
        from dreamerv2.measure import timing

        jobs = timing.make_jobs(args.size, args.precision, flags)
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
    print(timing.report(timing.measure_all(jobs, args.json)))
    return 0


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and those for train; ValueError for what is not accepted."""
    parser = Parser("bench", __doc__, run=False)
    parser.add_argument("--size", nargs="+", default=["full", "small"], metavar="SIZE")
    parser.add_argument("--precision", nargs="+", default=["32"], metavar="P")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    sys.exit(main())
