"""Steps environments with a policy and hands on what happens, row by row and per episode."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from common.data.rows import BadRowError
from common.data.spaces import is_discrete

Transition = dict[str, np.ndarray]
# (observation, state) to (action, state); of one environment, or of several with a leading axis.
Policy = Callable[[dict[str, np.ndarray], Any], tuple[np.ndarray, Any]]

_log = logging.getLogger(__name__)


class EnvLostError(ConnectionError):
    """The process of an environment is gone, and with it the episode; `reset` starts another."""


class Driver:
    """Runs environments side by side, each of which has `act_space`, `send` and `receive`.

    `send(action)` begins a step, `send(None)` a reset, and `receive() -> obs` gives the result: all
    are sent to before one is waited for. `receive` may raise `EnvLostError`: then the unfinished
    episode is dropped, which is said, and the environment is reset.

    A row (transition) is the observation with its reward and flags, and under `action` the
    action **that led to it**: `o_t, r_t, a_{t-1}`. The row of a reset has a zero action. So an
    episode of n steps has n + 1 rows. Floats come out as float32, whole numbers as uint8 or
    int32, flags as bool.

    check: raises BadRowError for a row that must not be handed on. Its episode is dropped as a
    whole: that it was cut short is no part of the task, and rows before a broken one are suspect.
    Such a step does not count, and the environment is reset.
    """

    def __init__(self, envs: Sequence[Any], check: Callable[[Transition], None] | None = None):
        self._envs = list(envs)
        self._check = check
        self._on_bad: list[Callable[[BadRowError, list[Transition], int], Any]] = []
        self._on_step: list[Callable[[Transition, int], Any]] = []
        self._on_reset: list[Callable[[Transition, int], Any]] = []
        self._on_episode: list[Callable[[dict[str, np.ndarray]], Any]] = []
        self.reset()

    def on_step(self, callback: Callable[[Transition, int], Any]) -> None:
        """Calls `callback` with the row of every step (not of a reset), and its environment."""
        self._on_step.append(callback)

    def on_reset(self, callback: Callable[[Transition, int], Any]) -> None:
        """Calls `callback` with the row of every reset, and the number of its environment."""
        self._on_reset.append(callback)

    def on_episode(self, callback: Callable[[dict[str, np.ndarray]], Any]) -> None:
        """Calls `callback` with every finished episode, `{key: [rows, ...]}`, reset included."""
        self._on_episode.append(callback)

    def on_bad_episode(self, callback: Callable[[BadRowError, list[Transition], int], Any]) -> None:
        """Calls `callback` with the error of a bad row, the good ones before it, and the number of
        its environment."""
        self._on_bad.append(callback)

    def reset(self) -> None:
        """Forgets the episodes under way and the policy's state; the next call starts anew."""
        self._obs: list[Transition | None] = [None] * len(self._envs)
        self._rows: list[list[Transition]] = [[] for _ in self._envs]
        self._state = None

    def __call__(self, policy: Policy, steps: int) -> None:
        """Takes at least `steps` steps.

        `policy(obs, state) -> (actions float32 [N, A], state)` sees the observations of all N
        environments, `[N, ...]`, never the last one of an episode, and `state` None at first.
        All step before it is asked again, so that there may be N - 1 steps more. The
        state is carried across episodes: a policy starts over where `is_first` is true. Episodes
        that are under way at the end go on with the next call.
        """
        done = 0
        while done < steps:
            self._begin_episodes()
            seen: list[Any] = self._obs  # all of them, from here on
            batch = {key: np.stack([obs[key] for obs in seen]) for key in seen[0]}
            actions, self._state = policy(batch, self._state)
            for index, obs in self._ask(dict(enumerate(actions))):
                if not self._emit(index, obs, actions[index], self._on_step):
                    continue
                done += 1
                if obs["is_last"]:
                    self._finish(index)

    def _begin_episodes(self) -> None:
        """Resets where an episode is over or was lost, until all have an observation."""
        while over := [i for i, obs in enumerate(self._obs) if obs is None or obs["is_last"]]:
            for index, obs in self._ask(dict.fromkeys(over)):
                self._rows[index] = []
                zero = np.zeros(self._envs[index].act_space.shape, np.float32)
                self._emit(index, obs, zero, self._on_reset)

    def _ask(self, actions: Mapping[int, np.ndarray | None]) -> Iterator[tuple[int, dict]]:
        """Sends all actions (None: reset), then gives the observations of those not lost."""
        for index, action in actions.items():
            self._envs[index].send(action)
        for index in actions:
            try:
                obs = self._envs[index].receive()
                self._obs[index] = obs
            except EnvLostError as error:
                self._obs[index] = None
                _log.warning(
                    "environment %d: %s; its episode is dropped, another one starts", index, error
                )
            else:
                yield index, obs

    def _emit(self, index: int, obs: dict, action: np.ndarray, callbacks: list) -> bool:
        """Hands on a row; False if it was a bad one, which dropped its episode."""
        row = {key: _convert(value) for key, value in obs.items()}
        row["action"] = np.array(action, np.float32)
        if self._check:
            try:
                self._check(row)
            except BadRowError as error:
                self._drop(index, error)
                return False
        if self._on_episode:
            self._rows[index].append(row)
        for callback in callbacks:
            callback(row, index)
        return True

    def _drop(self, index: int, error: BadRowError) -> None:
        rows, self._rows[index] = self._rows[index], []
        self._obs[index] = None
        if not self._on_bad:
            raise error
        for callback in self._on_bad:
            callback(error, rows, index)

    def _finish(self, index: int) -> None:
        rows, self._rows[index] = self._rows[index], []
        if rows:
            episode = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
            for callback in self._on_episode:
                callback(episode)


def random_policy(act_space: gymnasium.spaces.Box, seed: int) -> Policy:
    """Uniform actions [A] of `act_space` from a generator of its own; keeps no state."""
    rng = np.random.default_rng(seed)

    def policy(obs, state):
        if is_discrete(act_space):
            action = np.zeros(act_space.shape, np.float32)
            action[rng.integers(act_space.size)] = 1.0
        else:
            action = rng.uniform(act_space.low, act_space.high).astype(np.float32)
        return action, state

    return policy


def batched(policy: Policy) -> Policy:
    """A policy for one observation, which keeps no state, as one for a batch of them."""

    def batch_policy(obs, state):
        rows = [{key: value[i] for key, value in obs.items()} for i in range(len(obs["is_first"]))]
        return np.stack([policy(row, None)[0] for row in rows]), state

    return batch_policy


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
