"""Compare precisions: which one to use, from runs with several seeds each, or inside one update.

    python -m dreamerv2.compare --logdir DIR [--precisions 32 16 bfloat16] [--seeds 0 1 2]
                                [--greedy N] [--jobs 1 | --ray HOST:PORT|auto|local]
                                [any flag of train]
    python -m dreamerv2.compare --logdir DIR --runs RUN [RUN ...] [--greedy N]
    python -m dreamerv2.compare --audit RUN [--checkpoints N ...] [--play N] [--updates 20]
                                [--precisions 16 bfloat16] [any flag of train]

The first form trains each precision with each seed in DIR/PRECISION-SEED; what a run prints goes to
DIR/PRECISION-SEED.log. The same command goes on where it was stopped, and tries again what failed.
With --ray a Ray cluster makes the runs (docs/sweep.md); its nodes must share DIR. The second form
takes runs that exist. Both write DIR/report.md, .png and .json. With --greedy each finished run
plays N games with its most likely actions, the same games for all; they stand in RUN/greedy.json,
and precisions are judged by them instead of the last training episodes. The third compares
activations and gradients with those of float32, on the weights and episodes of a run, and writes
RUN/audit/report.md, .png and .json. With several checkpoints it does so for each and compares them:
how a precision does while the agent learns. Train keeps them with --keep_checkpoints. With --play
each checkpoint's agent first plays N agent steps for its audit, instead of the run's episodes.

Exit codes: 0 when there is a report of at least one finished run, 1 when no run finished, 2 for a
mistake in what was asked for or a disk that cannot be written, 128 + number of the signal (130 for
Ctrl-C) when it was stopped, which lets the runs under way save first.
"""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence

from common.commands import MISTAKES, Parser, at_least, directory, one_line_errors
from dreamerv2.jobs import places

PRECISIONS = ("32", "tf32", "16", "bfloat16")
COMPARED = ("32", "16", "bfloat16")  # unless others are asked for
MAKING = ("jobs", "ray", "cpus_per_run", "gpus_per_run")  # what only making runs reads


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "dreamerv2.compare", *argv])
    with contextlib.ExitStack() as stack:
        with one_line_errors(*MISTAKES):
            args, flags = parse(argv)
            if args.audit:
                return _audit(args, flags, command)
            from dreamerv2.jobs import record
            from dreamerv2.precision import comparison, trainer

            greedy = args.greedy or 0
            if args.runs:
                runs = [record.read_run(run) for run in dict.fromkeys(args.runs)]
                comparison.check_seeds(runs)
                return trainer.report(args.logdir, runs, command, greedy)
            limit = None if args.ray else args.jobs or 1
            precisions, seeds = args.precisions or COMPARED, args.seeds or (0, 1, 2)
            jobs = trainer.make_jobs(args.logdir, precisions, seeds, flags, limit or 1)
            start = stack.enter_context(places.starter(args))
            args.logdir.mkdir(parents=True, exist_ok=True)
        with one_line_errors(OSError):
            return trainer.Trainer(args.logdir, jobs, limit, command, start, greedy).make()


def _audit(args: argparse.Namespace, flags: Sequence[str], command: str) -> int:
    """The third form of the command; its exit code."""
    from common.device import import_tensorflow

    import_tensorflow()
    from dreamerv2.precision import audit

    precisions = args.precisions or COMPARED[1:]
    checkpoints = sorted(set(args.checkpoints or ()))
    updates = args.updates or 20
    audit.audit(args.audit, checkpoints, precisions, updates, args.play, flags, command)
    return 0


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our arguments, and the flags for train; ValueError for what is not accepted."""
    parser = Parser("compare", __doc__, run=False)
    parser.add_argument("--logdir", type=directory, metavar="DIR")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS)
    parser.add_argument("--seeds", nargs="+", type=at_least(0))
    parser.add_argument("--jobs", type=at_least(1), help="runs at the same time; None: 1")
    parser.add_argument("--runs", nargs="+", type=directory, metavar="RUN")
    parser.add_argument(
        "--greedy",
        type=at_least(1),
        metavar="N",
        help="games that each finished run plays with its most likely actions; None: none",
    )
    parser.add_argument("--audit", type=directory, metavar="RUN")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        type=at_least(0),
        metavar="N",
        help="of the audit, by their agent steps; None: the latest",
    )
    parser.add_argument(
        "--play",
        type=at_least(1),
        metavar="N",
        help="agent steps that each agent plays for its audit; None: the run's episodes",
    )
    parser.add_argument("--updates", type=at_least(1), help="batches of the audit; None: 20")
    places.add_flags(parser)
    args, flags = parser.parse_known_args(argv)
    _check(args, flags)
    if args.ray and args.logdir:
        args.logdir = args.logdir.absolute()  # nodes have other working directories
    return args, flags


def _check(args: argparse.Namespace, flags: Sequence[str]) -> None:
    """Raises ValueError for flags that do not go together."""
    places.check_flags(args)
    if args.ray and args.jobs:
        raise ValueError("--ray and --jobs exclude each other: Ray decides what runs when")
    if args.runs and args.audit:
        raise ValueError("--runs and --audit exclude each other")
    if args.runs and flags:
        raise ValueError(f"--runs takes runs as they are: {flags[0]} does not go with it")
    _refuse(args, "runs", ("seeds", "precisions", *MAKING))
    _refuse(args, "audit", ("logdir", "seeds", "greedy", *MAKING))
    for name in ("checkpoints", "play", "updates"):
        if getattr(args, name) and not args.audit:
            raise ValueError(f"--{name} goes with --audit alone")
    if args.logdir is None and not args.audit:
        raise ValueError("--logdir is missing; write --logdir DIR")
    for name in ("precision", "seed"):
        if any(flag.split("=")[0] == f"--{name}" for flag in flags):
            raise ValueError(f"--{name} is what this command varies; write --{name}s")


def _refuse(args: argparse.Namespace, form: str, names: Sequence[str]) -> None:
    """ValueError for flags that a form of the command would not read."""
    for name in names:
        if getattr(args, form) and getattr(args, name) is not None:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} does not go with --{form}, which would not read it")


if __name__ == "__main__":
    sys.exit(main())
