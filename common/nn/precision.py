"""What the settings of a precision are called."""

import tensorflow as tf

DTYPES = {
    "16": tf.float16,
    "32": tf.float32,
    "tf32": tf.float32,  # common/device.py switches the rounding of products on
    "bfloat16": tf.bfloat16,
}


def dtype_of(precision: int | str) -> tf.DType:
    """The compute dtype of a precision setting: 16, 32, tf32 or bfloat16.

    Raises:
        ValueError: the setting is none of these.
    """
    try:
        return DTYPES[str(precision)]
    except KeyError:
        raise ValueError(
            f"precision: got {precision!r}, expected 16, 32, tf32 or bfloat16"
        ) from None
