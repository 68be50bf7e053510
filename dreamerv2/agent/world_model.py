"""The world model: encoder, RSSM, and heads for observations, reward and discount.

Shape letters: B batch, T time, N = B*T imagination starts, H horizon, F features, A action.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from common.nn import dists
from common.nn.draws import Draws, Modes
from common.nn.layers import Module
from common.nn.optimizer import Minimized, Optimizer
from common.nn.returns import discount_weights
from common.nn.schedule import schedule
from dreamerv2.agent.imagined import Imagined, Remembered, columns
from dreamerv2.agent.nets import MLP, Decoder, Encoder
from dreamerv2.agent.precision import Precision
from dreamerv2.agent.rssm import RSSM, State

REWARD_CLIPS = {"identity": lambda x: x, "sign": tf.sign, "tanh": tf.tanh}


class WorldModelLoss(NamedTuple):
    """The loss and what it was made of, batch-major."""

    loss: tf.Tensor  # float32 scalar
    post: State  # [B, T, ...]
    prior: State
    embed: tf.Tensor  # [B, T, E]
    feat: tf.Tensor  # [B, T, F]
    kl: tf.Tensor  # [B, T], before free nats
    likes: dict[str, tf.Tensor]  # [B, T] each
    metrics: dict[str, tf.Tensor]

    def final_state(self) -> State:
        """The posterior after the last row, for the batch that follows."""
        return {k: v[:, -1] for k, v in self.post.items()}


class WorldModel(Module):
    """Learns to predict what the environment does, in a latent space.

    Raises:
        ValueError: the configuration does not fit the spaces (no input, image of another size,
            unknown head or loss scale).
    """

    imagined = Remembered  # `Imagined` would compute the same in more time

    def __init__(self, config, obs_space, action_size: int, precision: Precision, rng):
        self._config = config
        self._precision = precision
        self.action_size = action_size
        self._clip_rewards = REWARD_CLIPS[config.clip_rewards]
        norm_dtype = precision.dtype("layernorm")
        self.encoder = Encoder(obs_space, config.encoder, precision, rng)
        self.rssm = RSSM(self.encoder.embed_size, action_size, config.rssm, precision, rng)
        self.feat_size = self.rssm.stoch_size
        if config.features == "full":
            self.feat_size += self.rssm.deter_size
        self.decoder = Decoder(
            obs_space, self.feat_size, config.decoder, precision, rng, self.encoder.image_stats
        )
        self.heads = {}
        names = ["reward", "discount"] if config.pred_discount else ["reward"]
        for name in names:
            head = config[f"{name}_head"]
            self.heads[name] = MLP(
                self.feat_size, [], head, precision.dtype("heads"), norm_dtype, rng
            )
        self._check_names(["decoder", *self.heads])

    def _check_names(self, heads):
        for name in self._config.grad_heads:
            if name not in heads:
                raise ValueError(f"grad_heads: no head {name!r}, expected some of {heads}")
        losses = ["kl", "reward", "discount", *self.decoder.keys]
        for name in self._config.loss_scales.flat:
            if name not in (*losses, "proprio"):  # which all configurations of the author have
                raise ValueError(f"loss_scales.{name}: no such loss, expected one of {losses}")

    @property
    def input_keys(self) -> list[str]:
        """What `preprocess` needs of a batch besides the action."""
        keys = [*self.encoder.keys, *self.decoder.keys, "reward", "is_first", "is_terminal"]
        return list(dict.fromkeys(keys))

    def normalize(self, obs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Bytes to [-0.5, 0.5], images in the compute dtype; other numbers to float32."""

        def convert(value):
            if value.dtype == tf.uint8:
                is_image = value.shape.rank > 3  # [B, H, W, C] or [B, T, H, W, C]
                dtype = self._precision.compute if is_image else tf.float32
                return tf.cast(value, dtype) / 255 - 0.5
            return value if value.dtype == tf.bool else tf.cast(value, tf.float32)

        return {key: convert(value) for key, value in obs.items()}

    def preprocess(self, data: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What the losses see of a batch: normalised, rewards clipped, the discount's target."""
        result = self.normalize(data)
        result["reward"] = self._clip_rewards(result["reward"])
        result["discount"] = self._config.discount * (1 - tf.cast(data["is_terminal"], tf.float32))
        return result

    def feat(self, state: State) -> tf.Tensor:
        """What policy, critic and heads are fed: `[stoch, deter]`, or `stoch` alone."""
        stoch = self.rssm.flat_stoch(state)
        if self._config.features == "discrete":
            return stoch
        return tf.concat([stoch, tf.cast(state["deter"], stoch.dtype)], -1)

    def loss(
        self,
        data: Mapping[str, tf.Tensor],
        state: State | None,
        draws: Draws | Modes,
        agent_steps: tf.Tensor | int = 0,
    ) -> WorldModelLoss:
        """The variational bound (arXiv 2010.02193, equation 2) on preprocessed rows `[B, T, ...]`.

        t          0       1       2
        data       o0      o1      o2      observation, r_t, and a_{t-1} that led to them
        post       s0      s1      s2      state carried in from the batch before: s_-1
        heads     [o0]    [o1]    [o2]     each predicts its own row from s_t

        agent_steps: where the schedules of `loss_scales` stand.
        """
        config = self._config
        embed = self.encoder(data)
        post, prior = self.rssm.observe(embed, data["action"], data["is_first"], state, draws)
        kl_loss, kl = self.rssm.kl_loss(
            post,
            prior,
            config.kl.balance,
            config.kl.free,
            config.kl.forward,
            config.kl.free_avg,
        )
        feat = self.feat(post)
        likes = {k: dist.log_prob(data[k]) for k, dist in self.predictions(feat).items()}
        losses = {"kl": kl_loss} | {k: -tf.reduce_mean(like) for k, like in likes.items()}
        scales = {k: schedule(config.loss_scales.get(k, 1.0), agent_steps) for k in losses}
        loss = tf.add_n([scales[k] * v for k, v in losses.items()])
        metrics = {f"{k}_loss": v for k, v in losses.items()}
        metrics["model_kl"] = tf.reduce_mean(kl)
        metrics["prior_ent"] = tf.reduce_mean(self.rssm.dist(prior).entropy())
        metrics["post_ent"] = tf.reduce_mean(self.rssm.dist(post).entropy())
        metrics |= latent_usage(post)
        return WorldModelLoss(loss, post, prior, embed, feat, kl, likes, metrics)

    def learn(
        self,
        data: Mapping[str, tf.Tensor],
        state: State,
        draws: Draws | Modes,
        optimizer: Optimizer,
        agent_steps: tf.Tensor | int = 0,
    ) -> tuple[WorldModelLoss, Minimized]:
        """One step of `optimizer` on the loss of preprocessed rows; see `loss`."""
        self.encoder.update_stats(data)
        self.decoder.update_bounds(data)
        with tf.GradientTape() as tape:
            model = self.loss(data, state, draws, agent_steps)
        return model, optimizer.minimize(model.loss, tape, "model")

    def predictions(self, feat: tf.Tensor) -> dict:
        """The distribution of each predicted key; `grad_heads` pass gradients to `feat`."""
        result: dict[str, Any] = {}
        modules: dict[str, Any] = {"decoder": self.decoder, **self.heads}
        for name, head in modules.items():
            inputs = feat if name in self._config.grad_heads else tf.stop_gradient(feat)
            dist = head(inputs)
            result |= dist if isinstance(dist, dict) else {name: dist}
        return result

    def imagine(
        self,
        actor: MLP,
        start: State,
        is_terminal: tf.Tensor,
        horizon: int,
        draws: Draws | Modes,
    ) -> Imagined:
        """Rolls the actor out in latent space from every state of `start`.

            t          0       1       2    ...   H
            state      z0      z1      z2         zH       z0 is the start
            action     0       a0      a1         a_{H-1}  a_t ~ actor(sg(feat_t)) leads to z_{t+1}
            discount   d0      d1      d2         dH       d0 is the true one where it is predicted
            weight     1       d0      d0 d1

        Args:
            actor: features `[N, F]` to an action distribution.
            start: `[B, T, ...]`, drawn (`stoch` is one-hot); is_terminal: `[B, T]`.

        Returns:
            The state, `feat`, `action`, `discount` and `weight`, time-major `[H+1, N, ...]`.
        """
        state = {k: tf.reshape(v, [-1, *v.shape[2:]]) for k, v in start.items()}
        weights = self.rssm.weights()

        def step(last, seed):
            fresh = Draws(seed) if draws.random else draws
            here = self.imagined(last)
            dist = here.evaluate(actor, tf.stop_gradient(here["feat"]), fresh)
            action = dists.sample(dist, fresh)
            state = self.rssm.img_step(here, action, fresh, weights)
            return self._with_feat(state) | {"action": action}, here.outputs

        if self._config.jit:
            step = tf.function(step, autograph=False)  # traced once instead of H times
        steps, outputs = [self._with_feat(state)], []
        for _ in range(horizon):
            last = {k: v for k, v in steps[-1].items() if k != "action"}
            following, given = step(last, draws.seed() if draws.random else None)
            steps.append(following)
            outputs.append(given)
        steps[0]["action"] = tf.zeros_like(steps[1]["action"])
        stacked = {k: tf.stack([step[k] for step in steps]) for k in steps[0]}
        seq = self.imagined(stacked, actor, outputs)
        seq["discount"] = self._discount(seq, is_terminal)
        seq["weight"] = discount_weights(seq["discount"])
        return seq

    def _with_feat(self, state: State) -> State:
        return state | {"feat": self.feat(state)} | columns(state)

    def _discount(self, seq: Imagined, is_terminal: tf.Tensor) -> tf.Tensor:
        constant = tf.constant(self._config.discount, tf.float32)
        if "discount" not in self.heads:
            return tf.fill(tf.shape(seq["feat"])[:2], constant)
        true_first = constant * (1 - tf.cast(tf.reshape(is_terminal, [-1]), tf.float32))
        predicted = seq.evaluate(self.heads["discount"], seq["feat"]).mean()
        return tf.concat([true_first[None], predicted[1:]], 0)

    def reward(self, feat: tf.Tensor) -> tf.Tensor:
        """The most likely reward on arrival at `feat` `[..., F]`, float32 `[...]`."""
        return self.heads["reward"](feat).mode()

    def imagined_reward(self, seq: Imagined) -> tf.Tensor:
        """`reward` at all states of a sequence, `[H+1, N]`."""
        return seq.evaluate(self.heads["reward"], seq["feat"]).mode()

    def open_loop(
        self, data: Mapping[str, tf.Tensor], key: str, context: int, draws: Draws | Modes
    ) -> tf.Tensor:
        """Reconstruction for `context` rows, then prediction from the actions alone.

        Args:
            data: preprocessed rows `[B, T, ...]`. key: an image key of the decoder.

        Returns:
            Images in [0, 1], float32 `[B, T, H, W, C]`; may leave the range where the model does.
        """
        observed = {k: v[:, :context] for k, v in data.items()}
        embed = self.encoder(observed)
        post, _ = self.rssm.observe(embed, observed["action"], observed["is_first"], None, draws)
        states = [post]
        if data["action"].shape[1] > context:
            last = {k: v[:, -1] for k, v in post.items()}
            states.append(self.rssm.imagine(data["action"][:, context:], last, draws))
        images = [self.decoder(self.feat(state))[key].mode() for state in states]
        return tf.concat(images, 1) + 0.5


def latent_usage(post: State) -> dict[str, tf.Tensor]:
    """How much of a discrete latent one batch uses; empty for Gaussian latents.

    `latent_used_fraction`: share of the K x C cells that were drawn at least once.
    `latent_entropy_bits`: entropy of a variable's class frequencies, mean over variables.
    """
    if "logit" not in post:
        return {}
    stoch = tf.stop_gradient(post["stoch"])
    frequency = tf.reduce_mean(tf.round(stoch), [0, 1])  # [K, C]
    entropy = -tf.reduce_sum(tf.math.xlogy(frequency, frequency), -1) / np.log(2)
    return {
        "latent_used_fraction": tf.reduce_mean(tf.cast(frequency > 0, tf.float32)),
        "latent_entropy_bits": tf.reduce_mean(entropy),
    }
