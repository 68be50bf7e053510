"""What is kept of a failure, and what is said of it."""

import errno
import traceback
from pathlib import Path

from common.files import write_atomically

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def describe(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def advice(error: BaseException) -> str:
    """What the user can do, ending in `, and `; nothing if that is not known."""
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return "free some space, and "
    return ""


def new_folder(logdir: Path, agent_steps: int) -> Path:
    """A folder for one failure, `failure/<agent steps, 12 digits>[-2, -3, ...]`."""
    base = logdir / "failure" / f"{agent_steps:012d}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    folder.mkdir(parents=True)
    return folder


def keep_traceback(logdir: Path, agent_steps: int, error: BaseException) -> str:
    """Writes `traceback.txt` into a folder of its own; the end of a message that says where."""
    try:
        path = new_folder(logdir, agent_steps) / "traceback.txt"
        with write_atomically(path) as file:
            file.write("".join(traceback.format_exception(error)).encode())
    except OSError:
        return ""
    return f"; traceback in {path}"
