"""Any Gymnasium environment, by name or as an object; environments of the old gym as well."""

import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space, spaces

from common.envs.base import Env, Obs, unknown_name, with_flags, with_transition
from common.envs.resize import resize_by_area

RESERVED = ("reward", "is_first", "is_last", "is_terminal", "action")


class GymAdapter(Env):
    """Makes an environment of Gymnasium (or of the old gym) keep the contract of `base.Env`.

    env: the name under which it is registered, as `gymnasium.make` takes it, or the environment.
      Its observation space is a Box or a Dict of Boxes, its action space Discrete or a Box of
      floats; anything else is a ValueError. Spaces are told apart by their names, so that those of
      the old gym do too.
    seed: for the first reset. An environment that takes no seed is used as it is.
    size: height and width to which images are resized, by area.

    Observations: uint8 boxes of rank 3 [height, width, channels] or rank 2 are images, uint8
    [*size, channels]. Any other box becomes a flat vector, float32, or uint8 where it was that.
    A lone box gets the key `image` or `vector`; those of a Dict keep theirs. What the environment
    returns must have the declared shape and kind of number (float64 for float32 is fine).

    A truncated episode is last but not terminal. So is one that an old environment says its own
    time limit cut.
    """

    def __init__(self, env: Any, *, seed: int = 0, size: tuple[int, int] = (64, 64)):
        _prepare_pygame()
        self._env: Any = _make(env) if isinstance(env, str) else env
        self._seed = seed % 2**31
        self._seeded = False
        self._lone, declared = _box_spaces(self._env.observation_space)
        self._boxes = {key: _Box(key, space, size) for key, space in declared.items()}
        self.obs_space = with_flags({key: box.space for key, box in self._boxes.items()})
        self.act_space = _action_space(self._env.action_space)
        self._image: np.ndarray | None = None

    def reset(self) -> Obs:
        result = self._env.reset(**self._reset_arguments())
        # The old interface returns the observation alone.
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
            result = result[0]
        return with_transition(self._obs(result), is_first=True)

    def step(self, action) -> Obs:
        result = self._env.step(action)
        if len(result) == 5:
            obs, reward, terminal, truncated, _ = result
        else:
            obs, reward, done, info = result
            truncated = done and info.get("TimeLimit.truncated", False)
            terminal = done and not truncated
        return with_transition(
            self._obs(obs), reward, is_last=terminal or truncated, is_terminal=terminal
        )

    def render(self) -> np.ndarray:
        """What the environment draws as `rgb_array`, uint8 [H, W, 3]; needs no display.

        An environment that was created without that `render_mode` shows its image observation in
        full size; ValueError where it has none.
        """
        if getattr(self._env, "render_mode", None) == "rgb_array":
            return np.asarray(self._env.render(), np.uint8)
        if "mode" in _parameters(self._env, "render"):
            return np.asarray(self._env.render(mode="rgb_array"), np.uint8)
        if self._image is None:
            raise ValueError(
                "the environment cannot be rendered: create it with render_mode='rgb_array'"
            )
        image = self._image.reshape(*self._image.shape[:2], -1)
        return image[..., :3].copy() if image.shape[-1] >= 3 else image[..., [0, 0, 0]]

    def close(self) -> None:
        self._env.close()

    def _reset_arguments(self) -> dict[str, int]:
        if self._seeded:
            return {}
        self._seeded = True
        parameters = _parameters(self._env, "reset")
        kinds = {parameter.kind for parameter in parameters.values()}
        if "seed" in parameters or inspect.Parameter.VAR_KEYWORD in kinds:
            return {"seed": self._seed}
        if callable(getattr(self._env, "seed", None)):
            self._env.seed(self._seed)
        return {}

    def _obs(self, obs: Any) -> Obs:
        if self._lone:
            obs = {self._lone: obs}
        elif not isinstance(obs, Mapping) or set(obs) != set(self._boxes):
            got = list(obs) if isinstance(obs, Mapping) else type(obs).__name__
            raise ValueError(f"observation: expected the keys {list(self._boxes)}, got {got}")
        for key, box in self._boxes.items():
            if box.is_image:
                self._image = np.asarray(obs[key])
        return {key: box(obs[key]) for key, box in self._boxes.items()}


class _Box:
    """Checks and converts the values of one observation key."""

    def __init__(self, key: str, declared: spaces.Box, size: tuple[int, int]):
        self.key = key
        self.declared = declared
        rank = len(declared.shape)
        self.is_image = declared.dtype == np.uint8 and rank in (2, 3)
        if self.is_image:
            height, width, channels = (*declared.shape, 1)[:3]
            if height <= 4 < min(width, channels):
                raise ValueError(
                    f"observation key {key!r}: expected an image [height, width, channels], "
                    f"got {list(declared.shape)}"
                )
            same = (height, width) == tuple(size)
            self.size = None if same else size
            self.space: spaces.Box = spaces.Box(0, 255, (*size, channels), np.uint8)
        elif declared.dtype == np.uint8:
            self.space = spaces.Box(0, 255, (declared.low.size,), np.uint8)
        else:
            self.space = spaces.Box(-np.inf, np.inf, (declared.low.size,), np.float32)

    def __call__(self, value: Any) -> np.ndarray:
        value = np.asarray(value)
        declared = self.declared
        if value.shape != declared.shape or not _same_kind(value.dtype, declared.dtype):
            raise ValueError(
                f"observation key {self.key!r}: expected {declared.dtype} {list(declared.shape)}, "
                f"got {value.dtype} {list(value.shape)}"
            )
        if self.is_image and self.size:
            return resize_by_area(value, self.size)
        # A copy: the environment may go on writing into its array.
        return value.reshape(self.space.shape).astype(self.space.dtype)


def _same_kind(one: np.dtype, other: np.dtype) -> bool:
    """Whether both are floats or both integers of any width, or they are equal."""
    if np.uint8 in (one, other):
        return one == other
    return one.kind == other.kind


def _make(name: str) -> gymnasium.Env:
    """The registered environment, drawing into arrays where it can."""
    try:
        try:
            return gymnasium.make(name, render_mode="rgb_array", disable_env_checker=True)
        except TypeError as error:
            if "render_mode" not in str(error):
                raise
            return gymnasium.make(name, disable_env_checker=True)
    except gymnasium.error.UnregisteredEnv as error:
        raise unknown_name("Gymnasium environment", name, gymnasium.registry) from error
    except (gymnasium.error.Error, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"Gymnasium environment {name!r}: {reason}") from error


def _prepare_pygame() -> None:
    """Without a display, pygame looks for one all the same and complains; it also greets."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _box_spaces(space: Any) -> tuple[str | None, dict[str, spaces.Box]]:
    """The key of a lone box (None for a Dict), and all boxes by key."""
    if _is_a(space, "Box"):
        box = spaces.Box(space.low, space.high, space.shape, space.dtype)
        key = "image" if box.dtype == np.uint8 and len(box.shape) > 1 else "vector"
        return key, {key: box}
    inner = dict(space.spaces) if _is_a(space, "Dict") else {}
    if not inner:
        raise ValueError(f"observation space: expected a Box or a Dict of Boxes, got {space}")
    for key, value in inner.items():
        if not _is_a(value, "Box"):
            raise ValueError(f"observation key {key!r}: expected a Box, got {value}")
        if key in RESERVED:
            raise ValueError(f"observation key {key!r}: this name is taken; rename it")
    return None, {key: _box_spaces(value)[1].popitem()[1] for key, value in inner.items()}


def _action_space(space: Any) -> spaces.Discrete | spaces.Box:
    """The same space as one of Gymnasium's, whichever package it came from."""
    if _is_a(space, "Discrete"):
        return spaces.Discrete(int(space.n), start=int(getattr(space, "start", 0)))
    if _is_a(space, "Box") and np.issubdtype(space.dtype, np.floating):
        return spaces.Box(space.low, space.high, space.shape, space.dtype)
    raise ValueError(f"action space: expected Discrete or a Box of floats, got {space}")


def _is_a(space: Space, name: str) -> bool:
    """Whether a class of this name is among the bases: both gyms have their own `Box`."""
    return any(base.__name__ == name for base in type(space).__mro__)


def _parameters(env: Any, method: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of a method of the environment inside all wrappers."""
    function = getattr(getattr(env, "unwrapped", env), method, None)
    return inspect.signature(function).parameters if function else {}
