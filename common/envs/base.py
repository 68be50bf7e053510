"""What every environment looks like to the rest of the code.

An observation is a flat dict of arrays. Besides the keys that the networks see it always holds:

    reward       float32 []  sum of the rewards since the previous observation; 0 at a reset
    is_first     bool []     this observation came from `reset`
    is_last      bool []     the episode ended here, for any reason
    is_terminal  bool []     the value from here on is 0: the environment itself is over
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

Obs = dict[str, Any]


class Env:
    """Base class of all environments. One agent step is one call of `step`.

    obs_space: space of every key of an observation, the four above included.
    act_space: what `step` accepts. `make_env` returns environments whose actions are
      `OneHot(n)` or `Box(-1, 1, [A])`, both float32.
    action_names: a name for each discrete action, or None.
    record_frames: set it to True to have `skipped_frames` work after the following steps. It is
      off at first because recording costs time.
    """

    obs_space: dict[str, spaces.Box]
    act_space: Any
    action_names: tuple[str, ...] | None = None
    record_frames: bool = False

    def reset(self) -> Obs:
        """Starts an episode and returns its first observation."""
        raise NotImplementedError

    def step(self, action) -> Obs:
        """Applies one action. Must not be called after `is_last` before `reset` was."""
        raise NotImplementedError

    def send(self, action=None) -> None:
        """Begins `step(action)`, or `reset()` without an action; `receive` returns its result.

        Environments in processes of their own work in between.
        """
        self._sent = action

    def receive(self) -> Obs:
        """The result of what was sent. Raises `EnvLostError` when a process of its own is gone."""
        return self.reset() if self._sent is None else self.step(self._sent)

    def render(self) -> np.ndarray:
        """The current screen of the game in its own size and colours, uint8 [H, W, 3]."""
        raise NotImplementedError

    def variables(self) -> dict[str, float]:
        """What the game itself knows now, by name, for studies; empty where that is not known."""
        return {}

    def skipped_frames(self) -> list[np.ndarray]:
        """Screens of the environment frames that the last step went through, oldest first.

        As many as there were frames (fewer than the action repeat where the episode ended), the
        last one equal to `render()`; right after a reset, that one screen. Needs `record_frames`
        where one agent step is several frames.
        """
        return [self.render()]

    def close(self) -> None:
        """Frees what the environment holds. Nothing may be called afterwards."""


def with_flags(obs_space: Mapping[str, spaces.Box]) -> dict[str, spaces.Box]:
    """`obs_space` followed by the spaces of reward and flags that every observation has."""
    flag: spaces.Box = spaces.Box(0, 1, (), bool)  # type: ignore[arg-type]
    return {
        **obs_space,
        "reward": spaces.Box(-np.inf, np.inf, (), np.float32),
        "is_first": flag,
        "is_last": flag,
        "is_terminal": flag,
    }


def with_transition(
    obs: Mapping[str, np.ndarray],
    reward: float = 0.0,
    is_first: bool = False,
    is_last: bool = False,
    is_terminal: bool = False,
) -> Obs:
    """`obs` followed by reward and flags in the types that the contract asks for."""
    return {
        **obs,
        "reward": np.float32(reward),
        "is_first": bool(is_first),
        "is_last": bool(is_last),
        "is_terminal": bool(is_terminal),
    }


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not known; it lists the nearest ones, or some when none is."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 5, 0.5)
    hint = f"nearest: {', '.join(near)}" if near else f"there are {', '.join(known[:10])}, ..."
    return ValueError(f"unknown {kind} {name!r}; {hint}")
