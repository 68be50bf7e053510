"""A task of seconds: walk to the right end of a corridor."""

import gymnasium
import numpy as np

CELLS = 5


class Corridor(gymnasium.Env):
    """The right end pays 1, the left end -1. Either ends the episode; so does the tenth step.

    Observation: the cell, one-hot. The walk starts in the middle. The two actions change their
    meaning from cell to cell, so that one that is taken a step early or late leads the wrong way.
    """

    observation_space = gymnasium.spaces.Box(0, 1, (CELLS,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._cell, self._steps = CELLS // 2, 0
        return self._obs(), {}

    def step(self, action):
        to_the_right = action == self._cell % 2
        self._cell += 1 if to_the_right else -1
        self._steps += 1
        reward = {0: -1.0, CELLS - 1: 1.0}.get(self._cell, 0.0)
        return self._obs(), reward, bool(reward), self._steps == 10, {}

    def _obs(self):
        return np.eye(CELLS, dtype=np.float32)[self._cell]
