"""What all tests share."""

import os
import pathlib
import signal

import pytest
from hypothesis import HealthCheck, settings

# Before TensorFlow is imported, here and in the commands that tests start: no notes about its
# build, and on a GPU no more memory than needed, so that several processes find room.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

# A suite that is started in the background, or by nohup, inherits signals that are ignored, and so
# would the runs that the tests stop by them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# `--hypothesis-profile long` for many more examples than a suite has time for, new ones each time.
_COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("quick", max_examples=25, derandomize=True, **_COMMON)
settings.register_profile("long", max_examples=400, derandomize=False, print_blob=True, **_COMMON)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def project() -> pathlib.Path:
    """The root of the checkout."""
    return pathlib.Path(__file__).resolve().parent.parent
