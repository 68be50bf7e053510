"""Where random numbers come from.

Every function that draws takes a `draws` argument: `Draws(seed)` for random numbers, `Modes()` for
the mode of each distribution instead (evaluation against golden numbers, exact tests). There is
no default and no global switch, so that modes cannot be left on by accident.
"""

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf


class Draws:
    """Counter-based random numbers: a pure function of the seed and of the order of the calls.

    XLA draws other floats from a seed than TensorFlow does.

    Args:
        seed: int32 or int64 tensor or pair `[2]`, e.g. (run seed, update number).
    """

    random: Literal[True] = True

    def __init__(self, seed):
        self._seed = tf.cast(tf.convert_to_tensor(seed), tf.int64)
        self._calls = 0

    def seed(self) -> tf.Tensor:
        """A fresh stateless seed `[2]`, for samplers of other libraries."""
        self._calls += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._calls)

    def uniform(self, shape: Sequence[int]) -> tf.Tensor:
        """Uniform noise in [0, 1), float32."""
        return tf.random.stateless_uniform(shape, self.seed())

    def normal(self, shape: Sequence[int]) -> tf.Tensor:
        """Standard normal noise, float32."""
        return tf.random.stateless_normal(shape, self.seed())

    def index(self, shape: Sequence[int], limit: int) -> tf.Tensor:
        """Uniform int32 in `[0, limit)`."""
        return tf.random.stateless_uniform(shape, self.seed(), 0, limit, tf.int32)


class Modes:
    """No randomness: noise is zero, an index is 0, a sample is the mode."""

    random: Literal[False] = False

    def normal(self, shape: Sequence[int]) -> tf.Tensor:
        return tf.zeros(shape)

    def index(self, shape: Sequence[int], limit: int) -> tf.Tensor:
        return tf.zeros(shape, tf.int32)
