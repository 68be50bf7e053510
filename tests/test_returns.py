"""Value maths against brute force and arithmetic by hand."""

import numpy as np
import pytest
import tensorflow as tf

from common.nn.returns import discount_weights, lambda_return
from common.nn.schedule import parse_schedule, schedule


def n_step_return(reward, value, discount, start, n):
    """`n` rewards from `start` on and the value after them, each discounted by all before it."""
    total, weight = 0.0, 1.0
    for t in range(start, start + n):
        total = total + weight * reward[t]
        weight = weight * discount[t]
    return total + weight * value[start + n]


def lambda_return_by_definition(reward, value, discount, lambda_):
    """The mixture of all n-step returns, O(T^2); `value` has one row more than `reward`."""
    steps = len(reward)
    result = np.zeros_like(reward)
    for t in range(steps):
        longest = steps - t
        for n in range(1, longest):
            weight = (1 - lambda_) * lambda_ ** (n - 1)
            result[t] += weight * n_step_return(reward, value, discount, t, n)
        rest = lambda_ ** (longest - 1)
        result[t] += rest * n_step_return(reward, value, discount, t, longest)
    return result


def random_sequence(steps=7, count=3):
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, steps + 1, count))
    discount = rng.uniform(0.3, 1, (steps + 1, count))
    discount[3, 1] = 0  # an episode that ends on the way
    return reward[:-1], value, discount[:-1]


def ours(reward, value, discount, lambda_):
    inputs = (tf.constant(x, tf.float32) for x in (reward, value[:-1], discount, value[-1]))
    return lambda_return(*inputs, lambda_)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 0.95, 1.0])
def test_lambda_returns_are_the_mixture_of_all_n_step_returns(lambda_):
    sequence = random_sequence()
    expected = lambda_return_by_definition(*sequence, lambda_)
    np.testing.assert_allclose(ours(*sequence, lambda_), expected, atol=1e-5)


def test_lambda_0_looks_one_step_ahead_and_1_to_the_end():
    reward, value, discount = random_sequence()
    np.testing.assert_allclose(
        ours(reward, value, discount, 0.0), reward + discount * value[1:], atol=1e-6
    )
    changed = np.concatenate([value[:-1] + 5, value[-1:]])
    full = ours(reward, value, discount, 1.0)
    np.testing.assert_allclose(ours(reward, changed, discount, 1.0), full, atol=1e-6)


def test_lambda_return_of_a_sequence_of_one_step_is_the_bootstrapped_reward():
    result = ours(np.array([[2.0]]), np.array([[9.0], [4.0]]), np.array([[0.5]]), 0.95)
    np.testing.assert_allclose(result, [[2 + 0.5 * 4]])


def test_lambda_return_passes_gradients_to_all_its_inputs():
    reward, value, discount = (tf.constant(x, tf.float32) for x in random_sequence())
    with tf.GradientTape() as tape:
        tape.watch([reward, value, discount])
        first = tf.reduce_sum(lambda_return(reward, value[:-1], discount, value[-1], 0.9)[0])
    grad_reward, grad_value, grad_discount = tape.gradient(first, [reward, value, discount])
    weights = np.cumprod(0.9 * discount.numpy(), 0)[:-1]
    np.testing.assert_allclose(grad_reward, np.concatenate([[[1, 1, 1]], weights]), rtol=1e-5)
    assert (grad_value[0].numpy() == 0).all(), "the value at the start is no part of its return"
    assert (grad_value.numpy()[1:4] != 0).all() and (grad_value.numpy()[1:, 0] != 0).all()
    assert (grad_discount.numpy()[:3] != 0).all()


def test_weights_are_the_probability_that_a_step_is_reached():
    discount = tf.constant([[0.5, 1.0], [0.25, 0.0], [0.9, 0.7], [0.1, 0.1]])
    expected = [[1, 1], [0.5, 1], [0.125, 0], [0.1125, 0]]
    np.testing.assert_allclose(discount_weights(discount), expected)


@pytest.mark.parametrize(
    "text, values",
    [
        (0.3, {0: 0.3, 10**9: 0.3}),
        ("2e-3", {0: 0.002, 7: 0.002}),
        ("linear(1,3,100)", {0: 1, 25: 1.5, 100: 3, 1000: 3}),
        ("linear(3, -1, 4)", {1: 2, 3: 0, 5: -1}),
        ("warmup(1e3,0.5)", {0: 0, 500: 0.25, 1000: 0.5, 2000: 0.5}),
        ("exp(1,0.2,10)", {0: 1, 10: 0.6, 20: 0.4, 10_000: 0.2}),
        ("horizon(10,100,90)", {0: 0.9, 40: 0.98, 90: 0.99, 500: 0.99}),
    ],
)
def test_schedules_at_agent_steps(text, values):
    for step, value in values.items():
        found = schedule(text, tf.constant(step, tf.int64))
        assert found.dtype == tf.float32
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-7, err_msg=str(step))


def test_a_schedule_in_a_graph_follows_the_step():
    graph = tf.function(lambda step: schedule("linear(0,1,10)", step))
    found = [float(graph(tf.constant(step, tf.int64))) for step in (0, 5, 20)]
    np.testing.assert_allclose(found, [0, 0.5, 1])


@pytest.mark.parametrize(
    "text",
    [
        "linear(1,2)",
        "linear(1,2,3,4)",
        "cosine(1,2,3)",
        "linear(a,b,c)",
        "",
        None,
        "1 2",
        "nan",
        "exp(1,2,0)",
        "linear(1,inf,5)",
    ],
)
def test_what_is_no_schedule_is_refused_with_what_is_accepted(text):
    with pytest.raises(ValueError, match="linear\\(a,b,n\\)") as error:
        parse_schedule(text)
    assert repr(text) in str(error.value)
