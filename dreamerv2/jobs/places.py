"""Where runs are made: on this machine, or on a Ray cluster. The flags that say so."""

import argparse
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from common.commands import Parser, at_least

if TYPE_CHECKING:
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
def starter(args: argparse.Namespace) -> "Iterator[Callable[..., Running]]":
    """Within `with`, what starts the run of a job there.

    On a cluster it takes `storage` as well: where runs are kept; None: in their logdirs.

    Raises ValueError and OSError for a cluster that is not there or has too little, ImportError
    where Ray is not installed.
    """
    cpus, gpus = args.cpus_per_run, args.gpus_per_run
    if not args.ray:
        from dreamerv2.jobs import processes  # takes a second, which `--help` need not wait for

        yield functools.partial(processes.start, threads=cpus)
        return
    with needs_extra(f"--ray {args.ray}"):
        from dreamerv2.jobs import cluster
    with cluster.joined(args.ray):
        gpus = cluster.default_gpus() if gpus is None else gpus
        cluster.check_fits(cpus or 1, gpus)
        yield cluster.Starter(cpus or 1, gpus)


@contextlib.contextmanager
def needs_extra(flag: str) -> Iterator[None]:
    """Says which extra to install where an import within `with` fails. flag: what needs it."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{flag}: the package {error.name} is missing; in a checkout, pip install -e '.[ray]'"
        ) from error


def _gpus(text: str) -> float:
    """GPUs of a run: a whole number, or a part of one."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1024 or (value > 1 and not value.is_integer()):
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number or a part of 1")
    return value
