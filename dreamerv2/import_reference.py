"""Turn a run of the author's implementation into one of ours.

    python -m dreamerv2.import_reference RUN_DIR --logdir DIR

RUN_DIR has the author's `config.yaml`, `variables.pkl`, `train_episodes/`, and perhaps
`metrics.jsonl` and `eval_episodes/`. DIR is new or empty; afterwards `python -m dreamerv2.train
--logdir DIR` goes on with the run, and every other command works on it. Exit status: 0, or 2 with
one line that says what is wrong.
"""

import argparse
import sys
from collections.abc import Sequence

from common.commands import MISTAKES, Parser, directory, one_line_errors


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        from dreamerv2.reference.imports import import_run

        found = import_run(args.run_dir, args.logdir)
    frames = found.agent_steps * found.config.action_repeat
    print(
        f"Imported agent step {found.agent_steps:,} ({frames:,} env frames) with {found.updates:,} "
        f"updates. Moments of the optimisers start from zero: the reference does not save them.\n"
        f"To go on with it: python -m dreamerv2.train --logdir {args.logdir} --steps N"
    )
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("import_reference", __doc__, run=False)
    parser.add_argument("run_dir", type=directory, metavar="RUN_DIR", help="has a variables.pkl")
    parser.add_argument(
        "--logdir", type=directory, required=True, metavar="DIR", help="where to; new or empty"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
