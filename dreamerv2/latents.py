"""Look inside the discrete latent of trained agents.

    python -m dreamerv2.latents --logdir RUN [SECTION ...]
    python -m dreamerv2.latents --compare RUN [RUN ...] --out DIR

The first form plays some episodes and writes pictures, `report.md` and `report.json` into
RUN/latents: which classes are used (`usage`), what single variables do (`sweep`), what lies between
two latents (`interpolate`), what of the game can be read out of the state (`probe`), what each
variable is about (`information`) and what it costs to hold one fixed (`fix`). The second form puts
the reports of several agents of one task beside each other, in DIR/report.md, .png and .json.

Exit codes: 0, or 2 for a mistake in what was asked for.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from common.commands import MISTAKES, Parser, at_least, directory, one_line_errors
from dreamerv2.latent import SECTIONS


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        if args.compare:
            return _compare(args, shlex.join(["python", "-m", "dreamerv2.latents", *argv]))
        from dreamerv2.run import restore

        out = args.out or restore.folder(args.logdir) / "latents"
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


def _compare(args: argparse.Namespace, command: str) -> int:
    """The second form of the command; its exit code."""
    from dreamerv2.latent import claims

    print(claims.write(args.out, claims.read(args.compare), command))
    print(f"Written: {args.out / 'report.md'}")
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("latents", __doc__, required=False)
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
    parser.add_argument("--out", type=directory, metavar="DIR", help="None: LOGDIR/latents")
    parser.add_argument(
        "--compare", nargs="+", type=directory, metavar="RUN", help="that have reports"
    )
    args = parser.parse_args(argv)
    if args.compare and (args.logdir or args.sections):
        raise ValueError("--compare takes reports as they are: only --out goes with it")
    if args.compare and not args.out:
        raise ValueError("--out is missing; write --compare RUN ... --out DIR")
    if not args.compare and not args.logdir:
        raise ValueError("--logdir is missing; write --logdir RUN")
    for section in args.sections:
        if section not in SECTIONS:
            raise ValueError(f"got {section!r}, expected some of {', '.join(SECTIONS)}")
    return args


if __name__ == "__main__":
    sys.exit(main())
