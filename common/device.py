"""Which device TensorFlow computes on, and how exactly."""

import os
import platform

import numpy as np
import tensorflow as tf


def on_gpu() -> bool:
    """Whether TensorFlow computes on a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def setup_device(precision: int | str = 32) -> str:
    """Let GPUs allocate memory as they need it; return lines that say what is used.

    precision: what is computed in. `tf32` lets GPUs of NVIDIA's Ampere generation and later round
    the factors of float32 products to 10 bits of mantissa; TensorFlow does that unless it is told
    not to, so that every other precision switches it off.

    Must be called before the first tensor is made. At precision 16 on a CPU a second line says
    that this is slow.
    """
    use_tensor_float_32(precision)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        device = f"GPU {details.get('device_name', gpus[0].name)}"
    else:
        device = f"CPU with {os.cpu_count()} cores"
    versions = f"TensorFlow {tf.__version__}, NumPy {np.__version__}"
    text = f"Device: {device} | {versions}, Python {platform.python_version()}"
    if precision == 16 and not gpus:
        text += (
            "\nNote: float16 is emulated on a CPU and slow; use --precision 32 or bfloat16 here."
        )
    if precision == "tf32" and not gpus:
        text += "\nNote: tf32 is a way of GPUs to multiply; on a CPU it is the same as 32."
    return text


def use_tensor_float_32(precision: int | str) -> None:
    """Switch TensorFloat-32 on at precision `tf32`, and off at every other."""
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
