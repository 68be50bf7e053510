"""Wrappers that every suite shares, innermost first in the order of this file."""

import numpy as np
from gymnasium import spaces

from common.data.spaces import OneHot
from common.envs.base import Env, Obs

# One-hot actions that come out of a half precision network are off by about this much.
ONE_HOT_TOLERANCE = 1e-2


class Wrapper(Env):
    """Passes everything on to the wrapped environment; the base of the wrappers below."""

    def __init__(self, env: Env):
        self.env = env
        self.obs_space = env.obs_space
        self.act_space = env.act_space
        self.action_names = env.action_names

    @property
    def record_frames(self) -> bool:
        return self.env.record_frames

    @record_frames.setter
    def record_frames(self, value: bool) -> None:
        self.env.record_frames = value

    def reset(self) -> Obs:
        return self.env.reset()

    def step(self, action) -> Obs:
        return self.env.step(action)

    def render(self) -> np.ndarray:
        return self.env.render()

    def variables(self) -> dict[str, float]:
        return self.env.variables()

    def skipped_frames(self) -> list[np.ndarray]:
        return self.env.skipped_frames()

    def close(self) -> None:
        self.env.close()


class ActionRepeat(Wrapper):
    """Applies each action `amount` times and sums the rewards; stops early at an episode's end."""

    def __init__(self, env: Env, amount: int):
        super().__init__(env)
        if amount < 1:
            raise ValueError(f"action_repeat: expected a positive number, got {amount}")
        self._amount = amount
        self._frames: list[np.ndarray] = []

    def reset(self) -> Obs:
        obs = self.env.reset()
        self._frames = self.env.skipped_frames() if self.record_frames else []
        return obs

    def step(self, action) -> Obs:
        self._frames = []
        reward = np.float32(0)
        for _ in range(self._amount):
            obs = self.env.step(action)
            reward += obs["reward"]
            if self.record_frames:
                self._frames += self.env.skipped_frames()
            if obs["is_last"]:
                break
        return {**obs, "reward": reward}

    def skipped_frames(self) -> list[np.ndarray]:
        return list(self._frames)


class OneHotAction(Wrapper):
    """Turns an environment with `Discrete(n)` actions into one with one-hot vectors [n]."""

    def __init__(self, env: Env):
        super().__init__(env)
        self._start = int(env.act_space.start)
        self.act_space = OneHot(env.act_space.n)

    def step(self, action) -> Obs:
        action = np.asarray(action)
        if action.shape == self.act_space.shape:
            index = int(action.argmax())
            chosen = action[index]
            error = abs(chosen - 1) + np.abs(action).sum() - chosen
            if error < ONE_HOT_TOLERANCE:
                return self.env.step(index + self._start)
        raise ValueError(f"action: expected a one-hot vector {self.act_space}, got {action}")


class NormalizeAction(Wrapper):
    """Turns an environment with Box actions into one with actions in [-1, 1], float32 [A].

    Each dimension is mapped linearly to its declared bounds and clipped there. A dimension with one
    finite bound gets the two units beside that; one without any gets the value as it is. Actions of
    any rank are flattened.
    """

    def __init__(self, env: Env):
        super().__init__(env)
        inner = env.act_space
        # In float64: the distance between float32 bounds may be too large for float32.
        low, high = inner.low.astype(np.float64), inner.high.astype(np.float64)
        below, above = np.isfinite(low), np.isfinite(high)
        self._bounded = below | above
        self._low = np.where(below, low, np.where(above, high - 2, -1.0))
        self._high = np.where(above, high, np.where(below, low + 2, 1.0))
        self._inner = inner
        size = int(np.prod(inner.shape))
        self.act_space = spaces.Box(-1.0, 1.0, (size,), np.float32)

    def step(self, action) -> Obs:
        action = np.asarray(action)
        if action.shape != self.act_space.shape or not np.isfinite(action).all():
            raise ValueError(f"action: expected a vector in {self.act_space}, got {action}")
        action = action.reshape(self._inner.shape)
        scaled = (action + 1) / 2 * (self._high - self._low) + self._low
        scaled = np.where(self._bounded, np.clip(scaled, self._low, self._high), action)
        return self.env.step(scaled.astype(self._inner.dtype))


class TimeLimit(Wrapper):
    """Ends an episode after `agent_steps` calls of `step`: `is_last`, but not `is_terminal`."""

    def __init__(self, env: Env, agent_steps: int):
        super().__init__(env)
        if agent_steps < 1:
            raise ValueError(f"time_limit: expected a positive number, got {agent_steps}")
        self._limit = agent_steps
        self._step = 0

    def reset(self) -> Obs:
        self._step = 0
        return self.env.reset()

    def step(self, action) -> Obs:
        obs = self.env.step(action)
        self._step += 1
        if self._step >= self._limit:
            obs["is_last"] = True
        return obs


class CheckSpaces(Wrapper):
    """Compares the first reset and the first step with the declared spaces; guards the order.

    Raises ValueError naming the key, what was declared and what came. Calling `step` without a
    `reset` since the start or the last `is_last` is a RuntimeError: the rows would not be an
    episode.
    """

    def __init__(self, env: Env):
        super().__init__(env)
        self._unchecked = {"reset", "step"}
        self._running = False

    def reset(self) -> Obs:
        obs = self.env.reset()
        self._running = True
        self._check("reset", obs)
        return obs

    def step(self, action) -> Obs:
        if not self._running:
            raise RuntimeError("step was called before reset")
        obs = self.env.step(action)
        self._running = not obs["is_last"]
        if self._unchecked:
            self._check("step", obs)
        return obs

    def _check(self, call: str, obs: Obs) -> None:
        if call in self._unchecked:
            check_obs(self.obs_space, obs, call)
            self._unchecked.remove(call)


def check_obs(obs_space: dict[str, spaces.Box], obs: Obs, call: str) -> None:
    """Raises ValueError for the first key whose shape or dtype is not the declared one.

    call: the method that returned `obs`, for the message.
    """
    for key in [*obs_space, *(key for key in obs if key not in obs_space)]:
        expected = describe(obs_space[key]) if key in obs_space else "no such key"
        got = describe(np.asarray(obs[key])) if key in obs else "no such key"
        if got != expected:
            raise ValueError(f"observation key {key!r} at {call}: expected {expected}, got {got}")


def describe(value: spaces.Box | np.ndarray) -> str:
    """Dtype and shape, such as `uint8 [64, 64, 1]`."""
    return f"{np.dtype(value.dtype)} {list(value.shape)}"
