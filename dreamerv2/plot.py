"""Draw curves of runs: `python -m dreamerv2.plot --logdirs DIR [DIR ...] --out FILE.png`.

A column per task, a row per metric. Runs that differ only in their seed (and in when they log,
evaluate or end) are one curve: the mean over seeds in equal parts of the x axis, as far as every
seed has come, with its 95% bootstrap interval from three seeds on; each seed is a thin line. Takes
runs of this package and of the reference. Exit codes: 0, or 2 for a mistake in what was asked for.
"""

import argparse
import sys
from collections.abc import Sequence

from common.commands import MISTAKES, Parser, directory, file_path, one_line_errors

FORMATS = (".png", ".svg", ".pdf")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        from dreamerv2.measure import curves

        logdirs = {logdir.resolve(): logdir for logdir in args.logdirs}
        groups = curves.grouped([curves.read_run(logdir) for logdir in logdirs.values()])
        lines = curves.draw(args.out, groups, args.metric, args.x, args.reference, args.explain)
        if args.reference:
            unknown = (task for task in groups if not curves.is_published(task))
            lines += [f"nothing is published for {task}" for task in unknown]
    print("\n".join([*lines, str(args.out)]))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("plot", __doc__, run=False)
    parser.add_argument("--logdirs", type=directory, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--out", type=file_path, required=True, metavar="FILE.png")
    parser.add_argument("--x", choices=["frames", "updates", "hours"], default="frames")
    parser.add_argument("--metric", nargs="+", default=["train_return"], metavar="NAME")
    parser.add_argument(
        "--reference",
        action="store_true",
        help="add the author's returns (against frames, on a log axis), random and human play",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="with --metric actor_loss: the three terms that it is made of",
    )
    args = parser.parse_args(argv)
    if args.out.suffix not in FORMATS:
        raise ValueError(f"--out {args.out}: expected a name that ends in .png, .svg or .pdf")
    if args.explain and "actor_loss" not in args.metric:
        raise ValueError("--explain explains actor_loss: write --metric actor_loss")
    return args


if __name__ == "__main__":
    sys.exit(main())
