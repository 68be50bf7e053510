"""How much runs have seen: `python -m dreamerv2.coverage --logdirs DIR [DIR ...] --out FILE.png`.

Lays a grid over a vector observation, as wide as all runs of a task together have come or as
`--bounds` says, and counts the cells that the training episodes of each run have entered. Runs of
one `expl_behavior` are one curve, with its 95 % interval from three seeds on. Of a vector of two
numbers there is a map as well: the darker a cell, the more runs saw it. Exit codes: 0, or 2 for a
mistake in what was asked for.
"""

import argparse
import sys
from collections.abc import Sequence

from common.commands import MISTAKES, Parser, at_least, directory, file_path, one_line_errors
from common.data.rows import LARGEST

FORMATS = (".png", ".svg", ".pdf")
MOST_CELLS = 1000  # along each number: a map has the square of it


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        from dreamerv2.measure import coverage

        text = coverage.report(
            args.logdirs, args.key, args.cells, args.out, args.bounds, args.reachable
        )
    print(f"{text}\n{args.out}")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("coverage", __doc__, run=False)
    parser.add_argument("--logdirs", type=directory, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--out", type=file_path, required=True, metavar="FILE.png")
    parser.add_argument("--key", default="vector", help="the observation")
    parser.add_argument(
        "--cells", type=at_least(2, MOST_CELLS), default=10, help="along each of its numbers"
    )
    parser.add_argument(
        "--bounds",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of each of its numbers; None: what the runs saw",
    )
    parser.add_argument(
        "--of",
        dest="reachable",
        type=at_least(0),
        default=0,
        metavar="N",
        help="cells that can be entered, to show shares of; 0: numbers of cells",
    )
    args = parser.parse_args(argv)
    low, high = args.bounds or (0, 1)
    if not low < high:
        raise ValueError(f"--bounds {low:g} {high:g}: expected the lower number first")
    if max(-low, high) > LARGEST:
        raise ValueError(f"--bounds {low:g} {high:g}: expected numbers up to {LARGEST:g}")
    if args.out.suffix not in FORMATS:
        raise ValueError(f"--out {args.out}: expected a name that ends in .png, .svg or .pdf")
    return args


if __name__ == "__main__":
    sys.exit(main())
