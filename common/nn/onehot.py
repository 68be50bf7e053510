"""Products with one-hot rows, which only have to look up rows of the kernel and add them.

A latent state is 32 ones among 1024 numbers: of a dense product, 31 of 32 multiplications are by
zero. On a CPU the sum takes a seventh of the product's time (docs/performance.md).

Shape letters: N rows, K variables, C classes, R other numbers, U units.
"""

from typing import NamedTuple

import tensorflow as tf


class Rows(NamedTuple):
    """What rows `[..., K*C + R]` hold: K one-hot variables, then R other numbers."""

    columns: tf.Tensor  # int32 [..., K], where the rows are one
    others: tf.Tensor  # [..., R]

    def flat(self) -> "Rows":
        """With all leading axes made one."""
        return Rows(*(tf.reshape(x, [-1, x.shape[-1]]) for x in self))


def columns_of(onehot: tf.Tensor) -> tf.Tensor:
    """Where `[..., K, C]`, flattened to `[..., K*C]`, is one: int32 `[..., K]`."""
    variables, classes = onehot.shape[-2:]
    return tf.argmax(onehot, -1, tf.int32) + tf.range(variables) * classes


def multiply(rows: Rows, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """`x @ kernel + bias` for the `x` that `rows` `[N, ...]` describe, in the kernel's dtype.

    Without a gradient: that of the product is `Dense.replay`'s.
    """
    split = kernel.shape[0] - rows.others.shape[-1]
    out = tf.matmul(tf.cast(rows.others, kernel.dtype), kernel[split:])
    return _add_rows(out, kernel[:split], rows.columns, bias)


@tf.function(autograph=False, jit_compile=True)
def _add_rows(out, kernel, columns, bias):
    """Summed in float32; XLA makes one loop of it, and stores nothing of the size `[N, K, U]`."""
    rows = tf.cast(tf.gather(kernel, columns), tf.float32)
    total = tf.cast(out, tf.float32) + tf.reduce_sum(rows, 1) + bias
    return tf.cast(total, out.dtype)
