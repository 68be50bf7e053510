"""Plays episodes with a trained agent, each a function of its seed alone."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from common.data.driver import Policy
from common.device import setup_device
from common.envs.base import Env
from common.nn.draws import Draws
from common.seeds import derive_seed
from dreamerv2.agent.agent import Agent
from dreamerv2.run.restore import Saved

# What actions are called where people read it, by the mode of `Agent.policy`.
MODE_NAMES = {"eval": "greedy", "train": "sampled"}


class EndlessEpisodeError(ValueError):
    """An episode did not end within the agent steps that were allowed."""


class Row(NamedTuple):
    """One observation of an episode and what the policy made of it."""

    obs: dict[str, Any]
    action: np.ndarray  # [A], what the policy does now; the last one of an episode is not applied
    state: Any  # the policy's, after this observation


class AgentPolicy:
    """An agent as a policy whose random numbers depend on the episode's seed and the step only.

    So an episode is the same in every command, whatever was played before.
    """

    def __init__(self, agent: Agent, mode: str):
        self._agent, self._mode = agent, mode
        self._keys = [*agent.wm.encoder.keys, "is_first"]
        self._policy = tf.function(self._policy_step) if agent.config.jit else self._policy_step

    def episode(self, seed: int) -> Policy:
        """The policy for one episode."""
        count = itertools.count()

        def policy(obs, state):
            key = tf.constant([seed, next(count)], tf.int64)
            batch = {k: tf.convert_to_tensor(np.asarray(obs[k])[None]) for k in self._keys}
            if state is None:
                state = self._agent.initial_policy_state(1)
            action, state = self._policy(batch, state, key)
            return action.numpy()[0], state

        return policy

    def _policy_step(self, obs, state, key):
        outputs, state = self._agent.policy_step(obs, state, self._mode, Draws(key))
        return outputs["action"], state


def load_agent(saved: Saved) -> Agent:
    """The agent on the device that there is, computing the same in every process; says which."""
    print(setup_device(saved.config.precision), flush=True)
    if tf.config.list_physical_devices("GPU"):
        # There, the fastest algorithms differ from run to run in the last digits.
        tf.config.experimental.enable_op_determinism()
    return saved.agent()


def play(env: Env, policy: Policy, max_steps: int) -> Iterator[Row]:
    """The rows of one episode, the last observation included, while it is played.

    Raises `EndlessEpisodeError` if it does not end within `max_steps` agent steps.
    """
    obs, state = env.reset(), None
    for _ in range(max_steps):
        action, state = policy(obs, state)
        yield Row(obs, action, state)
        obs = env.step(action)
        if obs["is_last"]:
            yield Row(obs, *policy(obs, state))
            return
    raise EndlessEpisodeError(
        f"the episode did not end within {max_steps:,} agent steps (--max-steps)"
    )


def episode_seed(seed: int, index: int) -> int:
    """The seed of episode `index` among those of `seed`, for environment and policy."""
    return derive_seed(seed, "episode", index)
