"""One HTML page about a run: `python -m dreamerv2.report --logdir DIR [--out FILE.html]`.

What was run, curves, the latest evaluation, the newest pictures, precision, and how exactly this
code computes what the author's does. Everything is in the one file, which opens without a network.
A run that ends writes its own. Exit codes: 0, or 2 for a mistake in what was asked for.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.commands import MISTAKES, Parser, directory, file_path, one_line_errors
from common.files import check_writable

NONE = "none"  # in place of a file: no comparison


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        from dreamerv2.page.html import write_page

        out = args.out or args.logdir / "report.html"
        if args.out:
            check_writable(out)
        write_page(args.logdir, out, lambda: _parity(args.parity))
    print(out)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("report", __doc__, run=False)
    parser.add_argument("--logdir", type=directory, required=True, help="of the run")
    parser.add_argument("--out", type=file_path, metavar="FILE", help="None: LOGDIR/report.html")
    parser.add_argument(
        "--parity",
        metavar="FILE.npz | none",
        help="compare this code with other numbers of the author's release than those that come "
        "with it; none: compare nothing",
    )
    args = parser.parse_args(argv)
    if args.out and args.out.suffix != ".html":
        raise ValueError(f"--out {args.out}: expected a name that ends in .html")
    if args.parity not in (None, NONE) and not Path(args.parity).is_file():
        raise ValueError(f"--parity {args.parity}: there is no such file")
    return args


def _parity(asked: str | None) -> str | None:
    """What the comparison with the author's numbers printed, made now unless it is known."""
    from dreamerv2.reference import verdict

    if asked == NONE:
        return None
    if asked is None and verdict.known():
        return verdict.known()
    sys.stderr.write("Comparing this code with the author's numbers: half a minute of a core\n")
    return verdict.measure(Path(asked)) if asked else verdict.measured()


if __name__ == "__main__":
    sys.exit(main())
