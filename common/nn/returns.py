"""Value maths: pure functions on time-major tensors, unreduced."""

import tensorflow as tf


def lambda_return(
    reward: tf.Tensor,
    value: tf.Tensor,
    discount: tf.Tensor,
    bootstrap: tf.Tensor,
    lambda_: float,
) -> tf.Tensor:
    """λ-returns of imagined sequences (arXiv 2010.02193, equation 4).

        R[t] = reward[t] + discount[t] * ((1 - λ) * value[t+1] + λ * R[t+1])
        value[T] = R[T] = bootstrap

    λ = 0 gives one-step targets, λ = 1 the discounted sum of rewards plus the bootstrap.

    Args:
        reward, value, discount: `[T, N]`, float32, aligned: `discount[t]` belongs to the step from
            t to t+1 and already holds the discount factor.
        bootstrap: `[N]`, the value after the last step.
        lambda_: mixing weight in [0, 1].

    Returns:
        `[T, N]`. Gradients flow through every argument.
    """
    next_value = tf.concat([value[1:], bootstrap[None]], 0)
    inputs = reward + discount * (1 - lambda_) * next_value
    returns = [bootstrap]
    for step_input, step_discount in zip(
        reversed(tf.unstack(inputs)), reversed(tf.unstack(discount)), strict=True
    ):
        returns.append(step_input + step_discount * lambda_ * returns[-1])
    return tf.stack(returns[:0:-1])


def discount_weights(discount: tf.Tensor) -> tf.Tensor:
    """How likely each imagined step is to be reached: `cumprod([1, discount[:-1]])`, `[T, N]`."""
    return tf.math.cumprod(tf.concat([tf.ones_like(discount[:1]), discount[:-1]], 0), 0)
