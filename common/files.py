"""Files that are whole or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path` that takes its place when the block ends well.

    A reader sees the old file or the whole new one, never a part; if the block raises, the
    temporary file is removed and `path` stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
