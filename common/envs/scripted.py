"""An environment whose every number is known beforehand, for tests of what carries data about."""

from collections.abc import Sequence

import numpy as np
from gymnasium import spaces

from common.data.spaces import OneHot
from common.envs.base import Env, Obs, with_flags, with_transition


class Scripted(Env):
    """Counts. What it shows at step `t` of episode `e` (both from 0; `t = 0` is the reset):

    image    uint8 [64, 64, 3]: every pixel is `(t % 256, t // 256, e % 256)`
    counter  float32 [2]: `(t, e)`
    reward   `Scripted.reward(a)` of the action `a` that led here; 0 at the reset

    lengths: agent steps of the episodes, used in turn and then again from the start.
    terminal: whether an episode's last step is terminal, or only last as at a time limit.
    actions: number of discrete actions, or of action dimensions when `continuous`.
    """

    def __init__(
        self,
        lengths: int | Sequence[int] = 10,
        terminal: bool = True,
        actions: int = 3,
        continuous: bool = False,
        size: int = 64,
    ):
        self._lengths = (lengths,) if isinstance(lengths, int) else tuple(lengths)
        self._terminal = terminal
        self._shape = (size, size, 3)
        self.obs_space = with_flags(
            {
                "image": spaces.Box(0, 255, self._shape, np.uint8),
                "counter": spaces.Box(0, np.inf, (2,), np.float32),
            }
        )
        if continuous:
            self.act_space = spaces.Box(-1.0, 1.0, (actions,), np.float32)
        else:
            self.act_space = OneHot(actions)
            self.action_names = tuple(f"action {index}" for index in range(actions))
        self._step = 0
        self._episode = -1

    @staticmethod
    def reward(action: np.ndarray) -> float:
        """The action [A] weighted by 1, 2, ... A: for a one-hot action its index plus one."""
        return float(np.dot(action, np.arange(1, len(action) + 1)))

    @property
    def length(self) -> int:
        """Agent steps of the current episode."""
        return self._lengths[self._episode % len(self._lengths)]

    def reset(self) -> Obs:
        self._step = 0
        self._episode += 1
        return with_transition(self._obs(), is_first=True)

    def step(self, action) -> Obs:
        if not self.act_space.contains(action):
            raise ValueError(f"action: expected one of {self.act_space}, got {action}")
        if self._episode < 0 or self._step >= self.length:
            raise RuntimeError("step was called before reset")
        self._step += 1
        last = self._step >= self.length
        return with_transition(
            self._obs(), self.reward(action), is_last=last, is_terminal=last and self._terminal
        )

    def render(self) -> np.ndarray:
        pixel = (self._step % 256, self._step // 256, self._episode % 256)
        return np.full(self._shape, pixel, np.uint8)

    def _obs(self) -> Obs:
        counter = np.array([self._step, self._episode], np.float32)
        return {"image": self.render(), "counter": counter}
