"""How much runs have seen: `python -m dreamerv2.coverage --logdirs DIR [DIR ...] --out FILE.png`.

Lays a grid over a vector observation, as wide as all runs of a task together have come, and counts
the cells that the training episodes of each run have entered. Runs of one `expl_behavior` are one
curve, with its 95 % interval from three seeds on. Exit codes: 0, or 2 for a mistake in what was
asked for.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.commands import MISTAKES, Parser, at_least, directory, one_line_errors

FORMATS = (".png", ".svg", ".pdf")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        from dreamerv2.measure import coverage

        text = coverage.report(args.logdirs, args.key, args.cells, args.out)
    print(f"{text}\n{args.out}")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("coverage", __doc__, run=False)
    parser.add_argument("--logdirs", type=directory, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    parser.add_argument("--key", default="vector", help="the observation")
    parser.add_argument("--cells", type=at_least(2), default=10, help="along each of its numbers")
    args = parser.parse_args(argv)
    if args.out.suffix not in FORMATS:
        raise ValueError(f"--out {args.out}: expected a name that ends in .png, .svg or .pdf")
    return args


if __name__ == "__main__":
    sys.exit(main())
