"""What all tests share."""

import os
import pathlib
import signal

import pytest

# Before TensorFlow is imported, here and in the commands that tests start: no notes about its
# build, and on a GPU no more memory than needed, so that several processes find room.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

# A suite that is started in the background, or by nohup, inherits signals that are ignored, and so
# would the runs that the tests stop by them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def project() -> pathlib.Path:
    """The root of the checkout."""
    return pathlib.Path(__file__).resolve().parent.parent
