"""How fast the agent is on this machine, as a share of what the machine can do.

    python -m dreamerv2.bench [--size full small] [--precision 32 bfloat16] [--against PATH]
    python -m dreamerv2.bench --envs 1 2 4 [--size full]
    python -m dreamerv2.bench --growth [--size small]
    python -m dreamerv2.bench --split 2 [--size full]

Each size and precision is measured in a process of its own, after warm-up: the rate of a large
matrix product, one whole update and its parts, the first update, a policy step, replay, the
environment, memory. `--against PATH` times a checkout of the author's TF2 code in the same run, if
it runs with this Python and TensorFlow. With `--envs` it measures one thing only: how many agent
steps per second the policy plays in so many environments at once, without updates. With `--growth`
it measures what grows with the replay: batches, the start, memory. With `--split N` it measures the
CPU seconds of an update that N processes of this machine share, and of one alone. `--size` takes
`full` (block `atari`), `small` (`atari small`), or blocks joined by `+`. Any other flag is one of
train's.
"""

import argparse
import sys
from collections.abc import Sequence

from common.commands import MISTAKES, Parser, at_least, directory, file_path, one_line_errors
from common.files import check_writable


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args, flags = parse(argv)
        from dreamerv2.measure import apart, growth, playing, sharing, timing

        jobs = timing.make_jobs(args.size, args.precision, flags)
        against = timing.author_folder(args.against) if args.against else None
        for count in args.envs:
            jobs[0].config.update({"envs": count})  # refuses what no run accepts
        timing.check_jobs(jobs)
        if args.json:
            check_writable(args.json)
        if args.split:
            turns = sharing.measure_sharing(jobs[0].config, args.split)
            print(sharing.report(turns, jobs[0].size, args.split))
            return 0
        if args.growth:
            print(growth.report(growth.measure_growth(jobs[0].config)))
            return 0
    with one_line_errors(timing.AuthorCodeError, apart.MeasurementLostError, *MISTAKES):
        if args.envs:
            print(playing.report(playing.measure_rates(jobs, args.envs, args.json)))
            return 0
        print(timing.report(timing.measure_all(jobs, args.json, against)))
    return 0


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and those for train; ValueError for what is not accepted."""
    parser = Parser("bench", __doc__, run=False)
    parser.add_argument("--size", nargs="+", default=["full", "small"], metavar="SIZE")
    parser.add_argument("--precision", nargs="+", default=["32"], metavar="P")
    one_thing = parser.add_mutually_exclusive_group()
    one_thing.add_argument(
        "--growth", action="store_true", help="what grows with the replay, of the first size"
    )
    one_thing.add_argument(
        "--split",
        type=at_least(2),
        metavar="N",
        help="processes that share an update, of the first size",
    )
    one_thing.add_argument(
        "--envs", nargs="+", type=int, default=[], metavar="N", help="environments at once"
    )
    parser.add_argument("--against", type=directory, metavar="PATH", help="the author's code")
    parser.add_argument("--json", type=file_path, metavar="FILE", help="write the results there")
    args, flags = parser.parse_known_args(argv)
    if args.against and (args.envs or args.growth or args.split):
        raise ValueError("--against: not with --envs, --growth or --split")
    if args.json and (args.growth or args.split):
        raise ValueError("--json: not with --growth or --split, which print their results only")
    return args, flags


if __name__ == "__main__":
    sys.exit(main())
