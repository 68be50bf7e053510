"""Look inside the discrete latent of a trained agent: `python -m dreamerv2.latents --logdir DIR`.

Plays some episodes and writes pictures, `report.md` and `report.json`: which classes are used
(`usage`), what single variables do (`sweep`), what lies between two latents (`interpolate`) and
what of the game can be read out of the state (`probe`). Exit codes: 0, or 2 for a mistake in what
was asked for.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.commands import MISTAKES, Parser, at_least, one_line_errors
from dreamerv2.latent import SECTIONS


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        out = args.out or args.logdir / "latents"
        from dreamerv2.run import restore

        saved = restore.read(args.logdir, args.checkpoint).with_env(args.env)
        if not saved.config.rssm.discrete:
            raise ValueError(
                "rssm.discrete: got False, expected a number of classes; this agent has Gaussian "
                "latents, so that there are no classes to look at"
            )
        saved.env(args.seed).close()
        out.mkdir(parents=True, exist_ok=True)
        from common.device import import_tensorflow

        import_tensorflow()  # only now, since it takes seconds
        from dreamerv2.latent import study

        model = study.load_model(saved, args.sections)
    with one_line_errors(study.UnavailableError, OSError):
        study.write_report(saved, model, out, args.sections, args.episodes, args.steps, args.seed)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("latents", "Look inside the discrete latent of a trained agent.")
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; none: all"
    )
    parser.add_env()
    parser.add_argument("--episodes", type=at_least(1), default=10, help="to play")
    parser.add_argument(
        "--steps",
        type=at_least(1),
        default=10_000,
        help="agent steps at most, the same number for each episode",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="None: LOGDIR/latents")
    args = parser.parse_args(argv)
    for section in args.sections:
        if section not in SECTIONS:
            raise ValueError(f"got {section!r}, expected some of {', '.join(SECTIONS)}")
    return args


if __name__ == "__main__":
    sys.exit(main())
