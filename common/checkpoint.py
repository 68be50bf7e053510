"""Checkpoints: one uncompressed zip of named arrays and a JSON part, written atomically."""

import io
import json
import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common.files import write_atomically

# What a damaged zip of arrays makes its readers raise, found by damaging some thousands.
DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, SyntaxError, EOFError, OSError),
    *(ValueError, KeyError, RuntimeError),
)
_META = "checkpoint.json"


class CheckpointError(ValueError):
    """A checkpoint that is not there, cannot be read, or is none."""


def save(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], meta: Mapping) -> None:
    """Writes `arrays` under their names and `meta` as JSON, safe against power loss.

    The file is also an `.npz` that `np.load` opens. Raises `CheckpointError` for an array whose
    dtype such a file cannot hold (objects; bfloat16, which would come back as raw bytes).
    """
    with write_atomically(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            archive.writestr(_META, json.dumps(dict(meta)))
            for name, array in arrays.items():
                array = np.asarray(array)
                if array.dtype.kind in "OV":
                    raise CheckpointError(f"{name}: dtype {array.dtype} cannot be saved")
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def load(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """Reads what `save` wrote: (arrays by name, meta).

    Raises `CheckpointError` with one line if the file is truncated, damaged or something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            meta = json.loads(archive.read(_META))
            arrays = {
                name.removesuffix(".npy"): np.lib.format.read_array(
                    io.BytesIO(archive.read(name)), allow_pickle=False
                )
                for name in archive.namelist()
                if name != _META
            }
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except DAMAGE as error:
        raise CheckpointError(
            f"{path}: truncated, damaged or not a checkpoint ({error})"
        ) from error
    return arrays, meta


def load_meta(path: str | os.PathLike) -> dict:
    """The meta of a checkpoint alone, in milliseconds; errors as those of `load`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read(_META))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except DAMAGE as error:
        raise CheckpointError(
            f"{path}: truncated, damaged or not a checkpoint ({error})"
        ) from error


class Checkpoints:
    """The checkpoints of a run, `directory/<agent steps, 12 digits>.npz`; `keep` of them stay.

    A temporary one stays only until the next is written, and takes none of those places.
    """

    def __init__(self, directory: str | os.PathLike, keep: int):
        if keep < 1:
            raise ValueError(f"keep_checkpoints {keep}: expected at least 1")
        self._directory = Path(directory)
        self._keep = keep
        self._temporary: Path | None = None

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
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{agent_steps:012d}.npz"
        temporary = temporary and (path == self._temporary or not path.exists())
        save(path, arrays, meta)
        if self._temporary not in (None, path):
            self._temporary.unlink(missing_ok=True)
        self._temporary = path if temporary else None
        if temporary:
            return path
        others = [other for other in self.all() if other != path]
        for other in others[: max(0, len(others) - self._keep + 1)]:
            other.unlink()
        return path

    def all(self) -> list[Path]:
        """Every checkpoint, fewest agent steps first."""
        if not self._directory.is_dir():
            return []
        names = (p for p in self._directory.iterdir() if re.fullmatch(r"\d{12}\.npz", p.name))
        return sorted(names)

    def latest(self) -> Path | None:
        """The checkpoint of the most agent steps, or None."""
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
