"""Behaviours that explore: a second actor and critic, rewarded for what the agent does not know.

`Plan2Explore` (arXiv 2005.05960) seeks states in which the members of an ensemble disagree,
`ModelLoss` states in which the world model is expected to be wrong. `Random` draws uniform actions
and learns nothing.

Shape letters: B batch, T time, H horizon, N imagined sequences, F features, A action, S target.
"""

from collections.abc import Mapping, Sequence

import gymnasium
import tensorflow as tf

from common.data.spaces import is_discrete
from common.nn import dists
from common.nn.draws import Draws, Modes
from common.nn.layers import Module
from dreamerv2.agent.behavior import Behavior, Learned, RewardNorm
from dreamerv2.agent.imagined import Imagined, joined
from dreamerv2.agent.nets import MLP
from dreamerv2.agent.optimizers import make_optimizer
from dreamerv2.agent.precision import Precision
from dreamerv2.agent.world_model import WorldModel, WorldModelLoss


class Random(Module):
    """Uniform actions; nothing is learned."""

    noise = 0.0  # that `policy` adds: none makes them more random

    def __init__(self, act_space: gymnasium.spaces.Box):
        self._act_space = act_space

    def actor(self, feat: tf.Tensor, draws: Draws | Modes):
        """The distribution of actions `[B, A]` at `[B, F]`, the same everywhere."""
        shape = [tf.shape(feat)[0], self._act_space.shape[0]]
        if is_discrete(self._act_space):
            return dists.OneHot(tf.zeros(shape))
        return dists.Uniform(shape)


class Explorer(Module):
    """A behaviour with an intrinsic reward, which comes from what some heads predict.

    Everything is its own: actor, critics, reward norm, heads and optimisers. It learns after the
    task's behaviour, from the same posterior states, in imagination under its own actor.

    Args:
        names: of the heads; inputs, shape: what each reads, and the shape that it predicts.
    """

    def __init__(
        self,
        config,
        wm: WorldModel,
        act_space: gymnasium.spaces.Box,
        precision: Precision,
        rng,
        names: Sequence[str],
        inputs: int,
        shape: Sequence[int],
    ):
        self._config = config
        self.noise = config.expl_noise
        dtype, norm_dtype = precision.dtype("heads"), precision.dtype("layernorm")
        self.heads = {
            name: MLP(inputs, shape, config.expl_head, dtype, norm_dtype, rng) for name in names
        }
        self.behavior = Behavior(config, wm.feat_size, act_space, precision, rng)
        owned = {
            "expl_opt": self.head_variables,
            "actor_opt": self.behavior.actor.named_variables(),
            "critic_opt": self.behavior.critic.named_variables(),
        }
        self.optimizers = {
            name: make_optimizer(config, name, variables, precision)
            for name, variables in owned.items()
        }

    @property
    def head_variables(self) -> dict[str, tf.Variable]:
        """The variables of all heads, by path."""
        found: dict[str, tf.Variable] = {}
        for name, head in self.heads.items():
            found |= head.named_variables(f"{name}/")
        return found

    def actor(self, feat: tf.Tensor, draws: Draws | Modes):
        """The distribution of actions at features `[B, F]`."""
        return self.behavior.actor(feat, draws)

    def learn(
        self,
        world_model: WorldModel,
        model: WorldModelLoss,
        data: Mapping[str, tf.Tensor],
        agent_steps: tf.Tensor,
        draws: Draws | Modes,
    ) -> Learned:
        """One step of the heads on the rows `data`, then one of actor and critic.

        The imagination sees the heads that this step made. Metrics and gradients are named
        `expl_...`; those of the heads are `expl_expl`.

        Args:
            model: what the world model made of `data` `[B, T, ...]`.
        """
        with tf.GradientTape() as tape:
            loss = self.head_loss(model, data)
        heads = self.optimizers["expl_opt"].minimize(loss, tape, "expl")
        learned = self.behavior.learn(
            *(world_model, model.post, data["is_terminal"], agent_steps, draws, self.optimizers),
            reward=lambda seq: self.reward(world_model, seq),
        )
        self.behavior.update_slow_critic()
        metrics, grads = heads.metrics | learned.metrics, {"expl": heads.grads} | learned.grads
        return learned._replace(
            metrics={f"expl_{name}": value for name, value in metrics.items()},
            grads={f"expl_{name}": value for name, value in grads.items()},
        )

    def head_loss(self, model: WorldModelLoss, data: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The loss of the heads on one batch; no gradient reaches the world model."""
        raise NotImplementedError

    def reward(self, world_model: WorldModel, seq: Imagined) -> tf.Tensor:
        """The intrinsic reward at every imagined state, `[H+1, N]`."""
        raise NotImplementedError


class Plan2Explore(Explorer):
    """Seeks disagreement: what an ensemble of heads has learned, it agrees on.

    Raises:
        ValueError: `disag_offset` leaves no row of a chunk to learn from.
    """

    def __init__(self, config, wm, act_space, precision, rng):
        if config.disag_offset >= config.dataset.length:
            raise ValueError(
                f"disag_offset: got {config.disag_offset}, expected less than dataset.length "
                f"({config.dataset.length})"
            )
        sizes = {
            "stoch": wm.rssm.stoch_size,
            "deter": wm.rssm.deter_size,
            "embed": wm.encoder.embed_size,
            "feat": wm.feat_size,
        }
        names = [f"disag{i}" for i in range(config.disag_models)]
        inputs = wm.feat_size + (act_space.shape[0] if config.disag_action_cond else 0)
        shape = [sizes[config.disag_target]]
        super().__init__(config, wm, act_space, precision, rng, names, inputs, shape)
        self.intr_norm = RewardNorm(**config.expl_reward_norm)
        self.extr_norm = RewardNorm(**config.expl_reward_norm)

    def head_loss(self, model: WorldModelLoss, data: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Sum over the heads of the mean negative log-likelihood.

        t        0     1     2    ...  T-1       disag_offset = 1
        inputs  [z0    z1    z2   ...] z_{T-1}   with the action that led to row t
        target   s0   [s1    s2   ...  s_{T-1}]
        """
        config, stoch = self._config, model.post["stoch"]
        target = {
            "stoch": tf.reshape(stoch, tf.concat([tf.shape(stoch)[:2], [-1]], 0)),
            "deter": model.post["deter"],
            "embed": model.embed,
            "feat": model.feat,
        }[config.disag_target]
        offset = config.disag_offset
        inputs = joined(model.feat, data["action"] if config.disag_action_cond else None)
        inputs = tf.stop_gradient(inputs[:, :-offset] if offset else inputs)
        target = tf.cast(tf.stop_gradient(target[:, offset:]), tf.float32)
        likes = [head(inputs).log_prob(target) for head in self.heads.values()]
        return -tf.add_n([tf.reduce_mean(like) for like in likes])

    def disagreement(self, seq: Imagined) -> tf.Tensor:
        """How far the heads are apart at each state: their standard deviation, mean over S.

        Args:
            seq: holds `feat` and `action`, `[..., F]` and `[..., A]`: the action that led there.

        Returns:
            float32 `[...]`; its logarithm with `disag_log`.
        """
        action = seq["action"] if self._config.disag_action_cond else None
        found = [seq.evaluate(h, seq["feat"], beside=action).mode() for h in self.heads.values()]
        spread = tf.reduce_mean(_std(tf.stack(found)), -1)
        return tf.math.log(spread) if self._config.disag_log else spread

    def reward(self, world_model: WorldModel, seq: Imagined) -> tf.Tensor:
        """The disagreement, and a share of the predicted reward, each divided by its magnitude."""
        config = self._config
        reward = config.expl_intr_scale * self.intr_norm(self.disagreement(seq))
        if config.expl_extr_scale:
            extrinsic = self.extr_norm(world_model.imagined_reward(seq))
            reward += config.expl_extr_scale * extrinsic
        return reward


class ModelLoss(Explorer):
    """Seeks states in which the world model is expected to be wrong.

    Raises:
        ValueError: the world model has no loss called `expl_model_loss`.
    """

    def __init__(self, config, wm, act_space, precision, rng):
        known = ["kl", *wm.heads, *wm.decoder.keys]
        if config.expl_model_loss not in known:
            raise ValueError(
                f"expl_model_loss: got {config.expl_model_loss!r}, expected one of "
                + ", ".join(known)
            )
        super().__init__(config, wm, act_space, precision, rng, ["head"], wm.feat_size, [])

    def head_loss(self, model: WorldModelLoss, data: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Mean negative log-likelihood of the world model's loss at each row."""
        losses = {"kl": model.kl} | {name: -like for name, like in model.likes.items()}
        target = tf.stop_gradient(losses[self._config.expl_model_loss])
        feat = tf.stop_gradient(model.feat)
        return -tf.reduce_mean(self.heads["head"](feat).log_prob(target))

    def reward(self, world_model: WorldModel, seq: Imagined) -> tf.Tensor:
        """The predicted loss, and a share of the predicted reward."""
        config = self._config
        reward = config.expl_intr_scale * seq.evaluate(self.heads["head"], seq["feat"]).mode()
        if config.expl_extr_scale:
            reward += config.expl_extr_scale * world_model.imagined_reward(seq)
        return reward


BEHAVIORS = {"Plan2Explore": Plan2Explore, "ModelLoss": ModelLoss}


def make_exploration(
    config, wm: WorldModel, act_space: gymnasium.spaces.Box, precision: Precision, rng
) -> Random | Explorer | None:
    """The behaviour `expl_behavior`; None for `greedy`."""
    if config.expl_behavior == "greedy":
        return None
    if config.expl_behavior == "Random":
        return Random(act_space)
    return BEHAVIORS[config.expl_behavior](config, wm, act_space, precision, rng)


def _std(values: tf.Tensor) -> tf.Tensor:
    """Standard deviation over the first axis, whose gradient is 0 where all are equal, not NaN."""
    variance = tf.math.reduce_variance(values, 0)
    differ = variance > 0
    return tf.where(differ, tf.sqrt(tf.where(differ, variance, 1.0)), 0.0)
