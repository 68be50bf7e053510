"""TensorFlow without its noise; which device it computes on, and how exactly."""

import contextlib
import ctypes
import functools
import importlib.util
import os
import platform
from pathlib import Path
from types import ModuleType

import numpy as np

from common.quiet import quiet_stderr

NVIDIA_GPU = Path("/dev/nvidia0")  # there where NVIDIA's driver has found one


@functools.cache
def import_tensorflow() -> ModuleType:
    """TensorFlow, imported and its devices listed without the lines that it writes about itself.

    They are shown when the import fails. Call it before any module that imports TensorFlow; the
    level of its messages is left alone where TF_CPP_MIN_LOG_LEVEL is set.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        load_cusolver()
        import tensorflow as tf

        tf.config.list_physical_devices()
    return tf


def load_cusolver() -> None:
    """Load a library of the extra `cuda`, where that is installed.

    TensorFlow 2.21 asks for it by its bare name, and its search path leaves out this one directory
    of the extra. One library that is not found leaves every GPU unused.
    """
    nvidia = importlib.util.find_spec("nvidia")
    for folder in (nvidia and nvidia.submodule_search_locations) or ():
        for path in Path(folder).glob("cusolver/lib/libcusolver.so.*"):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(path))


def usable_cores() -> int:
    """CPU cores that this process may use: the machine's, or fewer where they are shared out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = Path("/sys/fs/cgroup/cpu.max")
    limit, period = quota.read_text().split() if quota.exists() else ("max", "1")
    if limit.isdigit():
        cores = min(cores or 1, round(int(limit) / int(period)))
    return max(1, cores or 1)


def on_gpu() -> bool:
    """Whether TensorFlow computes on a GPU."""
    return bool(import_tensorflow().config.list_logical_devices("GPU"))


def setup_device(precision: int | str = 32) -> str:
    """Let GPUs allocate memory as they need it; return lines that say what is used.

    precision: what is computed in. `tf32` lets GPUs of NVIDIA's Ampere generation and later round
    the factors of float32 products to 10 bits of mantissa; TensorFlow does that unless it is told
    not to, so that every other precision switches it off.

    Must be called before the first tensor is made. At precision 16 on a CPU a second line says
    that this is slow.
    """
    tf = import_tensorflow()
    use_tensor_float_32(precision)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)
    gpu = gpu_name()
    device = f"GPU {gpu}" if gpu else f"CPU with {usable_cores()} cores"
    versions = f"TensorFlow {tf.__version__}, NumPy {np.__version__}"
    text = f"Device: {device} | {versions}, Python {platform.python_version()}"
    if not gpus and NVIDIA_GPU.exists() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        text += (
            "\nNote: TensorFlow does not use the NVIDIA GPU of this machine. Install the extra "
            "`cuda`; what it lacks else is said by "
            'python -c "import tensorflow as tf; tf.config.list_physical_devices()"'
        )
    if precision == 16 and not gpus:
        text += (
            "\nNote: float16 is emulated on a CPU and slow; use --precision 32 or bfloat16 here."
        )
    if precision == "tf32" and not gpus:
        text += "\nNote: tf32 is a way of GPUs to multiply; on a CPU it is the same as 32."
    return text


def processor() -> str:
    """The name of the processor of this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def gpu_name() -> str:
    """The name of the first GPU that TensorFlow can use; nothing where there is none."""
    tf = import_tensorflow()
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return ""
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name)


def use_tensor_float_32(precision: int | str) -> None:
    """Switch TensorFloat-32 on at precision `tf32`, and off at every other."""
    tf = import_tensorflow()
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
