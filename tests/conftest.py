"""What all tests share."""

import os
import pathlib

import pytest

# Before TensorFlow is imported, here and in the commands that tests start: no notes about its
# build, and on a GPU no more memory than needed, so that several processes find room.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


@pytest.fixture(scope="session")
def project() -> pathlib.Path:
    """The root of the checkout."""
    return pathlib.Path(__file__).resolve().parent.parent
