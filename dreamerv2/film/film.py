"""A film of a trained agent at play: episodes, panels, palette, file."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.data.spaces import is_discrete
from common.log import paint, video
from common.log.bar import Bar
from common.report.tables import score
from dreamerv2.film import DECODED
from dreamerv2.run import restore
from dreamerv2.run.restore import Saved

if TYPE_CHECKING:
    from dreamerv2.film.insight import Insight
    from dreamerv2.film.layout import Film, Layout
    from dreamerv2.film.record import Take

# TensorFlow takes seconds to import: below, that waits until the quick checks have passed.

# What a GIF's palette is chosen from, spread over the film.
SAMPLED_SCREENS, SAMPLED_PICTURES = 200, 16


class FilmError(ValueError):
    """There is nothing to show of what was asked for."""


def out_path(wanted: Path | None, args: Namespace, saved: Saved) -> Path:
    """Where the film goes; a best episode has that in its name."""
    default = f"{saved.config.task}-{saved.env_frames}-{args.mode}-seed{args.seed}.gif"
    path = wanted or restore.folder(args.logdir) / "videos" / default
    if path.suffix not in video.FORMATS:
        raise ValueError(f"--out {path}: expected a name that ends in {' or '.join(video.FORMATS)}")
    note = f"best-of-{args.best_of}"
    if args.best_of and note not in path.stem:
        path = path.with_stem(f"{path.stem}-{note}")
    return path


def screen_size(saved: Saved, args: Namespace) -> tuple[int, int]:
    """Height and width of the game's screen; ValueError where there is none to show."""
    env = saved.env(args.seed)
    try:
        if "screen" not in args.panels:
            return 0, 0
        env.reset()
        return env.render().shape[:2]
    finally:
        env.close()


def shoot(args: Namespace, saved: Saved, agent: Any, screen: tuple[int, int], path: Path) -> int:
    """Play, paint and write; the number of pictures."""
    from dreamerv2.film.insight import Insight
    from dreamerv2.film.layout import Layout

    insight = Insight(agent, greedy=args.mode == "eval", seed=args.seed)
    names = available(args.panels, insight)
    takes = _play(args, saved, agent, insight.keys, "screen" in names)
    layout = Layout(names, args.scale, screen, caption(args, saved, takes))
    with Bar("imagining", "episodes", len(takes)) as bar:
        films = [_film(layout, take, saved, insight, bar.advance) for take in takes]
    total = sum(s is not None for take in takes for group in take.screens for s in group)
    if not total:
        have = sum(take.pictures for take in takes)
        raise FilmError(f"--frames starts at {args.frames.start}; there are {have:,} pictures")
    palette = _palette(takes, films, screen) if path.suffix == ".gif" else None
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
        parts.append(f"return {score(takes[0].score)}")
    return ", ".join(parts)


def _play(
    args: Namespace, saved: Saved, agent: Any, keys: list[str], screens: bool
) -> list["Take"]:
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
                    keys,
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
            seen += take.pictures
            if seen >= args.frames.stop:
                break
    for take in takes:
        print(f"episode {take.number}: return {take.score:g} after {len(take.screens) - 1:,} steps")
    return takes


def _film(layout: "Layout", take: "Take", saved: Saved, insight: "Insight", advance) -> "Film":
    from dreamerv2.film.layout import Film
    from dreamerv2.film.panels import Strip, make_panels
    from dreamerv2.film.vectors import number_names

    names = None
    if is_discrete(saved.act_space):
        names = saved.action_names or [f"action {i}" for i in range(saved.act_space.size)]
    episode, font = take.episode, layout.font
    opinion = insight.opinion(episode.latents, episode.action)
    ahead = saved.config.imag_horizon
    task = saved.config.task
    sizes = {key: saved.obs_space[key].shape[-1] for key in insight.keys}
    panels = make_panels(
        layout.names, episode, insight, opinion, names, ahead, font, number_names(task, sizes), task
    )
    strip = Strip(episode, opinion, layout.inner_width, layout.scale, font)
    advance()
    return Film(layout, panels, strip)


def _pictures(
    takes: Sequence["Take"], films: Sequence["Film"], screen: tuple[int, int], every: int = 1
) -> Iterator[np.ndarray]:
    """The pictures, of every row that has a wanted one, or of one in `every` such rows."""
    from dreamerv2.film.record import unpack

    for take, film in zip(takes, films, strict=True):
        for row in _shown(take)[::every]:
            group = (data for data in take.screens[row] if data is not None)
            yield from film.pictures(row, (unpack(data, screen) for data in group))


def _shown(take: "Take") -> list[int]:
    """The rows that have a wanted picture."""
    return [row for row, group in enumerate(take.screens) if any(s is not None for s in group)]


def _palette(
    takes: Sequence["Take"], films: Sequence["Film"], screen: tuple[int, int]
) -> np.ndarray:
    """Colours for a GIF: those of the game and of the text exactly, where they are few enough."""
    from dreamerv2.film.record import unpack

    packed = [data for take in takes for group in take.screens for data in group if data]
    colors = [paint.ui_colors()]
    for data in packed[:: -(-len(packed) // SAMPLED_SCREENS)]:
        colors.append(video.distinct(unpack(data, screen)))
    every = -(-sum(len(_shown(take)) for take in takes) // SAMPLED_PICTURES)
    pixels = [p[::2, ::2].reshape(-1, 3) for p in _pictures(takes, films, screen, every)]
    return video.choose_palette(np.concatenate(pixels), np.concatenate(colors))
