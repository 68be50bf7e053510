"""MountainCar without its reward, to see exploration: `--env docs.exploration.valley:make`."""

import gymnasium
import numpy as np


class Valley(gymnasium.Wrapper):
    """A car in a valley whose engine is too weak for the slope: only swings reach the top.

    Observation: position and speed, each scaled to [-1, 1]. The reward is always 0, and nothing
    ends at the goal but the episode of 200 env frames.
    """

    def __init__(self):
        super().__init__(gymnasium.make("MountainCar-v0", render_mode="rgb_array"))
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        return self._scaled(observation), info

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return self._scaled(observation), 0.0, terminated, truncated, info

    def _scaled(self, observation):
        low, high = self.env.observation_space.low, self.env.observation_space.high
        return (2 * (observation - low) / (high - low) - 1).astype(np.float32)


def make() -> Valley:
    """The car, without reward."""
    return Valley()
