"""Actor and critic, trained on imagined sequences.

Shape letters: H horizon, N imagined sequences, F features, A action. All sequences are time-major.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from common.data.spaces import is_discrete
from common.nn import replica
from common.nn.draws import Draws, Modes
from common.nn.layers import Module
from common.nn.optimizer import Optimizer
from common.nn.returns import lambda_return
from common.nn.schedule import schedule
from dreamerv2.agent.imagined import Imagined
from dreamerv2.agent.nets import MLP
from dreamerv2.agent.precision import Precision
from dreamerv2.agent.rssm import State
from dreamerv2.agent.world_model import WorldModel

Metrics = dict[str, tf.Tensor]


class RewardNorm(Module):
    """Divides rewards by a running mean of their magnitude; momentum 1 leaves it as it is, 1
    in a new run.

    A magnitude that is not finite, of an update that is skipped, leaves the mean as it is.
    """

    def __init__(self, momentum: float, scale: float, eps: float):
        self._momentum, self._scale, self._eps = momentum, scale, eps
        self.mag = tf.Variable(1.0, dtype=tf.float64, trainable=False)

    def __call__(self, reward: tf.Tensor) -> tf.Tensor:
        """Updates the magnitude with `reward` first, then scales it."""
        if self._momentum < 1:
            magnitude = tf.reduce_mean(tf.abs(tf.cast(tf.stop_gradient(reward), tf.float64)))
            magnitude = replica.mean(magnitude)
            mean = self._momentum * self.mag + (1 - self._momentum) * magnitude
            self.mag.assign(tf.where(tf.math.is_finite(mean), mean, self.mag))
        return self._scale * reward / (tf.cast(self.mag, tf.float32) + self._eps)


class Targets(NamedTuple):
    """What both losses need of an imagined sequence. Gradients flow into `returns`."""

    returns: tf.Tensor  # [H, N], λ-returns
    slow_value: tf.Tensor  # [H+1, N], slow critic


class Learned(NamedTuple):
    """What one update of a behaviour computed."""

    metrics: Metrics
    grads: dict[str, list[tf.Tensor]]  # per optimiser, before clipping
    seq: dict[str, tf.Tensor]
    targets: Targets


class Behavior(Module):
    """A policy and two critics."""

    def __init__(
        self, config, feat_size: int, act_space: gymnasium.spaces.Box, precision: Precision, rng
    ):
        self._config = config
        discrete = is_discrete(act_space)
        dist = config.actor.dist
        if dist == "auto":
            dist = "onehot" if discrete else "trunc_normal"
        self.actor_grad = config.actor_grad
        if self.actor_grad == "auto":
            self.actor_grad = "reinforce" if discrete else "dynamics"
        # That of the uniform distribution, over [-1, 1] where actions are continuous.
        size = act_space.shape[0]
        self._max_entropy = float(np.log(size) if discrete else size * np.log(2)) or 1.0
        norm_dtype = precision.dtype("layernorm")
        actor = config.actor.update({"dist": dist})
        shape = act_space.shape
        self.actor = MLP(feat_size, shape, actor, precision.dtype("actor"), norm_dtype, rng)
        critic_dtype = precision.dtype("critic")
        self.critic = MLP(feat_size, [], config.critic, critic_dtype, norm_dtype, rng)
        if config.slow_target:
            self.slow_critic = MLP(feat_size, [], config.critic, critic_dtype, norm_dtype, rng)
            self.slow_updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.reward_norm = RewardNorm(**config.reward_norm)

    @property
    def needs_dynamics(self) -> bool:
        """Whether the actor's gradient passes through the imagined sequence."""
        return self.actor_grad in ("dynamics", "both")

    def learn(
        self,
        world_model: WorldModel,
        start: State,
        is_terminal: tf.Tensor,
        agent_steps: tf.Tensor,
        draws: Draws | Modes,
        optimizers: Mapping[str, Optimizer],
        reward: Callable[[Imagined], tf.Tensor] | None = None,
    ) -> Learned:
        """One step of actor and critic, both on the same imagined sequences.

        Args:
            start: posterior states `[B, T, ...]` to imagine from; is_terminal: `[B, T]`.
            agent_steps: where the schedules stand.
            optimizers: `actor_opt` and `critic_opt`.
            reward: `reward(seq)`, `[H+1, N]`, in place of the one that the world model predicts.
        """
        actor_opt, critic_opt = optimizers["actor_opt"], optimizers["critic_opt"]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(actor_opt.owned)
            with contextlib.nullcontext() if self.needs_dynamics else tape.stop_recording():
                seq, metrics = self.imagine(world_model, start, is_terminal, draws, reward)
                targets = self.targets(seq)
            actor_loss, actor_metrics = self.actor_loss(seq, targets, agent_steps, draws)
        with tf.GradientTape() as critic_tape:
            critic_loss, critic_metrics = self.critic_loss(seq, targets)
        actor = actor_opt.minimize(actor_loss, tape, "actor")
        critic = critic_opt.minimize(critic_loss, critic_tape, "critic")
        metrics |= actor_metrics | critic_metrics | actor.metrics | critic.metrics
        return Learned(metrics, {"actor": actor.grads, "critic": critic.grads}, dict(seq), targets)

    def imagine(
        self,
        world_model: WorldModel,
        start: State,
        is_terminal: tf.Tensor,
        draws: Draws | Modes,
        reward: Callable[[Imagined], tf.Tensor] | None = None,
    ) -> tuple[Imagined, Metrics]:
        """Sequences under this behaviour's actor, with the normalised `reward`; see `learn`."""
        start = {k: tf.stop_gradient(v) for k, v in start.items()}
        horizon = self._config.imag_horizon
        seq = world_model.imagine(self.actor, start, is_terminal, horizon, draws)
        raw = (reward or world_model.imagined_reward)(seq)
        seq["reward"] = self.reward_norm(raw)
        metrics: dict[str, tf.Tensor] = {}
        for name, value in (("reward", raw), ("reward_normed", seq["reward"])):
            metrics[f"{name}_mean"] = tf.reduce_mean(value)
            metrics[f"{name}_std"] = tf.math.reduce_std(value)
        return seq, metrics

    def targets(self, seq: Imagined) -> Targets:
        """λ-returns with the slow critic (arXiv 2010.02193, equation 4).

        t          0     1    ...  H-1     H
        reward    [r0    r1   ...  r_{H-1}] rH      on arrival at t
        discount  [d0    d1   ...  d_{H-1}] dH
        value     [v0    v1   ...  v_{H-1}] vH      bootstrap
        returns   [R0    R1   ...  R_{H-1}]         R_t = r_t + d_t ((1-λ) v_{t+1} + λ R_{t+1})
        """
        critic = self.slow_critic if self._config.slow_target else self.critic
        value = seq.evaluate(critic, seq["feat"]).mode()
        returns = lambda_return(
            seq["reward"][:-1],
            value[:-1],
            seq["discount"][:-1],
            value[-1],
            self._config.discount_lambda,
        )
        return Targets(returns, value)

    def actor_loss(
        self,
        seq: Imagined,
        targets: Targets,
        agent_steps: tf.Tensor,
        draws: Draws | Modes,
    ) -> tuple[tf.Tensor, Metrics]:
        """The policy's loss (arXiv 2010.02193, equation 6).

            t          0     1     2    ...  H-2     H-1      H
            feat      [z0    z1    z2   ...  z_{H-2}] z_{H-1}  zH      input of the policy
            action     0    [a0    a1   ...  a_{H-3}  a_{H-2}] a_{H-1}  a_t was drawn at z_t
            returns    R0   [R1    R2   ...  R_{H-2}  R_{H-1}]          what followed a_t is R_{t+1}
            value     [v0    v1    v2   ...  v_{H-2}] v_{H-1}  vH      baseline
            weight    [w0    w1    w2   ...  w_{H-2}] w_{H-1}  wH

        The last action has no return of its own, so the last two states do not enter.
        """
        config = self._config
        policy = seq.evaluate(self.actor, tf.stop_gradient(seq["feat"][:-2]), draws)
        advantage = tf.stop_gradient(targets.returns[1:] - targets.slow_value[:-2])
        metrics: dict[str, tf.Tensor] = {}
        if self.actor_grad == "dynamics":
            objective = targets.returns[1:]
        elif self.actor_grad == "reinforce":
            log_prob = policy.log_prob(tf.stop_gradient(seq["action"][1:-1]))
            objective = log_prob * advantage
            metrics |= loss_terms(tf.stop_gradient(seq["weight"][:-2]), log_prob, advantage)
        elif self.actor_grad == "both":
            mix = schedule(config.actor_grad_mix, agent_steps)
            # As in the reference, a continuous action keeps its gradient here.
            reinforce = policy.log_prob(seq["action"][1:-1]) * advantage
            objective = mix * targets.returns[1:] + (1 - mix) * reinforce
            metrics["actor_grad_mix"] = mix
        else:
            raise ValueError(
                f"actor_grad: got {self.actor_grad!r}, expected auto, reinforce, dynamics or both"
            )
        entropy = policy.entropy()
        scale = schedule(config.actor_ent, agent_steps)
        weight = tf.stop_gradient(seq["weight"][:-2])
        loss = -tf.reduce_mean(weight * (objective + scale * entropy))
        metrics["actor_loss_entropy"] = -tf.reduce_mean(weight * scale * entropy)
        metrics["actor_ent"] = tf.reduce_mean(entropy)
        metrics["actor_ent_fraction"] = metrics["actor_ent"] / self._max_entropy
        metrics["actor_ent_scale"] = scale
        metrics["advantage_mean"] = tf.reduce_mean(advantage)
        metrics["advantage_std"] = tf.math.reduce_std(advantage)
        return loss, metrics

    def critic_loss(self, seq: Imagined, targets: Targets) -> tuple[tf.Tensor, Metrics]:
        """The critic's loss (arXiv 2010.02193, equation 5).

        t          0     1    ...  H-1      H
        feat      [z0    z1   ...  z_{H-1}] zH      input of the critic
        returns   [R0    R1   ...  R_{H-1}]         target, no gradient
        weight    [w0    w1   ...  w_{H-1}] wH
        """
        dist = seq.evaluate(self.critic, tf.stop_gradient(seq["feat"][:-1]))
        weight = tf.stop_gradient(seq["weight"][:-1])
        target = tf.stop_gradient(targets.returns)
        loss = -tf.reduce_mean(dist.log_prob(target) * weight)
        metrics = {
            "critic": tf.reduce_mean(dist.mode()),
            "critic_slow": tf.reduce_mean(targets.slow_value),
            "critic_target": tf.reduce_mean(targets.returns),
        }
        return loss, metrics

    def update_slow_critic(self) -> None:
        """A full copy on update 0, then a mix every `slow_target_update` updates."""
        if not self._config.slow_target:
            return
        due = self.slow_updates % self._config.slow_target_update == 0
        fraction = float(self._config.slow_target_fraction)
        mix = tf.where(self.slow_updates == 0, 1.0, fraction)

        def copy():
            for source, slow in zip(self.critic.variables, self.slow_critic.variables, strict=True):
                slow.assign(mix * source + (1 - mix) * slow)

        tf.cond(due, copy, lambda: None)
        self.slow_updates.assign_add(1)


def loss_terms(weight: tf.Tensor, log_prob: tf.Tensor, advantage: tf.Tensor) -> Metrics:
    """The two terms of `-mean(weight * log_prob * advantage)`, so that a log can explain it.

    With `E` the mean under `weight`: `-E[log_prob] E[advantage]`, which is the entropy times the
    mean advantage, and `-cov(log_prob, advantage)`, which is negative while the policy improves.
    """
    total = tf.reduce_mean(weight)

    def mean(values):
        return tf.reduce_mean(weight * values) / total

    product = mean(log_prob) * mean(advantage)
    covariance = mean(log_prob * advantage) - product
    return {"actor_loss_advantage": -total * product, "actor_loss_covariance": -total * covariance}
