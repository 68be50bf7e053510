"""Play episodes with a trained agent: `python -m dreamerv2.evaluate --logdir DIR`.

Needs only the checkpoint. Exit codes: 0, or 2 for a mistake in what was asked for, an episode that
does not end included.
"""

import argparse
import sys
from collections.abc import Sequence

from common.commands import MISTAKES, Parser, at_least, file_path, one_line_errors
from common.files import check_writable, write_json


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        if args.json:
            check_writable(args.json)
        from dreamerv2.play import evaluation
        from dreamerv2.run import restore

        saved = restore.read(args.logdir, args.checkpoint).with_env(args.env)
        saved.env(args.seed).close()
        policies = evaluation.policies(saved, args.mode, args.random)
        from dreamerv2.play.episodes import EndlessEpisodeError
    with one_line_errors(EndlessEpisodeError, OSError):
        report = evaluation.evaluate_all(
            saved, policies, args.episodes, args.seed, args.max_steps or saved.max_steps
        )
        if args.json:
            write_json(args.json, report)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("evaluate", "Play episodes with a trained agent.")
    parser.add_env()
    parser.add_argument("--episodes", type=at_least(1), default=10, help="per policy")
    parser.add_argument(
        "--mode",
        choices=["eval", "train", "both"],
        default="both",
        help="eval: the most likely actions; train: sampled ones; both: one after the other",
    )
    parser.add_argument("--random", action="store_true", help="play the random policy as well")
    parser.add_argument(
        "--max-steps",
        type=at_least(1),
        help="an episode of more agent steps is an error; None: the run's time_limit or 27000",
    )
    parser.add_argument("--json", type=file_path, metavar="FILE", help="where to write all numbers")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
