"""The gradient of a bias, which half precision would sum wrongly."""

import numpy as np
import pytest
import tensorflow as tf

from common.nn.bias import FEW_CHANNELS, add_bias, sum_rows

DTYPES = [tf.float32, tf.float16, tf.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_result_is_that_of_tensorflow(dtype):
    x, bias = tf.cast(tf.random.normal([2, 3, 4]), dtype), tf.random.normal([4])
    assert np.array_equal(add_bias(x, bias), tf.nn.bias_add(x, tf.cast(bias, dtype)))
    assert add_bias(x, bias).dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, FEW_CHANNELS - 1, FEW_CHANNELS, 32])
def test_the_gradient_of_the_bias_is_a_float32_sum(dtype, channels):
    rng = np.random.default_rng(0)
    upstream = tf.cast(rng.uniform(0, 1, [20, 40, 40, channels]), dtype)
    x, bias = tf.zeros(upstream.shape, dtype), tf.Variable(tf.zeros(channels))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        out = add_bias(x, bias)
    to_x, to_bias = tape.gradient(out, [x, bias], upstream)
    assert np.array_equal(to_x, upstream)
    assert to_bias.dtype == tf.float32
    true = np.asarray(upstream, np.float64).sum((0, 1, 2))
    assert np.asarray(to_bias) == pytest.approx(true, rel=1e-4)


def test_sums_beyond_the_range_of_float16_stay_finite():
    terms = tf.fill([1000, 16], tf.constant(1000.0, tf.float16))
    assert np.asarray(sum_rows(terms)) == pytest.approx(1e6)


def test_the_gradient_is_the_same_in_a_graph():
    bias = tf.Variable(tf.zeros(16))

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(add_bias(x, bias), tf.float32))
        return tape.gradient(loss, bias)

    assert np.asarray(gradient(tf.zeros([4000, 16], tf.bfloat16))) == pytest.approx(4000.0)
