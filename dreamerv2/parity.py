"""Compares the agent with numbers that the reference computed, every draw replaced by its mode.

    python -m dreamerv2.parity [FILE.npz ...] [--tolerance 1e-3] [--precision 32]
                               [--precision_overrides.MODULE PRECISION ...] [--loss_scale SCALE]

Without a file it takes the numbers of an Atari agent that come with the project. With a precision
other than 32 the errors are for information: no pass or fail. Exit status: 0 when all quantities
agree, 1 when one does not, 2 when a file cannot be used.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from common.commands import MISTAKES, Parser, one_line_errors


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args, overrides = parse(argv)
        from common.device import import_tensorflow

        import_tensorflow()  # only now, since it takes seconds
        from dreamerv2.reference import parity, verdict

        passed = True
        for path in args.files or [str(verdict.golden_file())]:
            passed &= parity.judge(path, overrides, args.tolerance)
    return 0 if passed else 1


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The flags, and the keys of the configuration that they change; ValueError for a mistake."""
    from common.config import parse_yaml, split_flags

    parser = Parser("parity", __doc__, run=False)
    parser.add_argument("files", nargs="*", metavar="FILE.npz")
    parser.add_argument("--tolerance", type=float, default=1e-3, help="largest relative error")
    parser.add_argument("--precision", default="32", choices=["32", "tf32", "16", "bfloat16"])
    parser.add_argument("--loss_scale", metavar="dynamic | NUMBER | none")
    args, rest = parser.parse_known_args(argv)
    if not 0 <= args.tolerance <= 1:  # a NaN is not either
        raise ValueError(f"--tolerance: got {args.tolerance:g}, expected a number from 0 to 1")
    given = {"precision": [args.precision]}
    for key, words in split_flags(rest):
        if not key.startswith("precision_overrides."):
            raise ValueError(f"unrecognized arguments: --{key}")
        given[key] = words
    if args.loss_scale is not None:
        given["loss_scale"] = [args.loss_scale]
    return args, {key: parse_yaml(" ".join(words)) for key, words in given.items()}


if __name__ == "__main__":
    sys.exit(main())
