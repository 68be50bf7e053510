"""Layers and networks, with every variable created at construction and float32.

Why not `keras.layers`: a layer here hands out its kernel in the compute dtype and in pieces, so
that a scan casts it once and multiplies the parts that need no recurrence outside of the loop.

Shape letters: B batch (any leading axes), H W C image, F features.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from common.nn import onehot
from common.nn.bias import add_bias, sum_rows


class Module:
    """Owns variables and modules and names them by attribute: `rssm/gru/dense/kernel`.

    A dict attribute holds modules or variables by key. The order of `named_variables` is that of
    the reference's module tree: own variables first, then modules sorted by name, depth first.
    """

    def named_variables(self, prefix: str = "") -> dict[str, tf.Variable]:
        """All variables below this module, by path."""
        found, modules = {}, {}
        for attribute, value in vars(self).items():
            for name, item in value.items() if isinstance(value, dict) else [(attribute, value)]:
                if isinstance(item, tf.Variable):
                    found[prefix + name] = item
                elif isinstance(item, Module):
                    modules[name] = item
        for name in sorted(modules):
            found |= modules[name].named_variables(f"{prefix}{name}/")
        return found

    @property
    def variables(self) -> list[tf.Variable]:
        return list(self.named_variables().values())


def activation(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The activation called `name`: `none`, `mish`, or any function of `tf.nn` or `tf`.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "none":
        return lambda x: x
    if name == "mish":
        return lambda x: x * tf.tanh(tf.nn.softplus(x))
    for namespace in (tf.nn, tf):
        if callable(getattr(namespace, name, None)):
            return getattr(namespace, name)
    raise ValueError(f"act: got {name!r}, expected none, mish or a function of tf.nn or tf")


def glorot(rng: np.random.Generator, shape: Sequence[int]) -> tf.Variable:
    """A float32 variable, Glorot uniform; leading axes of `shape` are a convolution window."""
    window = int(np.prod(shape[:-2]))
    limit = np.sqrt(6 / (window * (shape[-2] + shape[-1])))
    return tf.Variable(((2 * limit) * rng.random(shape, np.float32) - limit).astype(np.float32))


class Dense(Module):
    """`x @ kernel + bias` in `dtype`."""

    def __init__(self, inputs: int, units: int, dtype: tf.DType, rng: np.random.Generator):
        self.kernel = glorot(rng, (inputs, units))
        self.bias = tf.Variable(tf.zeros(units))
        self._dtype = dtype

    def weights(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Kernel, cast once for many uses, and bias as it is, for `add_bias`."""
        return tf.cast(self.kernel, self._dtype), tf.convert_to_tensor(self.bias)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.cast(x, self._dtype)
        flat = tf.reshape(x, [-1, x.shape[-1]])  # one large product, also for [T, B, F]
        out = add_bias(tf.matmul(flat, tf.cast(self.kernel, self._dtype)), self.bias)
        return out if x.shape.rank == 2 else tf.reshape(out, leading(x, 1) + [out.shape[-1]])

    def select(self, x: tf.Tensor, rows: onehot.Rows) -> tf.Tensor:
        """`self(x)` for `x` `[N, F]`, which `rows` describe."""
        return self.replay(x, tf.stop_gradient(onehot.multiply(rows, *self.weights())))

    def replay(self, x: tf.Tensor, out: tf.Tensor) -> tf.Tensor:
        """`out`, computed from `x` by this layer before; differentiable as if computed now."""

        @tf.custom_gradient
        def known(flat, kernel, bias):
            def grad(upstream):
                upstream = tf.reshape(upstream, [-1, kernel.shape[1]])
                to_kernel = tf.matmul(flat, upstream, transpose_a=True)
                to_x = tf.matmul(upstream, kernel, transpose_b=True)
                return to_x, to_kernel, sum_rows(upstream)

            return tf.identity(out), grad

        flat = tf.reshape(tf.cast(x, self._dtype), [-1, x.shape[-1]])
        return known(flat, *self.weights())


class Conv(Module):
    """Stride 2, no padding, NHWC, in `dtype`.

    Where the output is at most 2x2, as in the last layer of an encoder, TensorFlow's gradient of
    the kernel is slow, and matrix products of the windows take its place.
    """

    def __init__(self, inputs: int, depth: int, size: int, dtype: tf.DType, rng):
        self.kernel = glorot(rng, (size, size, inputs, depth))
        self.bias = tf.Variable(tf.zeros(depth))
        self._dtype = dtype

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x, kernel = tf.cast(x, self._dtype), tf.cast(self.kernel, self._dtype)
        small = all((n - kernel.shape[0]) // 2 + 1 <= 2 for n in x.shape[1:3])
        x = _window_conv(x, kernel) if small else tf.nn.conv2d(x, kernel, 2, "VALID")
        return add_bias(x, self.bias)


@tf.custom_gradient
def _window_conv(x: tf.Tensor, kernel: tf.Tensor):
    """A convolution with stride 2 to few outputs: each window is a row of one matrix product."""
    size, _, inputs, depth = kernel.shape
    height, width = ((n - size) // 2 + 1 for n in x.shape[1:3])
    corners = [(2 * i, 2 * j) for i in range(height) for j in range(width)]
    windows = tf.stack([x[:, i : i + size, j : j + size] for i, j in corners], 1)
    rows = tf.reshape(windows, [-1, size * size * inputs])

    def grad(upstream):
        to_x = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(x),
            filter=kernel,
            out_backprop=upstream,
            strides=[1, 2, 2, 1],
            padding="VALID",
        )
        to_kernel = tf.matmul(rows, tf.reshape(upstream, [-1, depth]), transpose_a=True)
        return to_x, tf.reshape(to_kernel, kernel.shape)

    out = tf.matmul(rows, tf.reshape(kernel, [-1, depth]))
    return tf.reshape(out, [-1, height, width, depth]), grad


class ConvTranspose(Module):
    """Stride 2, no padding, NHWC, in `dtype`; the kernel is `[size, size, out, in]`.

    TensorFlow's own kernel is slow at both ends of a decoder, and computed otherwise there, to the
    same sums: a 1x1 input is one matrix product, and the few channels of an image are an ordinary
    convolution to the four pixels of each 2x2 block.
    """

    def __init__(self, inputs: int, depth: int, size: int, dtype: tf.DType, rng):
        self.kernel = glorot(rng, (size, size, depth, inputs))
        self.bias = tf.Variable(tf.zeros(depth))
        self._dtype = dtype

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        x, kernel = tf.cast(x, self._dtype), tf.cast(self.kernel, self._dtype)
        size, _, depth, inputs = kernel.shape
        if x.shape[1] == x.shape[2] == 1:
            columns = tf.reshape(kernel, [size * size * depth, inputs])
            x = tf.matmul(tf.reshape(x, [-1, inputs]), columns, transpose_b=True)
            x = tf.reshape(x, [-1, size, size, depth])
        elif depth <= 8 and size % 2 == 0:
            x = _subpixel_conv_transpose(x, kernel)
        else:
            x = _conv_transpose(x, kernel)
        return add_bias(x, self.bias)


def _conv_transpose(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    height, width = ((n - 1) * 2 + kernel.shape[0] for n in x.shape[1:3])
    shape = [tf.shape(x)[0], height, width, kernel.shape[2]]
    return tf.nn.conv2d_transpose(x, kernel, shape, 2, "VALID")


@tf.custom_gradient
def _subpixel_conv_transpose(x: tf.Tensor, kernel: tf.Tensor):
    """`_conv_transpose` for kernels of even size, fast where there are few output channels.

    Pixel 2q+r of the output sees the inputs q-j through the weights 2j+r: a convolution with half
    the window for each r. The gradient is that of the transposed convolution, which is the faster.
    """
    size, _, depth, inputs = kernel.shape
    taps = size // 2
    blocks = tf.reshape(kernel, [taps, 2, taps, 2, depth, inputs])
    blocks = tf.transpose(tf.reverse(blocks, [0, 2]), [0, 2, 5, 1, 3, 4])
    window = tf.reshape(blocks, [taps, taps, inputs, 4 * depth])
    pad = [taps - 1, taps - 1]
    out = tf.nn.conv2d(x, window, 1, [[0, 0], pad, pad, [0, 0]])

    def grad(upstream):
        strides = [1, 2, 2, 1]
        to_kernel = tf.raw_ops.Conv2DBackpropFilter(
            input=upstream,
            filter_sizes=kernel.shape,
            out_backprop=x,
            strides=strides,
            padding="VALID",
        )
        return tf.nn.conv2d(upstream, kernel, strides, "VALID"), to_kernel

    return tf.nn.depth_to_space(out, 2), grad


class LayerNorm(Module):
    """Normalises the last axis in `dtype`, epsilon 1e-3; returns the dtype that it was given."""

    def __init__(self, size: int, dtype: tf.DType = tf.float32):
        self.gamma = tf.Variable(tf.ones(size))
        self.beta = tf.Variable(tf.zeros(size))
        self._dtype = dtype

    def vectors(self) -> tuple[tf.Tensor, ...]:
        """Gamma and beta, for `apply`."""
        return tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)

    def apply(self, x: tf.Tensor, vectors: tuple[tf.Tensor, ...]) -> tf.Tensor:
        inputs, x = x.dtype, tf.cast(x, self._dtype)
        gamma, beta = (tf.cast(v, self._dtype) for v in vectors)
        mean = tf.reduce_mean(x, -1, keepdims=True)
        centered = x - mean
        scale = tf.math.rsqrt(tf.reduce_mean(tf.square(centered), -1, keepdims=True) + 1e-3)
        return tf.cast(centered * scale * gamma + beta, inputs)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self.apply(x, self.vectors())


class NoNorm(Module):
    """The identity, where a configuration says `norm: none`."""

    def vectors(self) -> tuple[tf.Tensor, ...]:
        return ()

    def apply(self, x: tf.Tensor, vectors: tuple[tf.Tensor, ...]) -> tf.Tensor:
        return x

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return x


def make_norm(kind: str, size: int, dtype: tf.DType) -> "LayerNorm | NoNorm":
    """`none` or `layer`; anything else is a ValueError."""
    if kind == "none":
        return NoNorm()
    if kind == "layer":
        return LayerNorm(size, dtype)
    raise ValueError(f"norm: got {kind!r}, expected none or layer")


class Stack(Module):
    """Dense layers with norm and activation after each: `dense0 norm0 dense1 ...`."""

    _norm_name = "norm"

    def __init__(self, inputs, units: Sequence[int], act, norm, dtype, norm_dtype, rng):
        self._act = activation(act)
        self.layers: dict[str, Any] = {}
        for i, size in enumerate(units):
            self.layers[f"dense{i}"] = Dense(inputs, size, dtype, rng)
            self.layers[f"{self._norm_name}{i}"] = make_norm(norm, size, norm_dtype)
            inputs = size
        self.size = inputs
        self._depth = len(units)

    def hidden(self, x: tf.Tensor, apply: "Apply | None" = None) -> "Hidden":
        """What the last layer gives for rows `x`.

        `apply(i, layer, x)` returns `layer(x)` for dense layer `i`, perhaps by a shorter way.
        """
        outputs = []
        for i in range(self._depth):
            dense = self.layers[f"dense{i}"]
            outputs.append(dense(x) if apply is None else apply(i, dense, x))
            x = self._act(self.layers[f"{self._norm_name}{i}"](outputs[-1]))
        return Hidden(x, outputs)


Apply = Callable[[int, Dense, tf.Tensor], tf.Tensor]


class Hidden(NamedTuple):
    """The result of a `Stack`, and what its dense layers gave on the way."""

    value: tf.Tensor
    outputs: list[tf.Tensor]


def leading(x: tf.Tensor, trailing: int) -> list:
    """The shape of all but the last `trailing` axes; static where it is known."""
    dynamic = tf.shape(x)
    return [dynamic[i] if n is None else n for i, n in enumerate(x.shape[:-trailing])]
