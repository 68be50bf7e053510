"""The recurrent state-space model (arXiv 1811.04551, with the discrete latents of 2010.02193).

Shape letters: B batch, T time, K variables, C classes, D deterministic, E embedding, A action.
A state is a dict: `stoch` `[B, K, C]` (Gaussian: `[B, S]`) and `deter` `[B, D]`, with the
statistics that `stoch` was drawn from, `logit` `[B, K, C]` (Gaussian: `mean`, `std` `[B, S]`).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from common.nn import onehot, replica
from common.nn.bias import add_bias
from common.nn.dists import Gaussian, OneHot
from common.nn.draws import Draws, Modes
from common.nn.layers import Dense, LayerNorm, Module, activation, leading, make_norm
from common.nn.scan import Layers, linear, scan
from dreamerv2.agent.precision import Precision

State = dict[str, tf.Tensor]

STD_ACTIVATIONS = {
    "softplus": tf.nn.softplus,
    "sigmoid": tf.nn.sigmoid,
    "sigmoid2": lambda x: 2 * tf.nn.sigmoid(x / 2),
}


class GRUCell(Module):
    """A GRU with one LayerNorm over the three gates, in float32, and an update bias of -1.

    reset, candidate, update = split(norm(dense([x, h])))
    c = tanh(σ(reset) * candidate),   u = σ(update - 1),   h' = u c + (1 - u) h
    """

    def __init__(self, inputs: int, size: int, dtype: tf.DType, rng: np.random.Generator):
        self.dense = Dense(inputs + size, 3 * size, dtype, rng)
        self.norm = LayerNorm(3 * size)
        self._dtype = dtype

    def step(self, apply, vectors, x: tf.Tensor, h: tf.Tensor) -> tf.Tensor:
        """One step: `apply` is the layer `gru`, `vectors` are the norm's."""
        h = tf.cast(h, self._dtype)
        gates = apply("gru", tf.concat([tf.cast(x, self._dtype), h], -1))
        reset, candidate, update = tf.split(self.norm.apply(gates, vectors), 3, -1)
        candidate = tf.tanh(tf.nn.sigmoid(reset) * candidate)
        update = tf.nn.sigmoid(update - 1)
        return update * candidate + (1 - update) * h


class RSSM(Module):
    """Prior and posterior over latent states.

    Args:
        embed_size, action_size: E and A.
        config: the `rssm` block.

    Raises:
        ValueError: an unknown activation, norm or `std_act`.
    """

    def __init__(self, embed_size: int, action_size: int, config, precision: Precision, rng):
        dtype, norm_dtype = precision.dtype("rssm"), precision.dtype("layernorm")
        self._dtype = dtype
        self._deter, self._stoch = config.deter, config.stoch
        self._classes = int(config.discrete)
        self._ensemble = config.ensemble
        self._act = activation(config.act)
        self._min_std = config.min_std
        if config.std_act not in STD_ACTIVATIONS:
            accepted = ", ".join(STD_ACTIVATIONS)
            raise ValueError(f"rssm.std_act: got {config.std_act!r}, expected one of {accepted}")
        self._std_act = STD_ACTIVATIONS[config.std_act]
        self.stoch_size = self._stoch * (self._classes or 1)
        stats_size = self._stoch * (self._classes or 2)
        self.img_in = Dense(self.stoch_size + action_size, config.hidden, dtype, rng)
        self.img_in_norm = make_norm(config.norm, config.hidden, norm_dtype)
        self.gru = GRUCell(config.hidden, self._deter, precision.dtype("rssm/gru"), rng)
        self.img: dict[str, Any] = {}
        for k in range(self._ensemble):
            self.img[f"img_out_{k}"] = Dense(self._deter, config.hidden, dtype, rng)
            self.img[f"img_out_norm_{k}"] = make_norm(config.norm, config.hidden, norm_dtype)
            self.img[f"img_dist_{k}"] = Dense(config.hidden, stats_size, dtype, rng)
        self.obs_out = Dense(self._deter + embed_size, config.hidden, dtype, rng)
        self.obs_out_norm = make_norm(config.norm, config.hidden, norm_dtype)
        self.obs_dist = Dense(config.hidden, stats_size, dtype, rng)

    # States

    @property
    def deter_size(self) -> int:
        return self._deter

    @property
    def stoch_shape(self) -> list[int]:
        return [self._stoch, self._classes] if self._classes else [self._stoch]

    def initial(self, batch: int | tf.Tensor) -> State:
        """The state before an episode: zeros."""
        names = ("logit", "stoch") if self._classes else ("mean", "std", "stoch")
        state = {name: tf.zeros([batch, *self.stoch_shape]) for name in names}
        return state | {"deter": tf.zeros([batch, self._deter], self._dtype)}

    def flat_stoch(self, state: State) -> tf.Tensor:
        """`stoch` as `[..., K*C]` in the compute dtype."""
        stoch = tf.cast(state["stoch"], self._dtype)
        if not self._classes:
            return stoch
        lead = stoch.shape.rank - 2
        return tf.reshape(stoch, tf.concat([tf.shape(stoch)[:lead], [self.stoch_size]], 0))

    def dist(self, state: State) -> Any:
        """`OneHot` or `Gaussian` from the state's statistics, over `stoch` as one event."""
        if self._classes:
            return OneHot(state["logit"], event_dims=1)
        return Gaussian(state["mean"], state["std"])

    def _stats(self, out: tf.Tensor) -> State:
        """Outputs of a statistics layer, `[..., K*C]` or `[..., 2*S]`, in float32."""
        out = tf.cast(out, tf.float32)
        if self._classes:
            return {"logit": tf.reshape(out, [*leading(out, 1), *self.stoch_shape])}
        mean, std = tf.split(out, 2, -1)
        return {"mean": mean, "std": self._std_act(std) + self._min_std}

    def _noise(self, draws: Draws | Modes, shape: Sequence) -> dict[str, tf.Tensor]:
        """What `_sample` needs for latents of leading `shape`; empty where modes are asked for."""
        if not draws.random:
            return {}
        draw = draws.uniform if self._classes else draws.normal
        return {"noise": draw([*shape, self._stoch])}

    def _sample(self, stats: State, noise: Mapping[str, tf.Tensor]) -> State:
        return {"stoch": self.dist(stats).sample_with(noise.get("noise"))}

    # The network, in the pieces that a scan needs apart. `apply(name, x)` applies a layer.

    def weights(self) -> tuple[Layers, dict]:
        """Layers and norms' vectors of the recurrent part, cast once for many steps."""
        layers = {
            "img_in": self.img_in.weights(),
            "gru": self.gru.dense.weights(),
            "obs_out": self.obs_out.weights(),
            "obs_dist": self.obs_dist.weights(),
        }
        vectors = {
            "img_in": self.img_in_norm.vectors(),
            "gru": self.gru.norm.vectors(),
            "obs_out": self.obs_out_norm.vectors(),
        }
        return layers, vectors

    def _next_deter(self, apply, vectors, img_in: tf.Tensor, deter: tf.Tensor) -> tf.Tensor:
        """The next `deter`; `img_in` is what the layer of that name gave for stoch and action."""
        x = self._act(self.img_in_norm.apply(img_in, vectors["img_in"]))
        return tf.cast(self.gru.step(apply, vectors["gru"], x, deter), self._dtype)

    def _post_stats(self, apply, vectors, obs_out: tf.Tensor) -> State:
        """`obs_out` is what the layer of that name gave for deter and embedding."""
        x = self._act(self.obs_out_norm.apply(obs_out, vectors["obs_out"]))
        return self._stats(apply("obs_dist", x))

    def _split(self, layers: Layers) -> tuple[Layers, Callable, Callable]:
        """Takes the shares of action and embedding out of the layers that need no recurrence."""
        (img_in, img_bias), (obs_out, obs_bias) = layers["img_in"], layers["obs_out"]
        stoch, action = tf.split(img_in, [self.stoch_size, img_in.shape[0] - self.stoch_size])
        deter, embed = tf.split(obs_out, [self._deter, obs_out.shape[0] - self._deter])
        recurrent = layers | {"img_in": (stoch,), "obs_out": (deter,)}
        return (
            recurrent,
            lambda x: _linear(tf.cast(x, self._dtype), action, img_bias),
            lambda x: _linear(tf.cast(x, self._dtype), embed, obs_bias),
        )

    def _prior_stats(self, deter: tf.Tensor, draws: Draws | Modes) -> State:
        """Statistics of the prior at `deter` `[..., D]`; one ensemble member per step."""
        members = []
        for k in range(self._ensemble):
            x = self._act(self.img[f"img_out_norm_{k}"](self.img[f"img_out_{k}"](deter)))
            members.append(self._stats(self.img[f"img_dist_{k}"](x)))
        if self._ensemble == 1:
            return members[0]
        steps = leading(deter, 2)[0] if deter.shape.rank == 3 else 1
        member = draws.index([steps], self._ensemble)
        chosen = tf.one_hot(member, self._ensemble)  # [T, members]
        return {key: _choose([m[key] for m in members], chosen) for key in members[0]}

    # Rollouts

    def observe(
        self,
        embed: tf.Tensor,
        action: tf.Tensor,
        is_first: tf.Tensor,
        state: State | None,
        draws: Draws | Modes,
    ) -> tuple[State, State]:
        """Posterior and prior of every step of a sequence.

            t       0      1      2      3
            embed   e0     e1     e2     e3        observation of row t
            action  a_-1   a0     a1     a2        action that led to row t
            deter   h0     h1     h2     h3        h_t = f(s_{t-1}, h_{t-1}, a_{t-1})
            post    s0     s1     s2     s3        q(s_t | h_t, e_t)
            prior   p0     p1     p2     p3        p(s_t | h_t)

        Where `is_first`, the state and the action before the row are zero, whatever they were: a
        NaN ends with its episode. Work that needs no recurrence (shares of action and embedding,
        the prior) is done for all steps at once.

        Args:
            embed: `[B, T, E]`. action: `[B, T, A]`. is_first: `[B, T]`.
            state: the posterior before row 0, zeros if None.

        Returns:
            (post, prior), each `[B, T, ...]`.
        """
        batch, steps = leading(action, 1)
        state = self.initial(batch) if state is None else state
        layers, vectors = self.weights()
        layers, action_share, embed_share = self._split(layers)
        embed, action, is_first = (_swap(x) for x in (embed, action, is_first))
        inputs = {
            "action": action_share(_unless(is_first, action)),
            "embed": embed_share(embed),
        }
        constants = {"is_first": is_first} | self._noise(draws, [steps, batch])
        state = {"stoch": state["stoch"], "deter": tf.cast(state["deter"], self._dtype)}
        post = scan(self._observe_step, state, inputs, constants, layers, vectors)
        prior = self._prior_stats(post["deter"], draws)
        prior |= self._sample(prior, self._noise(draws, [steps, batch]))
        prior["deter"] = post["deter"]
        return _swapped(post), _swapped(prior)

    def _observe_step(self, apply, state, inputs, constants, vectors) -> State:
        is_first = constants["is_first"]
        img_in = apply("img_in", _unless(is_first, self.flat_stoch(state))) + inputs["action"]
        deter = self._next_deter(apply, vectors, img_in, _unless(is_first, state["deter"]))
        stats = self._post_stats(apply, vectors, apply("obs_out", deter) + inputs["embed"])
        return stats | {"deter": deter} | self._sample(stats, constants)

    def obs_step(
        self,
        state: State,
        action: tf.Tensor,
        embed: tf.Tensor,
        is_first: tf.Tensor,
        draws: Draws | Modes,
    ) -> State:
        """The posterior after one observation: `observe` for T = 1, without the prior.

        Args:
            state: `[B, ...]`. action: `[B, A]`, the one before `embed`, `[B, E]`. is_first: `[B]`.
        """
        layers, vectors = self.weights()
        apply = functools.partial(linear, layers)
        inputs = tf.concat([self.flat_stoch(state), tf.cast(action, self._dtype)], -1)
        img_in = apply("img_in", _unless(is_first, inputs))
        deter = _unless(is_first, tf.cast(state["deter"], self._dtype))
        deter = self._next_deter(apply, vectors, img_in, deter)
        outputs = tf.concat([deter, tf.cast(embed, self._dtype)], -1)
        stats = self._post_stats(apply, vectors, apply("obs_out", outputs))
        noise = self._noise(draws, [tf.shape(embed)[0]])
        return stats | {"deter": deter} | self._sample(stats, noise)

    def img_step(
        self, state: State, action: tf.Tensor, draws: Draws | Modes, weights=None
    ) -> State:
        """The prior one step after `state` under `action`, `[B, ...]`.

        Args:
            state: may hold `columns`, which save time.
            weights: `self.weights()`, for callers that loop.
        """
        layers, vectors = self.weights() if weights is None else weights
        apply = functools.partial(linear, layers)
        inputs = tf.concat([self.flat_stoch(state), tf.cast(action, self._dtype)], -1)
        if "columns" in state:
            img_in = self.img_in.select(inputs, onehot.Rows(state["columns"], action))
        else:
            img_in = apply("img_in", inputs)
        deter = tf.cast(state["deter"], self._dtype)
        deter = self._next_deter(apply, vectors, img_in, deter)
        stats = self._prior_stats(deter, draws)
        noise = self._noise(draws, [tf.shape(action)[0]])
        return stats | {"deter": deter} | self._sample(stats, noise)

    def imagine(self, action: tf.Tensor, state: State, draws: Draws | Modes) -> State:
        """States after each of the actions `[B, T, A]`, without observations, `[B, T, ...]`."""
        states = []
        for step_action in tf.unstack(_swap(action)):
            state = self.img_step(state, step_action, draws)
            states.append(state)
        return {key: tf.stack([s[key] for s in states], 1) for key in states[0]}

    def kl_loss(
        self,
        post: State,
        prior: State,
        balance: float,
        free: float,
        forward: bool,
        free_avg: bool,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """KL with balancing (arXiv 2010.02193, equation 2 and algorithm 2).

            (1 - α) KL(post || sg(prior)) + α KL(sg(post) || prior)

        `forward` swaps the two arguments and the two weights. `free` nats are clipped from below:
        each side's mean with `free_avg`, else each element before the mean. `balance` 0.5 is one KL
        without stops.

        Returns:
            (loss, value): a scalar, and the unclipped KL of each element, `[B, T]`.
        """
        first, second = (prior, post) if forward else (post, prior)
        mix = balance if forward else 1 - balance

        def kl(a, b):
            return self.dist(a).kl(self.dist(b))

        if balance == 0.5:
            value = kl(first, second)
            return tf.reduce_mean(tf.maximum(value, free)), value

        def clipped_mean(value):
            if free_avg:
                return tf.maximum(replica.mean(tf.reduce_mean(value)), free)
            return tf.reduce_mean(tf.maximum(value, free))

        stopped = {k: tf.stop_gradient(v) for k, v in second.items()}
        value = kl(first, stopped)
        value_right = kl({k: tf.stop_gradient(v) for k, v in first.items()}, second)
        loss = mix * clipped_mean(value) + (1 - mix) * clipped_mean(value_right)
        return loss, value


def _linear(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """`x @ kernel + bias` over the last axis of `x`, of any rank."""
    flat = add_bias(tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel), bias)
    return tf.reshape(flat, tf.concat([tf.shape(x)[:-1], [flat.shape[-1]]], 0))


def _unless(is_first: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """`x` `[..., D]`, and zeros where `is_first` `[...]`.

    A product with a mask would keep a NaN, in the value and in the gradient.
    """
    return tf.where(is_first[..., None], tf.zeros_like(x), x)


def _swapped(states: State) -> State:
    return {key: _swap(x) for key, x in states.items()}


def _swap(x: tf.Tensor) -> tf.Tensor:
    """Exchanges the first two axes: batch-major to time-major and back."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


def _choose(members: list[tf.Tensor], chosen: tf.Tensor) -> tf.Tensor:
    """`members[k]` where `chosen` `[T, members]` is one; `[T, B, ...]`, or `[B, ...]` for T = 1."""
    shape = [-1, len(members)] + [1] * (members[0].shape.rank - 1)
    stacked = tf.stack(members, 1)  # [T or B, members, ...]
    return tf.reduce_sum(stacked * tf.reshape(chosen, shape), 1)
