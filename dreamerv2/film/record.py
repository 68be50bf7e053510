"""Plays an episode and keeps what a film of it needs."""

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from common.data.driver import Policy
from common.envs.base import Env
from dreamerv2.film.panels import Episode
from dreamerv2.play.episodes import Row, play


class Take(NamedTuple):
    """A played episode, and the pictures that it has at every row.

    A row's pictures are the env frames from its observation to the next one: its own screen, and
    those that a repeated action skips. So a picture goes with what the agent knew at that moment.
    """

    number: int  # of the episode, from 1 on
    episode: Episode
    screens: list[list[bytes | None]]  # per row, packed; None for one that is not wanted
    ended: bool  # whether it was watched to its end

    @property
    def score(self) -> float:
        """Return so far."""
        return float(self.episode.reward.sum())

    @property
    def pictures(self) -> int:
        """Number of pictures, those that are not wanted included."""
        return sum(map(len, self.screens))


def record(
    number: int,
    env: Env,
    policy: Policy,
    keys: Sequence[str],
    *,
    screens: bool,
    wanted: range,
    whole: bool,
    max_steps: int,
    advance: Callable[[], None],
) -> Take:
    """Play one episode.

    keys: the observations to keep, side by side. screens: keep the game's screens; without them a
      row is one picture. wanted: numbers of the pictures to keep, 0 is the first of the episode.
      whole: play to the end even when the last wanted picture is there. advance: called for every
      row.

    Raises `EndlessEpisodeError` for more than `max_steps` agent steps.
    """
    env.record_frames = screens
    rows: list[Row] = []
    groups: list[list[bytes | None]] = []
    count = 0
    for row in play(env, policy, max_steps):
        frames = env.skipped_frames() if screens else [np.zeros(0, np.uint8)]
        packed = [pack(f) if count + i in wanted else None for i, f in enumerate(frames)]
        count += len(frames)
        if groups:
            groups[-1] += packed[:-1]
        groups.append(packed[-1:])
        rows.append(row)
        advance()
        if count >= wanted.stop and not whole:
            break
    return Take(number, _episode(rows, keys), groups, bool(rows[-1].obs["is_last"]))


def pack(screen: np.ndarray) -> bytes:
    """A screen uint8 [H, W, 3] in little memory: some kilobytes for an Atari game."""
    return zlib.compress(screen.tobytes(), 1)


def unpack(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The screen of `pack`; size: its height and width."""
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(*size, 3)


def _seen(rows: Sequence[Row], key: str) -> np.ndarray:
    observed = np.stack([row.obs[key] for row in rows])
    if observed.ndim == 2 and observed.dtype == np.uint8:
        return observed / np.float32(255) - 0.5  # as the model sees and predicts it
    return observed


def _episode(rows: Sequence[Row], keys: Sequence[str]) -> Episode:
    observed = np.concatenate([_seen(rows, key) for key in keys], -1)
    latents = [row.state[0] for row in rows]
    return Episode(
        observed,
        np.array([row.obs["reward"] for row in rows], np.float64),
        np.stack([row.action for row in rows]),
        {name: np.stack([z[name].numpy()[0] for z in latents]) for name in latents[0]},
    )
