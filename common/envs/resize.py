"""Resizing of images by area: each new pixel is the mean of the area of the old ones under it."""

import cv2
import numpy as np

MOST_CHANNELS = 4  # that OpenCV resizes by area at once


def resize_by_area(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 [height, width, channels], any number of them, or [height, width] of one.

    This is OpenCV's `INTER_AREA`, with which the published results were made.

    Returns:
        A new array, uint8 [*size, channels].
    """
    height, width = size
    channels = image.reshape(*image.shape[:2], -1)
    parts = [
        cv2.resize(
            np.ascontiguousarray(channels[..., first : first + MOST_CHANNELS]),
            (width, height),
            interpolation=cv2.INTER_AREA,
        ).reshape(height, width, -1)
        for first in range(0, channels.shape[-1], MOST_CHANNELS)
    ]
    return np.concatenate(parts, -1)
