"""Resizing of images by area: each new pixel is the mean of the area of the old ones under it."""

import cv2
import numpy as np


def resize_by_area(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes uint8 [height, width, channels], or [height, width] of a single channel.

    This is OpenCV's `INTER_AREA`, with which the published results were made.

    Returns:
        A new array, uint8 [*size, channels].
    """
    height, width = size
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return resized.reshape(height, width, -1)
