"""Steps one environment with a policy and hands on what happens, row by row and per episode."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from common.data.rows import BadRowError
from common.data.spaces import is_discrete

Transition = dict[str, np.ndarray]
Policy = Callable[[dict[str, np.ndarray], Any], tuple[np.ndarray, Any]]


class Driver:
    """Runs `env`, which has `act_space`, `reset() -> obs` and `step(action) -> obs`.

    A row (transition) is the observation with its reward and flags, and under `action` the
    action **that led to it**: `o_t, r_t, a_{t-1}`. The row of a reset has a zero action. So an
    episode of n steps has n + 1 rows. Floats come out as float32, whole numbers as uint8 or
    int32, flags as bool.

    check: raises BadRowError for a row that must not be handed on. Its episode is dropped as a
    whole: that it was cut short is no part of the task, and rows before a broken one are suspect.
    Such a step does not count, and the next one starts a new episode.
    """

    def __init__(self, env, check: Callable[[Transition], None] | None = None):
        self._env = env
        self._check = check
        self._on_bad: list[Callable[[BadRowError, list[Transition]], Any]] = []
        self._on_step: list[Callable[[Transition], Any]] = []
        self._on_reset: list[Callable[[Transition], Any]] = []
        self._on_episode: list[Callable[[dict[str, np.ndarray]], Any]] = []
        self.reset()

    def on_step(self, callback: Callable[[Transition], Any]) -> None:
        """Calls `callback` with the row of every step (not of a reset)."""
        self._on_step.append(callback)

    def on_reset(self, callback: Callable[[Transition], Any]) -> None:
        """Calls `callback` with the row of every reset."""
        self._on_reset.append(callback)

    def on_episode(self, callback: Callable[[dict[str, np.ndarray]], Any]) -> None:
        """Calls `callback` with every finished episode, `{key: [rows, ...]}`, reset included."""
        self._on_episode.append(callback)

    def on_bad_episode(self, callback: Callable[[BadRowError, list[Transition]], Any]) -> None:
        """Calls `callback` with the error of a bad row and the good rows of its episode before."""
        self._on_bad.append(callback)

    def reset(self) -> None:
        """Forgets the episode under way and the policy's state; the next call starts anew."""
        self._obs: Transition | None = None
        self._state = None
        self._rows: list[Transition] = []

    def __call__(self, policy: Policy, steps: int) -> None:
        """Takes `steps` steps.

        `policy(obs, state) -> (action float32 [A], state)` sees unbatched observations, never
        the last one of an episode, and `state` None at first. The state is carried across
        episodes: a policy starts over where `is_first` is true. An episode that is under way at
        the end goes on with the next call.
        """
        done = 0
        while done < steps:
            try:
                obs = self._obs
                if obs is None or obs["is_last"]:
                    self._obs = obs = self._begin()
                action, self._state = policy(obs, self._state)
                self._obs = obs = self._env.step(action)
                self._emit(obs, action, self._on_step)
            except BadRowError as error:
                self._drop(error)
                continue
            done += 1
            if obs["is_last"]:
                self._finish()

    def _begin(self) -> Transition:
        self._rows = []
        obs = self._env.reset()
        zero = np.zeros(self._env.act_space.shape, np.float32)
        self._emit(obs, zero, self._on_reset)
        return obs

    def _emit(self, obs: dict, action: np.ndarray, callbacks: list) -> None:
        row = {key: _convert(value) for key, value in obs.items()}
        row["action"] = np.array(action, np.float32)
        if self._check:
            self._check(row)
        if self._on_episode:
            self._rows.append(row)
        for callback in callbacks:
            callback(row)

    def _drop(self, error: BadRowError) -> None:
        rows = self._rows
        self.reset()
        if not self._on_bad:
            raise error
        for callback in self._on_bad:
            callback(error, rows)

    def _finish(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            episode = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
            for callback in self._on_episode:
                callback(episode)


def random_policy(act_space: gymnasium.spaces.Box, seed: int) -> Policy:
    """Uniform actions of `act_space` from a generator of its own; keeps no state."""
    rng = np.random.default_rng(seed)

    def policy(obs, state):
        if is_discrete(act_space):
            action = np.zeros(act_space.shape, np.float32)
            action[rng.integers(act_space.size)] = 1.0
        else:
            action = rng.uniform(act_space.low, act_space.high).astype(np.float32)
        return action, state

    return policy


def stored_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which a value of `dtype` is stored: float32, int32, uint8 or bool."""
    if dtype.kind == "f":
        return np.dtype(np.float32)
    if dtype.kind in "iu" and dtype != np.uint8:
        return np.dtype(np.int32)
    return dtype


def _convert(value: Any) -> np.ndarray:
    value = np.array(value)  # a copy: environments may reuse their arrays
    return value.astype(stored_dtype(value.dtype), copy=False)
