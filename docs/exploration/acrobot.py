"""Acrobot without its reward, to see exploration: `--env docs.exploration.acrobot:make`."""

import gymnasium
import numpy as np

STEPS = 100  # env frames of an episode


class Acrobot(gymnasium.Wrapper):
    """Two links that hang down, and a motor between them: only swings lift them.

    Observations: `vector` is Gymnasium's, cosine and sine of both angles and both speeds, scaled to
    [-1, 1]. `angles` is both angles over pi; it serves to count cells and is not for the agent. The
    reward is always 0. The episode ends where Gymnasium's does, or after 100 env frames.
    """

    def __init__(self):
        env = gymnasium.make("Acrobot-v1", max_episode_steps=STEPS, render_mode="rgb_array")
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Dict(
            vector=gymnasium.spaces.Box(-1, 1, (6,), np.float32),
            angles=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
        )

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        return self._split(observation), info

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return self._split(observation), 0.0, terminated, truncated, info

    def _split(self, observation):
        cosine1, sine1, cosine2, sine2, _, _ = observation
        angles = np.array([np.arctan2(sine1, cosine1), np.arctan2(sine2, cosine2)]) / np.pi
        return {
            "vector": (observation / self.env.observation_space.high).astype(np.float32),
            "angles": np.clip(angles, -1, 1).astype(np.float32),
        }


def make() -> Acrobot:
    """The two links, without reward."""
    return Acrobot()
