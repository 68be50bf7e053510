"""One HTML page about a run: `python -m dreamerv2.report --logdir DIR [--out FILE.html]`.

What was run, curves, the latest evaluation, the newest pictures, precision. Everything is in the
one file, which opens without a network. A run that ends writes its own. Exit codes: 0, or 2 for a
mistake in what was asked for.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from common.commands import MISTAKES, Parser, directory, one_line_errors


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        from dreamerv2.page.html import write_page

        out = args.out or args.logdir / "report.html"
        write_page(args.logdir, out, _compare(args.parity) if args.parity else None)
    print(out)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("report", __doc__, run=False)
    parser.add_argument("--logdir", type=directory, required=True, help="of the run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="None: LOGDIR/report.html")
    parser.add_argument(
        "--parity",
        type=Path,
        metavar="FILE.npz",
        help="compare this code with these numbers of the author's release; half a minute",
    )
    args = parser.parse_args(argv)
    if args.out and args.out.suffix != ".html":
        raise ValueError(f"--out {args.out}: expected a name that ends in .html")
    if args.parity and not args.parity.is_file():
        raise ValueError(f"--parity {args.parity}: there is no such file")
    return args


def _compare(path: Path) -> str:
    """What the command `parity` prints."""
    command = [sys.executable, "-m", "dreamerv2.parity", str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip() or result.stderr.strip()


if __name__ == "__main__":
    sys.exit(main())
