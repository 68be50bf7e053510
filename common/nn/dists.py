"""Distributions: TensorFlow Probability's, plus those that the agent needs differently.

All parameters are float32. What is drawn takes its randomness from `draws` alone, so that `Modes`
replaces every draw.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from common.device import on_gpu
from common.nn.draws import Draws, Modes

tfd = tfp.distributions


class OneHot:
    """Independent one-hot categorical variables over the last axis, straight-through gradients.

    Args:
        logits: float32 `[..., C]`; `event_dims` of the leading axes are part of one event, as the
            K variables of a latent state `[..., K, C]` are.
    """

    def __init__(self, logits: tf.Tensor, event_dims: int = 0):
        self.logits = tf.cast(logits, tf.float32)
        self._axes = list(range(-event_dims, 0))

    @property
    def probs(self) -> tf.Tensor:
        return tf.nn.softmax(self.logits)

    def _sum(self, x):
        return tf.reduce_sum(x, self._axes) if self._axes else x

    def sample_with(self, uniform: tf.Tensor | None) -> tf.Tensor:
        """One-hot; its gradient is that of the probabilities (arXiv 2010.02193, algorithm 1).

        Args:
            uniform: `[...]` in [0, 1), one number per variable: the class is the one whose share of
                the unit interval it falls into. None: the mode.
        """
        classes, probs = self.logits.shape[-1], self.probs
        if uniform is None:
            chosen = tf.argmax(self.logits, -1, tf.int32)
        else:
            ends = _cumulative_sum(probs)
            passed = ends <= uniform[..., None] * ends[..., -1:]
            chosen = tf.reduce_sum(tf.cast(passed, tf.int32), -1)
        return _straight_through(tf.one_hot(chosen, classes, dtype=tf.float32), probs)

    def mode(self) -> tf.Tensor:
        return self.sample_with(None)

    def log_prob(self, onehot: tf.Tensor) -> tf.Tensor:
        """No gradient reaches `onehot`, as in TensorFlow Probability."""
        onehot = tf.stop_gradient(onehot)
        return self._sum(tf.reduce_sum(tf.nn.log_softmax(self.logits) * onehot, -1))

    def entropy(self) -> tf.Tensor:
        log_probs = tf.nn.log_softmax(self.logits)
        return -self._sum(tf.reduce_sum(tf.exp(log_probs) * log_probs, -1))

    def kl(self, other: "OneHot") -> tf.Tensor:
        log_probs = tf.nn.log_softmax(self.logits)
        difference = log_probs - tf.nn.log_softmax(other.logits)
        return self._sum(tf.reduce_sum(tf.exp(log_probs) * difference, -1))


def _cumulative_sum(x: tf.Tensor) -> tf.Tensor:
    """Over the last axis; on a CPU a product with a triangle is six times as fast as a scan.

    A GPU might round the factors of the product to TF32.
    """
    if on_gpu():
        return tf.cumsum(x, -1)
    classes = x.shape[-1]
    triangle = np.triu(np.ones([classes, classes], np.float32))
    return tf.reshape(tf.matmul(tf.reshape(x, [-1, classes]), triangle), tf.shape(x))


@tf.custom_gradient
def _straight_through(onehot: tf.Tensor, probs: tf.Tensor):
    """`onehot`, whose gradient goes to `probs`."""
    return tf.identity(onehot), lambda upstream: (None, upstream)


class Gaussian:
    """A diagonal normal over the last axis, `[..., S]`."""

    def __init__(self, mean: tf.Tensor, std: tf.Tensor):
        self.mean = tf.cast(mean, tf.float32)
        self.std = tf.cast(std, tf.float32)
        self._dist = tfd.Independent(tfd.Normal(self.mean, self.std), 1)

    def sample_with(self, normal: tf.Tensor | None) -> tf.Tensor:
        return self.mean if normal is None else self.mean + self.std * normal

    def mode(self) -> tf.Tensor:
        return self.mean

    def log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return self._dist.log_prob(x)

    def entropy(self) -> tf.Tensor:
        return self._dist.entropy()

    def kl(self, other: "Gaussian") -> tf.Tensor:
        return tfd.kl_divergence(self._dist, other._dist)


class ClippedTruncatedNormal:
    """A normal truncated to [-1, 1] whose sample is clipped by `margin`, straight-through.

    The clip keeps the log-probability of a sample finite; its gradient is that of the sample. Where
    a parameter is not finite the sample is NaN.
    """

    def __init__(self, mean: tf.Tensor, std: tf.Tensor, margin: float = 1e-6):
        self._dist = tfd.Independent(tfd.TruncatedNormal(mean, std, -1.0, 1.0), 1)
        self._loc, self._std = mean, std
        self._margin = margin

    def _clip(self, event):
        clipped = tf.clip_by_value(event, -1 + self._margin, 1 - self._margin)
        return event + tf.stop_gradient(clipped - event)

    def sample(self, seed: tf.Tensor) -> tf.Tensor:
        # TensorFlow's sampler raises for a NaN, in the middle of an update that could be skipped.
        finite = tf.math.is_finite(self._loc) & tf.math.is_finite(self._std)
        loc = tf.where(finite, self._loc, 0.0)
        std = tf.where(finite, self._std, 1.0)
        event = tfd.TruncatedNormal(loc, std, -1.0, 1.0).sample(seed=seed)
        return self._clip(tf.where(finite, event, np.nan))

    def mode(self) -> tf.Tensor:
        return self._clip(self._loc)

    def log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return self._dist.log_prob(x)

    def entropy(self) -> tf.Tensor:
        return self._dist.entropy()


class Uniform:
    """Uniform over [-1, 1] in each of the last axis's numbers; the mode is taken to be the middle.

    Args:
        shape: of a sample.
    """

    def __init__(self, shape: Sequence[int]):
        self._shape = shape

    def sample(self, seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform(self._shape, seed, -1.0, 1.0)

    def mode(self) -> tf.Tensor:
        return tf.zeros(self._shape)


class TanhNormal:
    """A normal squashed by tanh; mode and entropy have no closed form and are estimated.

    Args:
        samples: how many draws the estimates use.
    """

    def __init__(self, mean: tf.Tensor, std: tf.Tensor, draws: Draws | Modes, samples: int = 100):
        self._mean, self._std, self._draws, self._samples = mean, std, draws, samples

    def _log_prob_before_tanh(self, x):
        log_det = 2.0 * (tf.math.log(2.0) - x - tf.nn.softplus(-2.0 * x))
        return tf.reduce_sum(tfd.Normal(self._mean, self._std).log_prob(x) - log_det, -1)

    def _many(self):
        noise = self._draws.normal(tf.concat([[self._samples], tf.shape(self._mean)], 0))
        return self._mean + self._std * noise

    def sample(self, seed: tf.Tensor) -> tf.Tensor:
        noise = tf.random.stateless_normal(tf.shape(self._mean), seed)
        return tf.tanh(self._mean + self._std * noise)

    def mode(self) -> tf.Tensor:
        many = self._many()
        best = tf.argmax(self._log_prob_before_tanh(many), 0)
        chosen = tf.one_hot(best, self._samples, axis=0, dtype=many.dtype)
        return tf.tanh(tf.reduce_sum(many * chosen[..., None], 0))

    def log_prob(self, x: tf.Tensor) -> tf.Tensor:
        limit = 1 - 3e-8  # the largest float32 below one
        return self._log_prob_before_tanh(tf.atanh(tf.clip_by_value(x, -limit, limit)))

    def entropy(self) -> tf.Tensor:
        return -tf.reduce_mean(self._log_prob_before_tanh(self._many()), 0)


def sample(dist, draws: Draws | Modes) -> tf.Tensor:
    """A draw from an action distribution, or its mode where `draws` is `Modes`."""
    if not draws.random:
        return dist.mode()
    if isinstance(dist, OneHot):
        return dist.sample_with(draws.uniform(tf.shape(dist.logits)[:-1]))
    return dist.sample(seed=draws.seed())


def make_dist(
    kind: str,
    out: tf.Tensor,
    std: tf.Tensor | None,
    event_dims: int,
    draws: Draws | Modes | None,
    min_std: float,
):
    """The distribution that a head's outputs `out` (and `std`) parameterise; float32.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"dist: got {kind!r}, expected one of {', '.join(KINDS)}")
    out = tf.cast(out, tf.float32)
    if kind == "mse":
        return tfd.Independent(tfd.Normal(out, 1.0), event_dims)
    if kind == "binary":
        return tfd.Independent(tfd.Bernoulli(logits=out, dtype=tf.float32), event_dims)
    if kind == "onehot":
        return OneHot(out)
    assert std is not None, f"{kind} has a std"
    std = tf.cast(std, tf.float32)
    if kind == "trunc_normal":
        return ClippedTruncatedNormal(tf.tanh(out), 2 * tf.nn.sigmoid(std / 2) + min_std)
    if kind == "normal":
        return tfd.Independent(tfd.Normal(out, tf.nn.softplus(std) + min_std), event_dims)
    assert draws is not None, f"the mode of {kind} is estimated"
    return TanhNormal(5 * tf.tanh(out / 5), tf.nn.softplus(std) + min_std, draws)


KINDS: Sequence[str] = ("mse", "binary", "onehot", "normal", "trunc_normal", "tanh_normal")
