"""Numbers that change with the agent step: how they are written, and what they are.

linear(a,b,n)   from a to b over n steps, then b
warmup(n,a)     from 0 to a over n steps, then a
exp(a,b,h)      from a to b with half-life h
horizon(a,b,n)  1 - 1/linear(a,b,n): a discount factor for a horizon that grows
"""

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

# TensorFlow takes seconds to import, and a configuration is checked without it.

ACCEPTED = "linear(a,b,n), warmup(n,a), exp(a,b,h) or horizon(a,b,n)"
_CALL = re.compile(r"\s*(\w+)\s*\(([^()]*)\)\s*")
# Name: (how many numbers, which of them is the duration)
_ARGUMENTS = {"linear": (3, 2), "warmup": (2, 0), "exp": (3, 2), "horizon": (3, 2)}


def parse_schedule(value: float | str) -> tuple[str, tuple[float, ...]]:
    """Splits a schedule into its name and arguments; a number becomes `('constant', (number,))`.

    Raises:
        ValueError: neither a finite number nor a schedule of such with a positive duration, and of
            `horizon` with positive horizons.
    """
    arguments: tuple[float, ...]
    try:
        match = _CALL.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            name, arguments = "constant", (float(value),)
        else:
            name, arguments = match[1], tuple(map(float, match[2].split(",")))
            count, duration = _ARGUMENTS[name]
            positive = arguments if name == "horizon" else arguments[duration : duration + 1]
            if len(arguments) != count or min(positive) <= 0:
                raise ValueError
        if not all(map(math.isfinite, arguments)):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"schedule {value!r}: expected a number, {ACCEPTED}") from None
    return name, arguments


def ends(value: float | str) -> tuple[float, float]:
    """The values of a schedule at step 0 and after its duration; all others lie between them."""
    name, arguments = parse_schedule(value)
    if name == "constant":
        return arguments[0], arguments[0]
    if name == "warmup":
        return 0.0, arguments[1]
    first, last = arguments[:2]
    return (1 - 1 / first, 1 - 1 / last) if name == "horizon" else (first, last)


def schedule(value: float | str, agent_steps: "tf.Tensor") -> "tf.Tensor":
    """The value of a schedule at an agent step, float32 scalar."""
    import tensorflow as tf

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
