"""Make a film of a trained agent at play: `python -m dreamerv2.render --logdir DIR`.

Needs only the checkpoint. Exit codes: 0, or 2 for a mistake in what was asked for, an episode that
does not end included.
"""

import argparse
import re
import sys
from collections.abc import Sequence

from common.commands import MISTAKES, Parser, at_least, file_path, one_line_errors
from common.files import check_writable
from dreamerv2.film import PANELS


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = parse(argv)
        from common.device import import_tensorflow
        from dreamerv2.film import film
        from dreamerv2.run import restore

        saved = restore.read(args.logdir, args.checkpoint).with_env(args.env)
        path = film.out_path(args.out, args, saved)
        check_writable(path)
        screen = film.screen_size(saved, args)
        import_tensorflow()
        from dreamerv2.play.episodes import EndlessEpisodeError, load_agent

        agent = load_agent(saved)
    with one_line_errors(EndlessEpisodeError, film.FilmError, OSError):
        count = film.shoot(args, saved, agent, screen, path)
        print(f"{path}: {count:,} pictures, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags; ValueError for what is not accepted."""
    parser = Parser("render", "Make a film of a trained agent at play.")
    parser.add_env()
    parser.add_argument(
        "--out",
        type=file_path,
        metavar="FILE",
        help="ends in .gif or .mp4; None: a GIF in LOGDIR/videos",
    )
    parser.add_argument("--episodes", type=at_least(1), default=1, help="one after the other")
    parser.add_argument(
        "--best-of",
        type=at_least(1),
        metavar="N",
        help="play N episodes and show the one of the highest return; picture and file name say so",
    )
    parser.add_argument(
        "--mode",
        choices=["eval", "train"],
        default="eval",
        help="eval: the most likely actions; train: sampled ones",
    )
    parser.add_argument(
        "--panels",
        type=panel_names,
        default=",".join(PANELS),
        help="which to show, separated by commas",
    )
    parser.add_argument("--scale", type=at_least(1), default=2, help="pixels per pixel")
    parser.add_argument(
        "--fps",
        type=at_least(1, 100),
        default=15,
        help="pictures per second; one picture is one env frame (without screen: one agent step)",
    )
    parser.add_argument(
        "--frames",
        type=picture_range,
        default=":",
        metavar="A:B",
        help="pictures A to B - 1 of the film only; each end may be left out",
    )
    parser.add_argument(
        "--max-steps",
        type=at_least(1),
        help="an episode of more agent steps is an error; None: the run's time_limit or 27000",
    )
    args = parser.parse_args(argv)
    if args.best_of and args.episodes > 1:
        raise ValueError("--best-of renders one episode; leave --episodes out")
    return args


def panel_names(text: str) -> tuple[str, ...]:
    """`screen,input` as names; raises ArgumentTypeError for one that does not exist."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in PANELS:
            raise argparse.ArgumentTypeError(f"got {name!r}, expected some of {','.join(PANELS)}")
    return names


def picture_range(text: str) -> range:
    """`A:B` as a range; raises ArgumentTypeError for anything else, or an empty one."""
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match:
        wanted = range(int(match[1] or 0), int(match[2] or sys.maxsize))
        if wanted:
            return wanted
    raise argparse.ArgumentTypeError(f"got {text!r}, expected A:B with A below B, such as 0:300")


if __name__ == "__main__":
    sys.exit(main())
