"""Any Gymnasium environment, by name or as an object; environments of the old gym as well."""

import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from common.envs.base import Env, Obs, unknown_name, with_flags, with_transition
from common.envs.observations import Observations, is_a


class GymAdapter(Env):
    """Makes an environment of Gymnasium (or of the old gym) keep the contract of `base.Env`.

    env: the name under which it is registered, as `gymnasium.make` takes it, or the environment.
      Its action space is Discrete or a Box of floats; anything else is a ValueError.
    seed: for the first reset. An environment that takes no seed is used as it is.
    size: height and width to which images are resized, by area.

    `Observations` says which observation spaces are accepted and what becomes of them. What the
    environment returns must have the declared shape and kind of number (float64 for float32 is
    fine).

    A truncated episode is last but not terminal. So is one that an old environment says its own
    time limit cut.
    """

    def __init__(self, env: Any, *, seed: int = 0, size: tuple[int, int] = (64, 64)):
        _prepare_pygame()
        self._env: Any = _make(env) if isinstance(env, str) else env
        for name in ("observation_space", "action_space"):
            if not hasattr(self._env, name):
                raise ValueError(f"the environment {type(self._env).__name__} has no {name}")
        self._seed = seed % 2**31
        self._seeded = False
        self._observations = Observations(self._env.observation_space, size)
        self.obs_space = with_flags(self._observations.spaces)
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
            try:
                return np.array(self._env.render(), np.uint8)  # it may draw into one array
            except gymnasium.error.DependencyNotInstalled as error:
                reason = str(error).splitlines()[0]
                raise ValueError(
                    f"the environment cannot be rendered: {reason}; the extras `classic` and "
                    "`box2d` bring what Gymnasium's own environments need"
                ) from error
        if "mode" in _parameters(self._env, "render"):
            return np.array(self._env.render(mode="rgb_array"), np.uint8)
        if self._image is None:
            raise ValueError(
                "the environment cannot be rendered: create it with render_mode='rgb_array'"
            )
        image = self._image.reshape(*self._image.shape[:2], -1)
        return image.copy() if image.shape[-1] == 3 else np.repeat(image[..., -1:], 3, -1)

    def close(self) -> None:
        if hasattr(self._env, "close"):
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
        converted, image = self._observations(obs)
        if image is not None:
            self._image = image
        return converted


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


def _action_space(space: Any) -> spaces.Discrete | spaces.Box:
    """The same space as one of Gymnasium's, whichever package it came from."""
    if is_a(space, "Discrete"):
        return spaces.Discrete(int(space.n), start=int(getattr(space, "start", 0)))
    if is_a(space, "Box") and np.issubdtype(space.dtype, np.floating):
        return spaces.Box(space.low, space.high, space.shape, space.dtype)
    message = f"action space: expected Discrete or a Box of floats, got {space}"
    if is_a(space, "MultiDiscrete") or is_a(space, "MultiBinary"):
        message += (
            "; number the combinations and wrap the environment in "
            "gymnasium.wrappers.TransformAction (docs/own_environment.md shows it)"
        )
    raise ValueError(message)


def _parameters(env: Any, method: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of a method of the environment inside all wrappers."""
    function = getattr(getattr(env, "unwrapped", env), method, None)
    return inspect.signature(function).parameters if function else {}
