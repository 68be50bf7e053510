"""Files that are whole or not there."""

import contextlib
import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_TEMPORARY = re.compile(r"\..+\.tmp")


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` that takes its place when the block ends well.

    A reader sees the old file or the whole new one, never a part; if the block raises, the
    temporary file is removed and `path` stays as it was. No two writers share a temporary file: of
    several that write at once, the last to finish wins, whole.

    A link stays one, and what is behind it is replaced. A device or a pipe (`/dev/null`,
    `/dev/stdout`) is written to.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a write does not know whose it is
        raise


def check_writable(path: str | os.PathLike) -> None:
    """OSError where `write_atomically` could not write this file; makes its directory if absent.

    For what is written at the end of long work.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with contextlib.suppress(_TriedError), write_atomically(path):
        raise _TriedError


class _TriedError(Exception):
    """Ends a write that was only a trial."""


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with write_atomically(path) as file:
        file.write(text.encode())


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Writes `content` as indented JSON, whole or not at all; ValueError for a NaN in it."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def close_last_line(path: str | os.PathLike) -> None:
    """Ends a text file with a newline, where a killed process or a full disk left half a line."""
    path = Path(path)
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that is being written, or was left half written."""
    return bool(_TEMPORARY.fullmatch(name))


def sweep_temporary(directory: Path) -> list[Path]:
    """Removes what killed writers left in a directory; returns what that was.

    Only for a directory that no one else is writing to.
    """
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if is_temporary(path.name)]
    for path in found:
        path.unlink(missing_ok=True)
    return found
