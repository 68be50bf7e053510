"""Value maths: pure functions on time-major tensors, unreduced."""

import re

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


_SCHEDULE = re.compile(r"\s*(\w+)\s*\(([^()]*)\)\s*")
_ARGUMENTS = {"linear": 3, "warmup": 2, "exp": 3, "horizon": 3}


def parse_schedule(value: float | str) -> tuple[str, tuple[float, ...]]:
    """Splits a schedule into its name and arguments; a number becomes `('constant', (number,))`.

    Raises:
        ValueError: neither a number nor one of linear(a,b,n), warmup(n,a), exp(a,b,h),
            horizon(a,b,n).
    """
    try:
        return "constant", (float(value),)
    except (TypeError, ValueError):
        pass
    match = _SCHEDULE.fullmatch(value) if isinstance(value, str) else None
    try:
        name, arguments = match.group(1), tuple(float(x) for x in match.group(2).split(","))
        if _ARGUMENTS[name] == len(arguments):
            return name, arguments
    except (AttributeError, KeyError, ValueError):
        pass
    raise ValueError(
        f"schedule {value!r}: expected a number, linear(a,b,n), warmup(n,a), exp(a,b,h) or "
        "horizon(a,b,n)"
    )


def schedule(value: float | str, agent_steps: tf.Tensor) -> tf.Tensor:
    """The value of a schedule at an agent step, float32 scalar.

    `linear(a,b,n)` goes from a to b over n steps and stays there; `warmup(n,a)` rises from 0 to a;
    `exp(a,b,h)` decays from a to b with half-life h; `horizon(a,b,n)` is `1 - 1/linear(a,b,n)`, a
    discount for a horizon that grows.
    """
    name, arguments = parse_schedule(value)
    step = tf.cast(agent_steps, tf.float32)
    if name == "constant":
        return tf.constant(arguments[0], tf.float32)
    if name == "warmup":
        duration, final = arguments
        return final * tf.clip_by_value(step / duration, 0.0, 1.0)
    if name == "exp":
        initial, final, halflife = arguments
        return (initial - final) * 0.5 ** (step / halflife) + final
    initial, final, duration = arguments
    mix = tf.clip_by_value(step / duration, 0.0, 1.0)
    linear = (1 - mix) * initial + mix * final
    return linear if name == "linear" else 1 - 1 / linear
