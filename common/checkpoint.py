"""Checkpoints: one uncompressed zip of named arrays and a JSON part, written atomically."""

import collections
import concurrent.futures
import contextlib
import copy
import io
import json
import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_atomically

# What a damaged zip of arrays makes its readers raise, found by damaging some thousands.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, EOFError, OSError),
    *(ValueError, KeyError, RuntimeError, OverflowError, MemoryError),
)
_META = "checkpoint.json"
# 1: no header. 2: with it, a header under this name in the description.
FORMAT = 2
_HEADER = "checkpoint"
_TEMPORARY = "temporary"  # in the meta of one that gives way to the next


class CheckpointError(ValueError):
    """A checkpoint that is not there, cannot be read, or is none."""


def save(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], meta: Mapping) -> None:
    """Writes `arrays` under their names and `meta` as JSON, safe against power loss.

    The file is also an `.npz` that `np.load` opens. Beside `meta` it holds its own format version
    and dtype, shape and checksum of every array. Raises `CheckpointError` for an array whose dtype
    such a file cannot hold (objects; bfloat16, which would come back as raw bytes).
    """
    contents = {}
    with write_atomically(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, value in arrays.items():
                array = np.asarray(value)
                if array.dtype.kind in "OV":
                    raise CheckpointError(f"{name}: dtype {array.dtype} cannot be saved")
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
                crc = archive.getinfo(f"{name}.npy").CRC
                contents[name] = [array.dtype.str, list(array.shape), crc]
            header = {"format": FORMAT, "arrays": contents}
            archive.writestr(_META, json.dumps({_HEADER: header, **meta}))
        file.flush()
        os.fsync(file.fileno())


def load(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """Reads what `save` wrote, in this or an older format: (arrays by name, meta).

    Raises `CheckpointError` with one line if the file is truncated, damaged or something else, if
    something in it is missing, left over or changed, or if a later version wrote it.
    """
    with _one_line(path), zipfile.ZipFile(path) as archive:
        meta, header = _read_meta(path, archive)
        crcs = {
            info.filename.removesuffix(".npy"): info.CRC
            for info in archive.infolist()
            if info.filename != _META
        }
        arrays = {
            name: np.lib.format.read_array(
                io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False
            )
            for name in crcs
        }
        _check_contents(path, header, arrays, crcs)
    return arrays, meta


def load_meta(path: str | os.PathLike) -> dict:
    """The meta of a checkpoint alone, in milliseconds; errors as those of `load`."""
    with _one_line(path), zipfile.ZipFile(path) as archive:
        return _read_meta(path, archive)[0]


@contextlib.contextmanager
def _one_line(path: str | os.PathLike) -> Iterator[None]:
    """Turns what a damaged file raises into a `CheckpointError`."""
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except CheckpointError:
        raise
    except DAMAGE as error:
        raise CheckpointError(
            f"{path}: truncated, damaged or not a checkpoint ({error})"
        ) from error


def _read_meta(path: str | os.PathLike, archive: zipfile.ZipFile) -> tuple[dict, Any]:
    """The meta, and the header of the format, None in the first."""
    meta = json.loads(archive.read(_META))
    if not isinstance(meta, dict) or not meta:
        raise CheckpointError(f"{path}: its description is empty")
    header = meta.pop(_HEADER, None)
    _check_version(path, header)
    return meta, header


def _check_version(path: str | os.PathLike, header: Any) -> None:
    """The first format had no header."""
    if header is None:
        return
    if not isinstance(header, dict) or not isinstance(header["arrays"], dict):
        raise ValueError("its header is none")  # of the kind that `_one_line` reports
    version = header["format"]
    if not isinstance(version, int) or not 1 < version <= FORMAT:
        raise CheckpointError(
            f"{path}: written in format {version}; this version reads up to {FORMAT}"
        )


def _check_contents(
    path: str | os.PathLike, header: Any, arrays: Mapping[str, np.ndarray], crcs: Mapping[str, int]
) -> None:
    """Whether the arrays are those that were saved. zipfile has compared contents with `crcs`."""
    if header is None:
        return
    expected = header["arrays"]
    for name in [*expected, *arrays]:
        if name not in arrays:
            raise CheckpointError(f"{path}: {name} is missing")
        if name not in expected:
            raise CheckpointError(f"{path}: {name} does not belong to it")
        found = [arrays[name].dtype.str, list(arrays[name].shape), crcs[name]]
        if found != expected[name]:
            raise CheckpointError(f"{path}: {name} is not what was saved (checksum)")


class Checkpoints:
    """The checkpoints of a run, `directory/<agent steps, 12 digits>.npz`; `keep` of them stay.

    A temporary one stays only until the next is written, and takes none of those places. Nor does
    one that cannot be read, which is never a reason to remove one that can.
    """

    def __init__(self, directory: str | os.PathLike, keep: int):
        if keep < 1:
            raise ValueError(f"keep_checkpoints {keep}: expected at least 1")
        self._directory = Path(directory)
        self._keep = keep
        self._temporary: Path | None = None
        self._known: dict[Path, bool] = {}  # written or read by this process: is it temporary?
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._writing: collections.deque[concurrent.futures.Future] = collections.deque()

    def save(
        self,
        agent_steps: int,
        arrays: Mapping[str, np.ndarray],
        meta: Mapping,
        temporary: bool = False,
    ) -> Path:
        """Writes the checkpoint of `agent_steps`, then removes the oldest beyond `keep`.

        The one just written stays in any case, even if a run that went back leaves newer ones.
        """
        self.wait()
        return self._save(agent_steps, arrays, meta, temporary)

    def _save(self, agent_steps: int, arrays: Mapping, meta: Mapping, temporary: bool) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{agent_steps:012d}.npz"
        temporary = temporary and (path == self._temporary or not path.exists())
        save(path, arrays, {**meta, _TEMPORARY: True} if temporary else meta)
        self._known[path] = temporary
        if self._temporary not in (None, path):
            self._temporary.unlink(missing_ok=True)
        self._temporary = path if temporary else None
        if not temporary:
            self._clear_away(path)
        return path

    def _clear_away(self, newest: Path) -> None:
        """Removes temporary ones that a killed process left, and the oldest beyond `keep`."""
        kinds = {path: self._is_temporary(path) for path in self.all() if path != newest}
        others = [path for path, temporary in kinds.items() if temporary is False]
        left = [path for path, temporary in kinds.items() if temporary]
        for path in (*left, *others[: max(0, len(others) - self._keep + 1)]):
            path.unlink()

    def save_behind(
        self,
        agent_steps: int,
        arrays: Mapping[str, np.ndarray],
        meta: Mapping,
        temporary: bool = False,
    ) -> None:
        """`save` in a thread: large checkpoints take seconds on a slow disk.

        Waits only where two are under way already, since each holds a copy of the agent. The arrays
        must not be changed afterwards. What goes wrong is raised by one of the next calls, or by
        `wait`.
        """
        while self._writing and (len(self._writing) > 1 or self._writing[0].done()):
            self._writing.popleft().result()
        meta = copy.deepcopy(dict(meta))
        self._writing.append(self._writer.submit(self._save, agent_steps, arrays, meta, temporary))

    def wait(self) -> None:
        """Until what was begun is on disk; raises the first thing that went wrong with it."""
        writing = [*self._writing]
        self._writing.clear()
        concurrent.futures.wait(writing)
        for found in writing:
            found.result()

    def load(self, path: Path) -> tuple[dict[str, np.ndarray], dict]:
        """As the function `load`. A temporary one gives way to the next, as if just written."""
        arrays, meta = load(path)
        self._known[path] = meta.pop(_TEMPORARY, False)
        if self._known[path]:
            self._temporary = path
        return arrays, meta

    def _is_temporary(self, path: Path) -> bool | None:
        """Whether it gives way to the next one; None for one that cannot be read."""
        if path not in self._known:
            try:
                self._known[path] = load(path)[1].get(_TEMPORARY, False)
            except CheckpointError:
                return None
        return self._known[path]

    def all(self) -> list[Path]:
        """Every checkpoint, fewest agent steps first."""
        if not self._directory.is_dir():
            return []
        names = (p for p in self._directory.iterdir() if re.fullmatch(r"\d{12}\.npz", p.name))
        return sorted(names)

    def latest(self) -> Path | None:
        """The checkpoint of the most agent steps, or None; what is being written counts."""
        concurrent.futures.wait(self._writing)
        return next(reversed(self.all()), None)

    def path(self, agent_steps: int | None = None) -> Path:
        """The checkpoint of `agent_steps`, by default the latest; `CheckpointError` if none."""
        found = self.all()
        if not found:
            raise CheckpointError(f"{self._directory}: no checkpoint here")
        if agent_steps is None:
            return found[-1]
        path = self._directory / f"{agent_steps:012d}.npz"
        if path not in found:
            steps = ", ".join(str(int(p.stem)) for p in found)
            raise CheckpointError(
                f"{self._directory}: no checkpoint of agent step {agent_steps}; there are {steps}"
            )
        return path
