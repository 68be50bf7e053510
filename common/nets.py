"""Layers and networks, with every variable created at construction and float32.

Why not `keras.layers`: a layer here hands out its kernel in the compute dtype and in pieces, so
that a scan casts it once and multiplies the parts that need no recurrence outside of the loop.

Shape letters: B batch (any leading axes), H W C image, F features.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf

from common.bias import add_bias, sum_rows
from common.dists import make_dist
from common.draws import Draws, Modes
from common.onehot import Parts, multiply
from common.precision import Precision


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


def activation(name: str, key: str = "act") -> Callable[[tf.Tensor], tf.Tensor]:
    """The activation called `name`: `none`, `mish`, or any function of `tf.nn` or `tf`.

    Raises:
        ValueError: there is none of that name; the message says that `key` asked for it.
    """
    if name == "none":
        return lambda x: x
    if name == "mish":
        return lambda x: x * tf.tanh(tf.nn.softplus(x))
    for namespace in (tf.nn, tf):
        if callable(getattr(namespace, name, None)):
            return getattr(namespace, name)
    raise ValueError(f"{key}: got {name!r}, expected none, mish or a function of tf.nn or tf")


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
        return out if x.shape.rank == 2 else tf.reshape(out, _leading(x, 1) + [out.shape[-1]])

    def select(self, x: tf.Tensor, parts: Parts) -> tf.Tensor:
        """`self(x)` for rows `[N, F]`, of which `parts` are known."""
        return self.replay(x, tf.stop_gradient(multiply(parts, *self.weights())))

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


def make_norm(kind: str, size: int, dtype: tf.DType) -> Module:
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
        self.layers = {}
        for i, size in enumerate(units):
            self.layers[f"dense{i}"] = Dense(inputs, size, dtype, rng)
            self.layers[f"{self._norm_name}{i}"] = make_norm(norm, size, norm_dtype)
            inputs = size
        self.size = inputs
        self._depth = len(units)

    def hidden(
        self,
        x: tf.Tensor,
        known: Sequence[tf.Tensor] | None = None,
        parts: Parts | None = None,
    ) -> "Hidden":
        """What the last layer gives for rows `x`.

        `known` are the dense outputs of an earlier call, `parts` those of `x`.
        """
        outputs = []
        for i in range(self._depth):
            dense = self.layers[f"dense{i}"]
            if known is not None:
                outputs.append(dense.replay(x, known[i]))
            elif parts is not None and i == 0:
                outputs.append(dense.select(x, parts))
            else:
                outputs.append(dense(x))
            x = self._act(self.layers[f"{self._norm_name}{i}"](outputs[-1]))
        return Hidden(x, outputs)


class Hidden(NamedTuple):
    """The result of a `Stack`, and what its dense layers gave on the way."""

    value: tf.Tensor
    outputs: list[tf.Tensor]


class DistLayer(Module):
    """A linear layer, and one for the std where the distribution has one."""

    def __init__(self, inputs, shape, dist, dtype, rng, min_std=0.1, init_std=0.0):
        self._shape, self._dist = tuple(shape), dist
        self._min_std, self._init_std = min_std, init_std
        size = int(np.prod(shape))
        self.layers = {"out": Dense(inputs, size, dtype, rng)}
        if dist.endswith("normal"):
            self.layers["std"] = Dense(inputs, size, dtype, rng)

    def __call__(self, x: tf.Tensor, draws: Draws | Modes | None = None):
        out = {k: tf.reshape(v(x), _leading(x, 1) + [*self._shape]) for k, v in self.layers.items()}
        return make_dist(
            self._dist,
            out["out"],
            out.get("std"),
            len(self._shape),
            draws,
            self._min_std,
            self._init_std,
        )


class MLP(Stack):
    """Features `[..., F]` to a distribution over `shape`."""

    def __init__(self, inputs: int, shape, config, dtype, norm_dtype, rng):
        units = [config.units] * config.layers
        super().__init__(inputs, units, config.act, config.norm, dtype, norm_dtype, rng)
        self.out = DistLayer(
            self.size, shape, config.dist, dtype, rng, getattr(config, "min_std", 0.1)
        )
        self._dtype = dtype

    def __call__(self, features: tf.Tensor, draws: Draws | Modes | None = None):
        """The distribution; `draws` serves the estimates of a squashed normal alone."""
        return self.evaluate(features, draws)[0]

    def evaluate(
        self,
        features: tf.Tensor,
        draws: Draws | Modes | None = None,
        known: Sequence[tf.Tensor] | None = None,
        parts: Parts | None = None,
    ):
        """The distribution, and the dense outputs `[N, units]` for `known` of a later call.

        `parts` of the features save time where they are known.
        """
        flat = tf.reshape(tf.cast(features, self._dtype), [-1, features.shape[-1]])
        x, outputs = self.hidden(flat, known, None if parts is None else parts.flat())
        return self.out(tf.reshape(x, _leading(features, 1) + [self.size]), draws), outputs


def matching_keys(
    obs_space: Mapping[str, gymnasium.Space], pattern: str, rank: int
) -> dict[str, tuple[int, ...]]:
    """Keys of rank `rank` that match `pattern`, with their shapes, in the order of the space."""
    return {
        key: tuple(space.shape)
        for key, space in obs_space.items()
        if re.match(pattern, key) and len(space.shape) == rank
    }


class Encoder(Stack):
    """Images and vectors to one embedding `[..., E]`; CNN features come first.

    Raises:
        ValueError: no key of the observation space matches `cnn_keys` or `mlp_keys`.
    """

    _norm_name = "densenorm"

    def __init__(self, obs_space, config, precision: Precision, rng):
        self._cnn = matching_keys(obs_space, config.cnn_keys, 3)
        self._mlp = matching_keys(obs_space, config.mlp_keys, 1)
        if not self._cnn and not self._mlp:
            raise ValueError(
                f"encoder.cnn_keys {config.cnn_keys!r} and encoder.mlp_keys {config.mlp_keys!r} "
                f"match none of the observation keys {', '.join(obs_space)}"
            )
        self._dtype, norm_dtype = precision.dtype("encoder"), precision.dtype("layernorm")
        inputs = sum(shape[0] for shape in self._mlp.values())
        units = config.mlp_layers if self._mlp else ()
        super().__init__(inputs, units, config.act, config.norm, self._dtype, norm_dtype, rng)
        self.embed_size = self.size
        self._convs = len(config.cnn_kernels) if self._cnn else 0
        if self._cnn:
            self.embed_size += self._build_cnn(config, norm_dtype, rng)

    def _build_cnn(self, config, norm_dtype, rng) -> int:
        (height, width), *others = {shape[:2] for shape in self._cnn.values()}
        if others:
            raise ValueError(f"images of one size expected, got {self._cnn}")
        channels = sum(shape[2] for shape in self._cnn.values())
        for i, kernel in enumerate(config.cnn_kernels):
            depth = 2**i * config.cnn_depth
            height, width = (height - kernel) // 2 + 1, (width - kernel) // 2 + 1
            self.layers[f"conv{i}"] = Conv(channels, depth, kernel, self._dtype, rng)
            self.layers[f"convnorm{i}"] = make_norm(config.norm, depth, norm_dtype)
            channels = depth
        if height < 1 or width < 1:
            raise ValueError(f"encoder.cnn_kernels {config.cnn_kernels}: the image is too small")
        return height * width * channels

    @property
    def keys(self) -> list[str]:
        return [*self._cnn, *self._mlp]

    def __call__(self, data: Mapping[str, tf.Tensor]) -> tf.Tensor:
        outputs = []
        if self._cnn:
            x = tf.concat([tf.cast(data[k], self._dtype) for k in self._cnn], -1)
            lead = _leading(x, 3)
            x = tf.reshape(x, [-1, *x.shape[-3:]])
            for i in range(self._convs):
                x = self._act(self.layers[f"convnorm{i}"](self.layers[f"conv{i}"](x)))
            outputs.append(tf.reshape(x, lead + [int(np.prod(x.shape[1:]))]))
        if self._mlp:
            x = tf.concat([tf.cast(data[k], self._dtype) for k in self._mlp], -1)
            outputs.append(self.hidden(x).value)
        return tf.concat(outputs, -1)


class Decoder(Stack):
    """Features to one unit-variance Normal per observation key."""

    _norm_name = "densenorm"

    def __init__(self, obs_space, inputs: int, config, precision: Precision, rng):
        self._cnn = matching_keys(obs_space, config.cnn_keys, 3)
        self._mlp = matching_keys(obs_space, config.mlp_keys, 1)
        self._dtype, norm_dtype = precision.dtype("decoder"), precision.dtype("layernorm")
        self._likelihood_dtype = precision.dtype("image_likelihood")
        units = config.mlp_layers if self._mlp else ()
        super().__init__(inputs, units, config.act, config.norm, self._dtype, norm_dtype, rng)
        for key, shape in self._mlp.items():
            self.layers[f"dense_{key}"] = DistLayer(self.size, shape, "mse", self._dtype, rng)
        self._convs = len(config.cnn_kernels) if self._cnn else 0
        if self._cnn:
            self._build_cnn(inputs, config, norm_dtype, rng)

    def _build_cnn(self, inputs, config, norm_dtype, rng) -> None:
        depth = 32 * config.cnn_depth
        self.layers["convin"] = Dense(inputs, depth, self._dtype, rng)
        size = 1
        for i, kernel in enumerate(config.cnn_kernels):
            previous, last = depth, i == self._convs - 1
            depth = int(2 ** (self._convs - i - 2) * config.cnn_depth)
            if last:
                depth = sum(shape[2] for shape in self._cnn.values())
            self.layers[f"conv{i}"] = ConvTranspose(previous, depth, kernel, self._dtype, rng)
            if not last:
                self.layers[f"convnorm{i}"] = make_norm(config.norm, depth, norm_dtype)
            size = (size - 1) * 2 + kernel
        for key, shape in self._cnn.items():
            if shape[:2] != (size, size):
                raise ValueError(
                    f"decoder.cnn_kernels {config.cnn_kernels} make images of {size}x{size}, but "
                    f"{key} is {shape[0]}x{shape[1]}"
                )

    @property
    def keys(self) -> list[str]:
        return [*self._cnn, *self._mlp]

    @property
    def image_keys(self) -> list[str]:
        return list(self._cnn)

    def __call__(self, features: tf.Tensor) -> dict:
        features = tf.cast(features, self._dtype)
        dists = {}
        if self._cnn:
            for key, mean in self._images(features).items():
                mean = tf.cast(mean, self._likelihood_dtype)
                dists[key] = ImageNormal(mean)
        if self._mlp:
            x = self.hidden(features).value
            dists |= {key: self.layers[f"dense_{key}"](x) for key in self._mlp}
        return dists

    def _images(self, features) -> dict[str, tf.Tensor]:
        x = self.layers["convin"](tf.reshape(features, [-1, features.shape[-1]]))
        x = tf.reshape(x, [-1, 1, 1, x.shape[-1]])
        for i in range(self._convs):
            x = self.layers[f"conv{i}"](x)
            if i < self._convs - 1:
                x = self._act(self.layers[f"convnorm{i}"](x))
        x = tf.reshape(x, _leading(features, 1) + [*x.shape[1:]])
        channels = [shape[2] for shape in self._cnn.values()]
        return dict(zip(self._cnn, tf.split(x, channels, -1), strict=True))


class ImageNormal:
    """Unit-variance Normals over the pixels of `mean [..., H, W, C]`.

    The constant ½ log 2π per pixel stays in, so that a perfect gray image reads -3764. Summed in
    the dtype of `mean`: float32, unless `precision_overrides.image_likelihood` lowers it.
    """

    def __init__(self, mean: tf.Tensor):
        self._mean = mean

    def mode(self) -> tf.Tensor:
        return tf.cast(self._mean, tf.float32)

    def log_prob(self, image: tf.Tensor) -> tf.Tensor:
        error = tf.cast(image, self._mean.dtype) - self._mean
        log_prob = -0.5 * tf.square(error) - 0.5 * np.log(2 * np.pi)
        return tf.cast(tf.reduce_sum(log_prob, [-3, -2, -1]), tf.float32)


def _leading(x: tf.Tensor, trailing: int) -> list:
    """The shape of all but the last `trailing` axes; static where it is known."""
    dynamic = tf.shape(x)
    return [dynamic[i] if n is None else n for i, n in enumerate(x.shape[:-trailing])]
