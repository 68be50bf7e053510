"""A recurrence over time whose gradient is cheap: weight gradients are one product over all steps.

Differentiating a loop by itself multiplies activations and gradients of every step and adds up the
results, each as large as the weights. Here the backward loop only collects the two factors; one
matrix product over all rows then gives the same sum. Both loops are loops of the graph, traced
once. Of what is inside of a step, the forward loop keeps what the layers gave; the backward one
computes the cheap rest again.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from common.nn.bias import add_bias, sum_rows

Tensors = dict[str, tf.Tensor]
Layers = dict[str, tuple[tf.Tensor, ...]]  # kernel [in, out], and bias [out] if there is one


def linear(layers: Layers, name: str, x: tf.Tensor) -> tf.Tensor:
    """`x @ kernel (+ bias)` for rows `[N, in]`."""
    kernel, *bias = layers[name]
    out = tf.matmul(x, kernel)
    return add_bias(out, *bias) if bias else out


def scan(
    step: Callable[..., Tensors],
    state: Tensors,
    inputs: Tensors,
    constants: Tensors,
    layers: Layers,
    vectors: Any,
) -> Tensors:
    """Applies `step` to one time step after the other and stacks what it returns.

    Args:
        step: `step(apply, state, inputs, constants, vectors)` returns tensors by name, the next
            state among them, from the values of one time step. `apply(name, x)` applies a layer,
            each once per step. Apart from these arguments `step` uses no weights.
        state: the state before the first step, `[B, ...]`.
        inputs: `[T, B, ...]`, differentiated.
        constants: `[T, B, ...]`, not differentiated.
        layers, vectors: weights; vectors, of any structure, are the small ones, such as a norm's.

    Returns:
        What `step` returns, `[T, ...]`; differentiable in all arguments but `constants`.
    """
    arguments = (state, inputs, constants, layers, vectors)
    names: list[str] = []

    @tf.custom_gradient
    def run(*flat):
        packed = tf.nest.pack_sequence_as(arguments, flat)
        outputs, given = _forward(step, *packed)
        names.extend(outputs)

        def grad(*upstream):
            given_back = dict(zip(outputs, upstream, strict=True))
            return tf.nest.flatten(_backward(step, outputs, given, given_back, *packed))

        return list(outputs.values()), grad

    values = run(*tf.nest.flatten(arguments))
    return dict(zip(names, values, strict=True))


def _forward(step, state, inputs, constants, layers, vectors) -> tuple[Tensors, Tensors]:
    """What `step` returns and what the layers gave, each `[T, ...]`."""
    steps, arrays, fixed = _length(inputs), _unstack(inputs), _unstack(constants)

    def compute(t, state):
        given = {}

        def apply(name, x):
            given[name] = linear(layers, name, x)
            return given[name]

        return step(apply, state, _read(arrays, t), _read(fixed, t), vectors), given

    def body(t, state, stacked):
        results = compute(t, state)
        stacked = tf.nest.map_structure(lambda array, x: array.write(t, x), stacked, results)
        return t + 1, {k: results[0][k] for k in state}, stacked

    first = compute(0, state)  # apart, because it says what the outputs are
    stacked = tf.nest.map_structure(lambda x: tf.TensorArray(x.dtype, steps).write(0, x), first)
    state = {k: first[0][k] for k in state}
    *_, stacked = tf.while_loop(lambda t, *_: t < steps, body, (1, state, stacked))
    return tf.nest.map_structure(lambda array: array.stack(), stacked)


def _backward(step, outputs, given, upstream, state, inputs, constants, layers, vectors):
    """Gradients in the structure of the arguments of `scan`; zeros for the constants."""
    steps, arrays, fixed = _length(inputs), _unstack(inputs), _unstack(constants)
    before = _unstack({k: tf.concat([v[None], outputs[k][:-1]], 0) for k, v in state.items()})
    after, given = _unstack(upstream), _unstack(given)
    first = next(iter(state.values()))
    rows = first.shape[0] or tf.shape(first)[0]

    def body(t, carry, summed, collected):
        here, arrived, used = _read(before, t), _read(arrays, t), {}
        taps = {
            name: tf.zeros([rows, kernel.shape[1]], kernel.dtype)
            for name, (kernel, *_) in layers.items()
        }

        def apply(name, x):
            used[name] = x
            return _known(x, taps[name], layers[name][0], given[name].read(t))

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            sources = (here, arrived, taps, vectors)
            tape.watch(sources)
            new = step(apply, here, arrived, _read(fixed, t), vectors)
        pulled = {k: after[k].read(t) for k in new}
        pulled |= {k: pulled[k] + carry[k] for k in carry}
        grads = tape.gradient(new, sources, pulled, tf.UnconnectedGradients.ZERO)
        carry, arrived, taps, small = grads
        found = {"inputs": arrived, "taps": taps, "used": used}
        collected = tf.nest.map_structure(lambda array, x: array.write(t, x), collected, found)
        return t - 1, carry, tf.nest.map_structure(tf.add, summed, small), collected

    collected = {
        "inputs": {k: tf.TensorArray(v.dtype, steps) for k, v in inputs.items()},
        "taps": {k: tf.TensorArray(kernel.dtype, steps) for k, (kernel, *_) in layers.items()},
        "used": {k: tf.TensorArray(kernel.dtype, steps) for k, (kernel, *_) in layers.items()},
    }
    start = tf.nest.map_structure(tf.zeros_like, (state, vectors))
    loop = (steps - 1, *start, collected)
    _, carry, summed, collected = tf.while_loop(lambda t, *_: t >= 0, body, loop)
    grads = {k: array.stack() for k, array in collected["inputs"].items()}
    products = {}
    for name, weights in layers.items():
        used, tap = (
            tf.reshape(collected[part][name].stack(), [steps * rows, size])
            for part, size in zip(("used", "taps"), weights[0].shape, strict=True)
        )
        both = (tf.matmul(used, tap, transpose_a=True), sum_rows(tap))
        products[name] = both[: len(weights)]
    return carry, grads, {k: tf.zeros_like(v) for k, v in constants.items()}, products, summed


@tf.custom_gradient
def _known(x, tap, kernel, out):
    """`out`, which the layer gave for `x`; the gradient of `tap` is that of `out`."""

    def grad(upstream):
        return tf.matmul(upstream, kernel, transpose_b=True), upstream, None, None

    return tf.identity(out), grad


def _length(tensors: Tensors) -> int | tf.Tensor:
    """T, static where it is known."""
    first = next(iter(tensors.values()))
    return tf.shape(first)[0] if first.shape[0] is None else first.shape[0]


def _unstack(tensors: Tensors) -> dict[str, tf.TensorArray]:
    return {k: tf.TensorArray(v.dtype, _length({k: v})).unstack(v) for k, v in tensors.items()}


def _read(arrays: dict[str, tf.TensorArray], t) -> Tensors:
    return {k: array.read(t) for k, array in arrays.items()}
