"""What the world model sees and predicts of images: distributions of pixels, and their statistics.

Shape letters: H W C image. Images are in [-0.5, 0.5]; brightness is 0.5 more.
"""

import numpy as np
import tensorflow as tf

from common.nn import replica
from common.nn.layers import Module, leading

# Deviation plus margin of a pixel whose weight is 1, where pixels are weighted.
WEIGHT = 0.1


class PixelStats(Module):
    """Running mean and variance of each pixel of an image `[H, W, C]` in [-0.5, 0.5].

    Most of what a game shows never changes. Around the mean, and in units of the deviation, what
    does change is what a network sees first.
    """

    momentum = 0.999  # after 1,000 updates; before that all count alike
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


class PixelBounds(Module):
    """How dark and how bright each pixel of an image `[H, W, C]` in [-0.5, 0.5] has been.

    Between these bounds a ball on gray is what it is on black: the brightest that its pixels can
    be, where they are the darkest nearly all of the time.
    """

    forget = 1e-4  # of the span, with each update: one odd image does not count for ever
    least = 0.1  # span, of brightness, of a pixel that never changes

    def __init__(self, shape):
        self.dark = tf.Variable(tf.fill(shape, 0.5), trainable=False)
        self.bright = tf.Variable(tf.fill(shape, -0.5), trainable=False)

    def update(self, image: tf.Tensor) -> None:
        """Takes in images `[..., H, W, C]`."""
        image = tf.reshape(tf.cast(image, tf.float32), [-1, *self.dark.shape])
        dark = replica.smallest(tf.reduce_min(image, 0))
        bright = -replica.smallest(tf.reduce_min(-image, 0))
        lost = self.forget * tf.maximum(self.bright - self.dark, 0.0)
        self.dark.assign(tf.minimum(self.dark + lost, dark))
        self.bright.assign(tf.maximum(self.bright - lost, bright))

    def read(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Dark and bright, at least `least` apart."""
        dark = tf.convert_to_tensor(self.dark)
        return dark, tf.maximum(self.bright, dark + self.least)


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

    Brightness goes from 0 to 1 between `bounds`: all that an image can show, or what each pixel has
    shown so far, `[H, W, C]` each. The entropy of the target is part of the loss, so that a perfect
    image reads what its grays cost: a black or white pixel nothing, one of 0.5 ln 2. A small bright
    thing on black is worth some 50 times what it is worth to a Normal, and a black pixel has a
    whole half-line of right answers.
    """

    def __init__(self, logits: tf.Tensor, weight: tf.Tensor | None = None, bounds=(-0.5, 0.5)):
        self._logits, self._weight, self._bounds = logits, weight, bounds

    @staticmethod
    def output_of(image: tf.Tensor, bounds=(-0.5, 0.5)) -> tf.Tensor:
        """What a network has to give for this image, which may lack black and white."""
        brightness = tf.clip_by_value(_brightness(image, bounds), 1e-3, 1 - 1e-3)
        return tf.math.log(brightness / (1 - brightness))

    def mode(self) -> tf.Tensor:
        """The expected image."""
        dark, bright = self._bounds
        return tf.nn.sigmoid(tf.cast(self._logits, tf.float32)) * (bright - dark) + dark

    def log_prob(self, image: tf.Tensor) -> tf.Tensor:
        brightness = tf.cast(_brightness(image, self._bounds), self._logits.dtype)
        log_prob = brightness * self._logits - tf.nn.softplus(self._logits)
        if self._weight is not None:
            log_prob *= self._weight
        return tf.cast(tf.reduce_sum(log_prob, [-3, -2, -1]), tf.float32)


def _brightness(image: tf.Tensor, bounds) -> tf.Tensor:
    """From 0 at the dark bound to 1 at the bright one; 0 and 1 beyond them."""
    dark, bright = bounds
    return tf.clip_by_value((tf.cast(image, tf.float32) - dark) / (bright - dark), 0.0, 1.0)


IMAGE_DISTS: dict[str, type[ImageNormal] | type[ImageBernoulli]] = {
    "mse": ImageNormal,
    "binary": ImageBernoulli,
    "contrast": ImageBernoulli,  # between the bounds of each pixel
}
