"""Keeps what native libraries write past Python to descriptor 2 out of the user's sight."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what is written to descriptor 2; show it if the body raises, else drop it.

    Python's own `sys.stderr` is held back as well where it writes to that descriptor.
    """
    sys.stderr.flush()
    try:
        visible = os.dup(2)
    except OSError:  # there is no descriptor 2, so nothing to hide
        yield
        return
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            _back(visible)
            hidden.seek(0)
            os.write(2, hidden.read())
            raise
        _back(visible)


def _back(visible: int) -> None:
    sys.stderr.flush()
    os.dup2(visible, 2)
    os.close(visible)
