"""What the world model sees and predicts of images: distributions of pixels, and their statistics.

Shape letters: H W C image. Images are in [-0.5, 0.5]; brightness is 0.5 more.
"""

import numpy as np
import tensorflow as tf

from common.nn import replica
from common.nn.layers import Module, leading

# Of a pixel whose deviation and margin make this together, where pixels are weighted.
WEIGHT = 0.1


class PixelStats(Module):
    """Running mean and variance of each pixel of an image `[H, W, C]` in [-0.5, 0.5].

    Most of what a game shows never changes. Around the mean, and in units of the deviation, what
    does change is what a network sees first.
    """

    momentum = 0.999  # of the running statistics, once as many updates have passed
    margin = 0.03  # added to the deviation: of brightness, from 0 to 1

    def __init__(self, shape):
        self.mean = tf.Variable(tf.zeros(shape), trainable=False)
        self.square = tf.Variable(tf.zeros(shape), trainable=False)
        self.count = tf.Variable(0.0, trainable=False)

    def update(self, image: tf.Tensor) -> None:
        """Takes in images `[..., H, W, C]`."""
        image = tf.reshape(tf.cast(image, tf.float32), [-1, *self.mean.shape])
        self.count.assign_add(1.0)
        share = tf.maximum(1 / self.count, 1 - self.momentum)
        moments = tf.reduce_mean(image, 0), tf.reduce_mean(tf.square(image), 0)
        mean, square = replica.mean(moments)
        self.mean.assign_add(share * (mean - self.mean))
        self.square.assign_add(share * (square - self.square))

    def scale(self) -> tf.Tensor:
        """One over the deviation with its margin, `[H, W, C]`."""
        std = tf.sqrt(tf.maximum(self.square - tf.square(self.mean), 0.0))
        return 1 / (std + self.margin)

    def standardize(self, image: tf.Tensor) -> tf.Tensor:
        """Around 0, of the order of 1, in the dtype of `image`."""
        scale = self.scale()
        shift, scale = (tf.cast(v, image.dtype) for v in (self.mean * scale, scale))
        return image * scale - shift


def pool(image: tf.Tensor, n: int) -> tf.Tensor:
    """The sums over squares of n x n pixels, divided by n, flat: `[..., H/n * W/n * C]`."""
    lead, (height, width, channels) = leading(image, 3), image.shape[-3:]
    if n > 1:
        image = tf.reshape(image, [-1, height // n, n, width // n, n, channels])
        image = tf.reduce_sum(image, [2, 4]) / n
    return tf.reshape(image, lead + [height // n * (width // n) * channels])


class ImageNormal:
    """Unit-variance Normals over the pixels of `mean [..., H, W, C]`.

    `weight [H, W, C]`, if given, is a factor on the terms of the pixels.

    The constant ½ log 2π per pixel stays in, so that a perfect gray image reads -3764. Summed in
    the dtype of `mean`: float32, unless `precision_overrides.image_likelihood` lowers it.
    """

    def __init__(self, mean: tf.Tensor, weight: tf.Tensor | None = None):
        self._mean, self._weight = mean, weight

    @staticmethod
    def output_of(image: tf.Tensor) -> tf.Tensor:
        """What a network has to give for this image."""
        return image

    def mode(self) -> tf.Tensor:
        return tf.cast(self._mean, tf.float32)

    def log_prob(self, image: tf.Tensor) -> tf.Tensor:
        error = tf.cast(image, self._mean.dtype) - self._mean
        log_prob = -0.5 * tf.square(error) - 0.5 * np.log(2 * np.pi)
        if self._weight is not None:
            log_prob *= self._weight
        return tf.cast(tf.reduce_sum(log_prob, [-3, -2, -1]), tf.float32)


class ImageBernoulli:
    """Bernoullis over the pixels of `logits [..., H, W, C]`, with brightness as a soft target.

    `weight [H, W, C]`, if given, is a factor on the terms of the pixels.

    An image is in [-0.5, 0.5], as everywhere; its brightness is 0.5 more. The entropy of the target
    is part of the loss, so that a perfect image reads what its grays cost: a black or white pixel
    nothing, one of 0.5 ln 2. A small bright thing on black is worth some 50 times what it is worth
    to a Normal, and a black pixel has a whole half-line of right answers.
    """

    def __init__(self, logits: tf.Tensor, weight: tf.Tensor | None = None):
        self._logits, self._weight = logits, weight

    @staticmethod
    def output_of(image: tf.Tensor) -> tf.Tensor:
        """What a network has to give for this image, which may lack black and white."""
        brightness = tf.clip_by_value(image + 0.5, 1e-3, 1 - 1e-3)
        return tf.math.log(brightness / (1 - brightness))

    def mode(self) -> tf.Tensor:
        """The expected image."""
        return tf.nn.sigmoid(tf.cast(self._logits, tf.float32)) - 0.5

    def log_prob(self, image: tf.Tensor) -> tf.Tensor:
        brightness = tf.cast(image, self._logits.dtype) + 0.5
        log_prob = brightness * self._logits - tf.nn.softplus(self._logits)
        if self._weight is not None:
            log_prob *= self._weight
        return tf.cast(tf.reduce_sum(log_prob, [-3, -2, -1]), tf.float32)


IMAGE_DISTS: dict[str, type[ImageNormal] | type[ImageBernoulli]] = {
    "mse": ImageNormal,
    "binary": ImageBernoulli,
}
