"""Sums of rows are products with one-hot rows, in value and in gradient."""

import numpy as np
import pytest
import tensorflow as tf

from common.nn import onehot
from common.nn.layers import Dense
from common.nn.onehot import Rows

RNG = np.random.default_rng(0)
VARIABLES, CLASSES, REST = 3, 4, 5


def rows(lead):
    """One-hot variables and other numbers side by side, and the same taken apart."""
    stoch = np.eye(CLASSES, dtype=np.float32)[RNG.integers(0, CLASSES, [*lead, VARIABLES])]
    rest = RNG.normal(size=[*lead, REST]).astype(np.float32)
    x = np.concatenate([stoch.reshape([*lead, -1]), rest], -1)
    return tf.constant(x), Rows(onehot.columns_of(tf.constant(stoch)), tf.constant(rest))


def test_columns_are_where_the_flat_rows_are_one():
    x, taken = rows([6])
    ones = np.argwhere(x.numpy()[:, : VARIABLES * CLASSES] == 1)[:, 1].reshape(6, VARIABLES)
    np.testing.assert_array_equal(taken.columns, ones)


@pytest.mark.parametrize("dtype, tolerance", [(tf.float32, 1e-6), (tf.bfloat16, 0.02)])
def test_a_selected_layer_gives_and_learns_what_the_product_does(dtype, tolerance):
    layer = Dense(VARIABLES * CLASSES + REST, 7, dtype, RNG)
    layer.bias.assign(RNG.normal(size=7))
    x, taken = rows([6])
    upstream = tf.constant(RNG.normal(size=[6, 7]), dtype)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        product, selected = layer(x), layer.select(x, taken)
        losses = [tf.reduce_sum(out * upstream) for out in (product, selected)]
    assert selected.dtype == dtype
    values = (tf.cast(out, tf.float32) for out in (selected, product))
    np.testing.assert_allclose(*values, rtol=tolerance, atol=tolerance)
    expected, found = (tape.gradient(loss, [x, layer.kernel, layer.bias]) for loss in losses)
    for a, b in zip(found, expected, strict=True):
        assert np.any(b)
        np.testing.assert_array_equal(a, b)


def test_rows_without_other_numbers():
    layer = Dense(VARIABLES * CLASSES, 7, tf.float32, RNG)
    x, taken = rows([6])
    x, taken = x[:, : VARIABLES * CLASSES], taken._replace(others=taken.others[:, :0])
    np.testing.assert_allclose(layer.select(x, taken), layer(x), rtol=1e-6)
