"""Make a film of a trained agent at play: `python -m dreamerv2.render --logdir DIR`.

Needs only the checkpoint. Exit codes: 0, or 2 for a mistake in what was asked for, an episode that
does not end included.
"""

import re
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.commands import MISTAKES, Parser, at_least, one_line_errors
from common.data.spaces import is_discrete
from common.log import paint, video
from common.log.bar import Bar
from dreamerv2.run import restore
from dreamerv2.run.restore import Saved

if TYPE_CHECKING:
    from dreamerv2.film.insight import Insight
    from dreamerv2.film.layout import Film, Layout
    from dreamerv2.film.record import Take

# TensorFlow takes seconds to import: below, that waits until the quick checks have passed.

NAMES = ("screen", "input", "recon", "openloop", "dream", "latent", "policy")
DECODED = ("recon", "openloop", "dream")  # panels that show what the decoder predicts
# What the palette is chosen from, spread over the film.
SAMPLED_SCREENS, SAMPLED_PICTURES = 200, 16


class FilmError(ValueError):
    """There is nothing to show of what was asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = _parser().parse_args(argv)
        if args.best_of and args.episodes > 1:
            raise ValueError("--best-of renders one episode; leave --episodes out")
        saved = restore.read(args.logdir, args.checkpoint)
        path = out_path(args, saved)
        screen = _screen_size(saved, args)
        from dreamerv2.play.episodes import EndlessEpisodeError, load_agent

        agent = load_agent(saved)
    with one_line_errors(EndlessEpisodeError, FilmError, OSError):
        count = _shoot(args, saved, agent, screen, path)
        print(f"{path}: {count:,} pictures, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _parser() -> Parser:
    parser = Parser("render", "Make a film of a trained agent at play.")
    parser.add_argument(
        "--out",
        type=Path,
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
        default=",".join(NAMES),
        help="which to show, separated by commas",
    )
    parser.add_argument("--scale", type=at_least(1), default=2, help="pixels per pixel")
    parser.add_argument(
        "--fps",
        type=at_least(1),
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
    return parser


def panel_names(text: str) -> tuple[str, ...]:
    """`screen,input` as names; raises ArgumentTypeError for one that does not exist."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in NAMES:
            raise ArgumentTypeError(f"got {name!r}, expected some of {','.join(NAMES)}")
    return names


def picture_range(text: str) -> range:
    """`A:B` as a range; raises ArgumentTypeError for anything else, or an empty one."""
    match = re.fullmatch(r"(\d*):(\d*)", text)
    if match:
        wanted = range(int(match[1] or 0), int(match[2] or sys.maxsize))
        if wanted:
            return wanted
    raise ArgumentTypeError(f"got {text!r}, expected A:B with A below B, such as 0:300")


def out_path(args: Namespace, saved: Saved) -> Path:
    """Where the film goes; a best episode has that in its name."""
    default = f"{saved.config.task}-{saved.env_frames}-{args.mode}-seed{args.seed}.gif"
    path = args.out or args.logdir / "videos" / default
    if path.suffix not in video.FORMATS:
        raise ValueError(f"--out {path}: expected a name that ends in {' or '.join(video.FORMATS)}")
    note = f"best-of-{args.best_of}"
    if args.best_of and note not in path.stem:
        path = path.with_stem(f"{path.stem}-{note}")
    return path


def _screen_size(saved: Saved, args: Namespace) -> tuple[int, int]:
    """Height and width of the game's screen; ValueError where there is none to show."""
    env = saved.env(args.seed)
    try:
        if "screen" not in args.panels:
            return 0, 0
        env.reset()
        return env.render().shape[:2]
    finally:
        env.close()


def _shoot(args: Namespace, saved: Saved, agent: Any, screen: tuple[int, int], path: Path) -> int:
    """Play, paint and write; the number of pictures."""
    from dreamerv2.film.insight import Insight
    from dreamerv2.film.layout import Layout

    insight = Insight(agent, greedy=args.mode == "eval", seed=args.seed)
    names = available(args.panels, insight)
    takes = _play(args, saved, agent, insight.key, "screen" in names)
    layout = Layout(names, args.scale, screen, caption(args, saved, takes))
    with Bar("imagining", "episodes", len(takes)) as bar:
        films = [_film(layout, take, saved, insight, bar.advance) for take in takes]
    total = sum(s is not None for take in takes for group in take.screens for s in group)
    if not total:
        have = sum(take.count for take in takes)
        raise FilmError(f"--frames starts at {args.frames.start}; there are {have:,} pictures")
    palette = _palette(takes, films, screen)
    # The end stays for a second before the film starts again.
    hold = args.fps if takes[-1].ended and args.frames.stop == sys.maxsize else 0
    with (
        video.open_clip(path, args.fps, palette, " ".join(layout.caption)) as add,
        Bar("drawing", "pictures", total) as bar,
    ):
        for picture in _pictures(takes, films, screen):
            add(picture)
            bar.advance()
        for _ in range(hold):
            add(picture)
    return total


def available(names: Sequence[str], insight: "Insight") -> tuple[str, ...]:
    """Those of `names` that this agent has; says which it has not. FilmError when none is left."""
    missing = [] if insight.decodes else [name for name in names if name in DECODED]
    rest = tuple(name for name in names if name not in missing)
    if not rest:
        raise FilmError(f"--panels {','.join(names)}: this agent's model predicts no observation")
    if missing:
        print(f"left out: {', '.join(missing)} (this agent's model predicts no observation)")
    return rest


def caption(args: Namespace, saved: Saved, takes: Sequence["Take"]) -> str:
    """What film this is, for the picture itself."""
    from dreamerv2.play.episodes import MODE_NAMES

    parts = [
        saved.config.task,
        f"trained for {saved.env_frames:,} frames",
        f"{MODE_NAMES[args.mode]} actions",
        f"seed {args.seed}",
    ]
    if args.best_of:
        parts.append(f"BEST OF {args.best_of} EPISODES")
    if len(takes) == 1 and takes[0].ended:
        parts.append(f"return {takes[0].score:.4g}")
    return ", ".join(parts)


def _play(args: Namespace, saved: Saved, agent: Any, key: str, screens: bool) -> list["Take"]:
    """The episodes of the film."""
    from dreamerv2.film.record import record
    from dreamerv2.play.episodes import AgentPolicy, episode_seed

    player = AgentPolicy(agent, args.mode)
    takes: list[Take] = []
    seen = 0
    with Bar("playing", "steps") as bar:
        for index in range(args.best_of or args.episodes):
            seed = episode_seed(args.seed, index)
            env = saved.env(seed)
            try:
                take = record(
                    index + 1,
                    env,
                    player.episode(seed),
                    key,
                    screens=screens,
                    wanted=range(max(0, args.frames.start - seen), args.frames.stop - seen),
                    whole=bool(args.best_of),
                    max_steps=args.max_steps or saved.max_steps,
                    advance=bar.advance,
                )
            finally:
                env.close()
            if args.best_of:
                takes = [max([*takes, take], key=lambda take: take.score)]
                continue
            takes.append(take)
            seen += take.count
            if seen >= args.frames.stop:
                break
    for take in takes:
        print(f"episode {take.number}: return {take.score:g} after {len(take.screens) - 1:,} steps")
    return takes


def _film(layout: "Layout", take: "Take", saved: Saved, insight: "Insight", advance) -> "Film":
    from dreamerv2.film.layout import Film
    from dreamerv2.film.panels import Strip, make_panels

    names = None
    if is_discrete(saved.act_space):
        names = saved.action_names or [f"action {i}" for i in range(saved.act_space.size)]
    episode, font = take.episode, layout.font
    opinion = insight.opinion(episode.latents)
    ahead = saved.config.imag_horizon
    panels = make_panels(layout.names, episode, insight, opinion, names, ahead, font)
    strip = Strip(episode, opinion, layout.inner_width, layout.scale, font)
    advance()
    return Film(layout, panels, strip)


def _pictures(
    takes: Sequence["Take"], films: Sequence["Film"], screen: tuple[int, int], every: int = 1
) -> Iterator[np.ndarray]:
    """The pictures, of every row that has a wanted one, or of one in `every` such rows."""
    from dreamerv2.film.record import unpack

    for take, film in zip(takes, films, strict=True):
        shown = [row for row, group in enumerate(take.screens) if any(s is not None for s in group)]
        for row in shown[::every]:
            group = (data for data in take.screens[row] if data is not None)
            yield from film.pictures(row, (unpack(data, screen) for data in group))


def _palette(
    takes: Sequence["Take"], films: Sequence["Film"], screen: tuple[int, int]
) -> np.ndarray:
    """Colours for a GIF: those of the game and of the text exactly, where they are few enough."""
    from dreamerv2.film.record import unpack

    packed = [data for take in takes for group in take.screens for data in group if data]
    chosen = packed[:: max(1, len(packed) // SAMPLED_SCREENS)]
    colors = [paint.ui_colors()]
    for data in chosen:
        colors.append(np.unique(unpack(data, screen).reshape(-1, 3), axis=0))
    rows = sum(len(take.screens) for take in takes)
    every = max(1, rows // SAMPLED_PICTURES)
    pixels = [p[::2, ::2].reshape(-1, 3) for p in _pictures(takes, films, screen, every)]
    return video.choose_palette(np.concatenate(pixels), np.concatenate(colors))


if __name__ == "__main__":
    sys.exit(main())
