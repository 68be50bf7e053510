"""Look inside the discrete latent of a trained agent: `python -m dreamerv2.latents --logdir DIR`.

Plays some episodes and writes pictures, `report.md` and `report.json`: which classes are used
(`usage`), what single variables do (`sweep`), what lies between two latents (`interpolate`) and
what of the game can be read out of the state (`probe`). Exit codes: 0, or 2 for a mistake in what
was asked for.
"""

import argparse
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.commands import MISTAKES, Parser, at_least, one_line_errors
from dreamerv2.run import restore
from dreamerv2.run.restore import Saved

if TYPE_CHECKING:
    from dreamerv2.latent.collect import Recording
    from dreamerv2.latent.model import LatentModel

PART_NAMES = ("usage", "sweep", "interpolate", "probe")
show = functools.partial(print, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        saved = restore.read(args.logdir, args.checkpoint)
        if not saved.config.rssm.discrete:
            raise ValueError(
                "rssm.discrete: got False, expected a number of classes; this agent has Gaussian "
                "latents, so that there are no classes to look at"
            )
        saved.env(args.seed).close()
        (args.out or args.logdir / "latents").mkdir(parents=True, exist_ok=True)
        # Only now, since TensorFlow takes seconds to import.
        from dreamerv2.latent.model import LatentModel
        from dreamerv2.latent.sections import UnavailableError, check
        from dreamerv2.play.episodes import load_agent

        model = LatentModel(load_agent(saved))
        for part in args.parts:
            check(part, model)
    with one_line_errors(UnavailableError, OSError):
        write_report(saved, model, args)
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("latents", "Look inside the discrete latent of a trained agent.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PART_NAMES)}; none: all"
    )
    parser.add_argument("--episodes", type=at_least(1), default=10, help="to play")
    parser.add_argument(
        "--steps",
        type=at_least(1),
        default=10_000,
        help="agent steps at most, the same number for each episode",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="None: LOGDIR/latents")
    args = parser.parse_args(argv)
    for part in args.parts:
        if part not in PART_NAMES:
            raise ValueError(f"got {part!r}, expected some of {', '.join(PART_NAMES)}")
    return args


def write_report(saved: Saved, model: "LatentModel", args: argparse.Namespace) -> None:
    """Plays, makes the parts, and writes all into `--out`.

    Raises:
        UnavailableError: a part that was asked for by name cannot be made.
    """
    from dreamerv2.latent import report
    from dreamerv2.latent.collect import collect
    from dreamerv2.latent.sections import PARTS, Study, UnavailableError, check

    out = args.out or args.logdir / "latents"
    recording = collect(model, saved.env, args.episodes, args.steps, args.seed, show)
    study = Study(model, recording, out, args.seed, show)
    numbers = {}
    for part in args.parts or PART_NAMES:
        start = time.monotonic()
        try:
            check(part, model)
            numbers[part] = PARTS[part](study)
        except UnavailableError as error:
            if args.parts:
                raise
            numbers[part] = {"unavailable": str(error)}
            show(f"{part}: not available: {error}")
        else:
            show(f"{part}: done in {time.monotonic() - start:.0f} s")
    report.write(out, describe(saved, recording), numbers)
    show(f"Written: {out / 'report.md'}")


def describe(saved: Saved, recording: "Recording") -> dict[str, Any]:
    """What was looked at, for the head of the report."""
    config = saved.config
    return {
        "task": config.task,
        "features": config.features,
        "variables": config.rssm.stoch,
        "classes": config.rssm.discrete,
        "deter": config.rssm.deter,
        "agent_steps": saved.agent_steps,
        "action_repeat": config.action_repeat,
        "env_frames": saved.env_frames,
        "episodes": len(recording.returns),
        "rows": len(recording.episode),
        "mean_return": sum(recording.returns) / len(recording.returns),
    }


if __name__ == "__main__":
    sys.exit(main())
