"""Data-parallel updates: the batch is split over the replicas of a `tf.distribute` strategy.

Every replica is an agent of its own, with its variables on its own device. All begin equal, and
stay equal because each takes the same step on gradients that are averaged (`common/nn/replica.py`).
The variables of `strategy.scope()` are not used: they may not be assigned where replicas run.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from common.nn import replica
from common.seeds import derive_seed
from dreamerv2.agent.agent import Agent, assign_all


class ParallelAgent(Agent):
    """An `Agent` that learns on all devices of a strategy, and acts on the first of this process.

    It sees the share of the batch that belongs to this process, and splits that over its devices.
    So that N replicas learn from a batch what one would, apart from the order of sums and from the
    random numbers: each replica draws its own.

    Args:
        strategy: a MirroredStrategy, or a MultiWorkerMirroredStrategy.
        worker: the number of this process among those of the strategy, from 0.

    Raises:
        ValueError: as `Agent`, or the configuration asks for XLA.
    """

    def __init__(self, config, obs_space, act_space, strategy: tf.distribute.Strategy, worker: int):
        if config.xla:
            raise ValueError("xla: True does not go with several devices or workers; leave it out")
        self.strategy = strategy
        self.devices = devices = strategy.extended.worker_devices
        with tf.device(devices[0]):
            super().__init__(config, obs_space, act_space)
        self._replicas: list[Agent] = [self]
        for device in devices[1:]:
            with tf.device(device):
                self._replicas.append(Agent(config, obs_space, act_space))
        for number, agent in enumerate(self._replicas, worker * len(devices)):
            if number:
                agent._seeds["train"] = derive_seed(config.seed, "train", "replica", number)
        # Replicas are numbered over all processes, those of one process in a row.
        self._numbers = strategy.experimental_distribute_values_from_function(
            lambda context: context.replica_id_in_sync_group % len(devices)
        )
        if worker:
            self._seeds["policy"] = derive_seed(config.seed, "policy", "worker", worker)

    def _train(self, batch, state, agent_steps):
        count = len(self._replicas)
        batches = _split(batch, count)
        states = _split(state, count)

        def update(number):
            agent = self._replicas[number]
            state, metrics = Agent._train(agent, batches[number], states[number], agent_steps)
            metrics = {name: tf.cast(value, tf.float32) for name, value in metrics.items()}
            return state, replica.mean(metrics)

        state, metrics = self.strategy.run(update, args=(self._numbers,))
        local = self.strategy.experimental_local_results
        state = {name: tf.concat(local(value), 0) for name, value in state.items()}
        return state, {name: local(value)[0] for name, value in metrics.items()}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        """As that of `Agent`, on every replica of this process."""
        for agent in self._replicas:
            assign_all(agent.named_variables(), arrays)


def _split(tensors: Mapping[str, tf.Tensor], count: int) -> list[dict[str, tf.Tensor]]:
    """Equal shares of the first axis."""
    parts = {name: tf.split(value, count) for name, value in tensors.items()}
    return [{name: part[number] for name, part in parts.items()} for number in range(count)]
