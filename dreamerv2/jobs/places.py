"""Where runs are made: on this machine, or on a Ray cluster. The flags that say so."""

import argparse
import contextlib
import functools
from collections.abc import Callable, Iterator

from common.commands import Parser, at_least
from dreamerv2.jobs import processes
from dreamerv2.jobs.job import Job
from dreamerv2.jobs.trainings import Running


def add_flags(parser: Parser) -> None:
    """`--ray`, `--cpus-per-run` and `--gpus-per-run`."""
    parser.add_argument(
        "--ray",
        metavar="HOST:PORT|auto|local",
        help="the Ray cluster that makes the runs; local: a new one on this machine",
    )
    parser.add_argument(
        "--cpus-per-run", type=at_least(1), metavar="C", help="CPU cores of a run; None: 1"
    )
    parser.add_argument(
        "--gpus-per-run",
        type=_gpus,
        metavar="G",
        help="with --ray: GPUs of a run, or a part of one; None: 1 if the cluster has any",
    )


def check_flags(args: argparse.Namespace) -> None:
    """ValueError for flags that say nothing without `--ray`."""
    if args.gpus_per_run is not None and not args.ray:
        raise ValueError("--gpus-per-run needs --ray: without it all runs see the same GPUs")


@contextlib.contextmanager
def starter(args: argparse.Namespace) -> Iterator[Callable[[Job], Running]]:
    """Within `with`, what starts a run there.

    Raises ValueError and OSError for a cluster that is not there or has too little, ImportError
    where Ray is not installed.
    """
    cpus, gpus = args.cpus_per_run, args.gpus_per_run
    if not args.ray:
        yield functools.partial(processes.start, threads=cpus)
        return
    try:
        from dreamerv2.jobs import cluster
    except ImportError as error:
        raise ImportError(
            f"--ray {args.ray}: the package {error.name} is missing; pip install 'dreamerv2[ray]'"
        ) from error
    with cluster.joined(args.ray):
        gpus = cluster.default_gpus() if gpus is None else gpus
        cluster.check_fits(cpus or 1, gpus)
        yield cluster.Starter(cpus or 1, gpus)


def _gpus(text: str) -> float:
    """GPUs of a run: a whole number, or a part of one."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1024 or (value > 1 and not value.is_integer()):
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number or a part of 1")
    return value
