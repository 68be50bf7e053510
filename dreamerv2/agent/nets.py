"""Encoder, decoder and heads.

Shape letters: B batch (any leading axes), H W C image, F features, E embedding.
"""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from common.data.spaces import matching_keys
from common.nn.dists import make_dist
from common.nn.draws import Draws, Modes
from common.nn.layers import Apply, Conv, ConvTranspose, Dense, Module, Stack, leading, make_norm
from dreamerv2.agent.pixels import IMAGE_DISTS, WEIGHT, PixelBounds, PixelStats, pool
from dreamerv2.agent.precision import Precision


class DistLayer(Module):
    """A linear layer, and one for the std where the distribution has one."""

    def __init__(self, inputs, shape, dist, dtype, rng, min_std=0.1):
        self._shape, self._dist = tuple(shape), dist
        self._min_std = min_std
        size = int(np.prod(shape))
        self.layers = {"out": Dense(inputs, size, dtype, rng)}
        if dist.endswith("normal"):
            self.layers["std"] = Dense(inputs, size, dtype, rng)

    def __call__(self, x: tf.Tensor, draws: Draws | Modes | None = None):
        out = {k: tf.reshape(v(x), leading(x, 1) + [*self._shape]) for k, v in self.layers.items()}
        return make_dist(
            self._dist,
            out["out"],
            out.get("std"),
            len(self._shape),
            draws,
            self._min_std,
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
        apply: Apply | None = None,
    ):
        """The distribution, and what each dense layer gave, `[N, units]`.

        `apply` is that of `Stack.hidden`.
        """
        flat = tf.reshape(tf.cast(features, self._dtype), [-1, features.shape[-1]])
        x, outputs = self.hidden(flat, apply)
        return self.out(tf.reshape(x, leading(features, 1) + [self.size]), draws), outputs


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
        self.pixels = {}
        if config.image_stats:
            self.pixels = {f"pixels_{key}": PixelStats(shape) for key, shape in self._cnn.items()}
        self._flat = self._cnn if config.image_net == "mlp" else {}
        self._scales = _scales("encoder", config, self._flat)
        sizes = [h // n * (w // n) * c for h, w, c in self._flat.values() for n in self._scales]
        inputs = sum(sizes) + sum(shape[0] for shape in self._mlp.values())
        units = config.mlp_layers if inputs else ()
        super().__init__(inputs, units, config.act, config.norm, self._dtype, norm_dtype, rng)
        self.embed_size = self.size
        self._convs = len(config.cnn_kernels) if self._cnn and not self._flat else 0
        if self._convs:
            self.embed_size += self._build_cnn(config, norm_dtype, rng)

    def _image(self, data, key) -> tf.Tensor:
        image, stats = tf.cast(data[key], self._dtype), self.pixels.get(f"pixels_{key}")
        return image if stats is None else stats.standardize(image)

    def update_stats(self, data: Mapping[str, tf.Tensor]) -> None:
        """Takes the images of a batch into the running statistics, if there are any."""
        for key in self._cnn if self.pixels else ():
            self.pixels[f"pixels_{key}"].update(data[key])

    def image_stats(self, key: str) -> PixelStats | None:
        """The running statistics; None without them or without this key."""
        return self.pixels.get(f"pixels_{key}")

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
        if self._convs:
            x = tf.concat([self._image(data, k) for k in self._cnn], -1)
            lead = leading(x, 3)
            x = tf.reshape(x, [-1, *x.shape[-3:]])
            for i in range(self._convs):
                x = self._act(self.layers[f"convnorm{i}"](self.layers[f"conv{i}"](x)))
            outputs.append(tf.reshape(x, lead + [int(np.prod(x.shape[1:]))]))
        if self._flat or self._mlp:
            x = [pool(self._image(data, k), n) for k in self._flat for n in self._scales]
            x = tf.concat([*x, *(tf.cast(data[k], self._dtype) for k in self._mlp)], -1)
            outputs.append(self.hidden(x).value)
        return tf.concat(outputs, -1)


class Decoder(Stack):
    """Features to one distribution per observation key: unit-variance Normals, or `image_dist`.

    image_stats: the encoder's running statistics of an image, by key; None where there are none.
    """

    _norm_name = "densenorm"

    def __init__(
        self,
        obs_space,
        inputs: int,
        config,
        precision: Precision,
        rng,
        image_stats: Callable[[str], PixelStats | None] = lambda key: None,
    ):
        self._image_stats, self._weight_pixels = image_stats, config.image_weights
        self._cnn = matching_keys(obs_space, config.cnn_keys, 3)
        self._mlp = matching_keys(obs_space, config.mlp_keys, 1)
        self._dtype, norm_dtype = precision.dtype("decoder"), precision.dtype("layernorm")
        self._likelihood_dtype = precision.dtype("image_likelihood")
        self._image_dist = IMAGE_DISTS[config.image_dist]
        self.bounds = {}
        if config.image_dist == "contrast":
            self.bounds = {f"bounds_{key}": PixelBounds(shape) for key, shape in self._cnn.items()}
        self._flat = self._cnn if config.image_net == "mlp" else {}
        units = config.mlp_layers if self._flat or self._mlp else ()
        super().__init__(inputs, units, config.act, config.norm, self._dtype, norm_dtype, rng)
        self._scales = _scales("decoder", config, self._flat)
        for key, (height, width, channels) in self._flat.items():
            for n in self._scales:
                pixels = height // n * (width // n) * channels
                self.layers[_dense_name(key, n)] = Dense(self.size, pixels, self._dtype, rng)
        names = [_dense_name(key, n) for key in self._flat for n in self._scales]
        names += [f"dense_{key}" for key in self._mlp]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(
                f"decoder.image_scales: two layers have the name {twice}; rename an observation"
            )
        for key, shape in self._mlp.items():
            self.layers[f"dense_{key}"] = DistLayer(self.size, shape, "mse", self._dtype, rng)
        self._convs = len(config.cnn_kernels) if self._cnn and not self._flat else 0
        if self._convs:
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
        x = self.hidden(features).value if self._flat or self._mlp else None
        images = self._flat_images(x) if self._flat else {}
        if self._convs:
            images = self._images(features)
        dists = {k: self._dist(k, tf.cast(v, self._likelihood_dtype)) for k, v in images.items()}
        return dists | {key: self.layers[f"dense_{key}"](x) for key in self._mlp}

    def update_bounds(self, data: Mapping[str, tf.Tensor]) -> None:
        """Takes the images of a batch into the bounds of each pixel, if there are any."""
        for key in self._cnn if self.bounds else ():
            self.bounds[f"bounds_{key}"].update(data[key])

    def _dist(self, key, image):
        stats, bounds = self._image_stats(key), self.bounds.get(f"bounds_{key}")
        between = {} if bounds is None else {"bounds": bounds.read()}
        if stats is None:
            return self._image_dist(image, **between)
        mean = self._image_dist.output_of(tf.convert_to_tensor(stats.mean), **between)
        image += tf.cast(mean, image.dtype)
        weight = tf.cast(WEIGHT * stats.scale(), image.dtype) if self._weight_pixels else None
        return self._image_dist(image, weight, **between)

    def _flat_images(self, x) -> dict[str, tf.Tensor]:
        images, flat = {}, tf.reshape(x, [-1, self.size])
        for key, (height, width, channels) in self._flat.items():
            image = 0.0
            for n in self._scales:
                level = self.layers[_dense_name(key, n)](flat)
                level = tf.reshape(level, [-1, height // n, 1, width // n, 1, channels])
                level = tf.tile(level, [1, 1, n, 1, n, 1])
                image += tf.reshape(level, [-1, height, width, channels])
            images[key] = tf.reshape(image, leading(x, 1) + [height, width, channels])
        return images

    def _images(self, features) -> dict[str, tf.Tensor]:
        x = self.layers["convin"](tf.reshape(features, [-1, features.shape[-1]]))
        x = tf.reshape(x, [-1, 1, 1, x.shape[-1]])
        for i in range(self._convs):
            x = self.layers[f"conv{i}"](x)
            if i < self._convs - 1:
                x = self._act(self.layers[f"convnorm{i}"](x))
        x = tf.reshape(x, leading(features, 1) + [*x.shape[1:]])
        channels = [shape[2] for shape in self._cnn.values()]
        return dict(zip(self._cnn, tf.split(x, channels, -1), strict=True))


def _scales(module: str, config, images: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Sides of the squares that `image_scales` asks for: 1, 2, 4, ... pixels.

    Raises:
        ValueError: the largest do not tile an image.
    """
    largest = 2 ** (config.image_scales - 1)
    for key, (height, width, _) in images.items():
        if height % largest or width % largest:
            raise ValueError(
                f"{module}.image_scales: got {config.image_scales}, but squares of {largest} "
                f"pixels do not tile {key}, which is {height}x{width}"
            )
    return [2**i for i in range(config.image_scales)]


def _dense_name(key: str, n: int) -> str:
    return f"dense_{key}" if n == 1 else f"dense_{key}_{n}"
