"""Train every cell of a grid of settings, on this machine or on a Ray cluster.

    python -m dreamerv2.sweep --logdir ROOT --grid "precision=32,bfloat16 seed=0:5"
                              [--ray HOST:PORT|auto|local] [--cpus-per-run 1] [--gpus-per-run G]
                              [--storage s3://...] [--configs NAME ...] [any flag of train]

`seed=0:5` is 0 to 4. Each run has its own folder, ROOT/KEY=VALUE,KEY=VALUE; what it prints goes to
the file of that name with .log behind it. One table shows all runs. The same command goes on where
it was stopped, and tries again what failed. Nothing runs on when this command has ended.

With --ray, Ray (the extra `ray`) places the runs. A run whose node dies starts again elsewhere and
resumes; ROOT must be a directory that all nodes share, or --storage something that all nodes reach.
Without --ray there are as many runs at a time as this machine has cores for.

Exit codes: 0 when all runs are finished, 1 when one is not, 2 for a mistake in what was asked for
or a disk or store that could not be read or written, 128 + number of the signal (130 for Ctrl-C)
when it was stopped, which lets the runs under way save first.
"""

import argparse
import contextlib
import functools
import sys
from collections.abc import Sequence

from common.commands import MISTAKES, Parser, directory, one_line_errors
from common.device import usable_cores
from dreamerv2.jobs import places


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with contextlib.ExitStack() as stack:
        with one_line_errors(*MISTAKES):
            args, flags = parse(sys.argv[1:] if argv is None else argv)
            from dreamerv2.jobs import sweep

            args.cpus_per_run = args.cpus_per_run or 1
            limit = None if args.ray else max(1, usable_cores() // args.cpus_per_run)
            jobs = sweep.make_jobs(args.logdir, args.grid, flags, limit or 1)
            start, storage = stack.enter_context(places.starter(args)), None
            if args.storage:
                storage = sweep.open_storage(args.storage, jobs)
                start = functools.partial(start, storage=storage)
            args.logdir.mkdir(parents=True, exist_ok=True)
        with one_line_errors(OSError):
            return sweep.Sweep(jobs, start, limit, storage).make()


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our arguments, and the flags for train; ValueError for what is not accepted."""
    parser = Parser("sweep", __doc__, run=False)
    parser.add_argument("--logdir", type=directory, required=True, metavar="ROOT")
    parser.add_argument("--grid", required=True, metavar='"KEY=V,V KEY=A:B"')
    places.add_flags(parser)
    parser.add_argument(
        "--storage", metavar="URI", help="with --ray: s3://, gs:// or file:///; None: ROOT"
    )
    args, flags = parser.parse_known_args(argv)
    places.check_flags(args)
    if args.storage and not args.ray:
        raise ValueError("--storage needs --ray: without it runs are in ROOT on this machine")
    args.logdir = args.logdir.absolute()  # the nodes of a cluster have other working directories
    return args, flags


if __name__ == "__main__":
    sys.exit(main())
