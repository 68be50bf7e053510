"""Runs in a store that no node mounts: s3://, gs:// and what else pyarrow reaches; file:// as well.

A node works in a folder of its own. Episodes and logs go to the store first, then the checkpoint
that needs them, so that what is there can be resumed at any moment.
"""

import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow
from pyarrow import fs

from common.files import is_temporary, write_atomically
from dreamerv2.jobs import record

CHECKPOINTS = "checkpoints"
# What the driver gets of a run: enough for tables and curves.
SMALL = ("config.yaml", "metrics.jsonl")
ERRORS = (OSError, pyarrow.ArrowException)
WAITS = (1.0, 5.0, 20.0, 60.0)  # seconds before a call is made again

T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """What a call gives; it is made again where the store was not reached for a while.

    Raises OSError when it never was.
    """
    for seconds in WAITS:
        try:
            return call()
        except ERRORS:
            time.sleep(seconds)
    try:
        return call()
    except pyarrow.ArrowException as error:
        raise OSError(str(error)) from error


class Storage:
    """A folder at a URI with a folder per run and its log beside it, as under a `--logdir`.

    Raises ValueError where the URI is none, or nothing can be made there.
    """

    def __init__(self, uri: str):
        self.uri = uri
        try:
            self.files, self.root = fs.FileSystem.from_uri(uri)
            self.files.create_dir(self.root, recursive=True)
        except ERRORS as error:
            why = " ".join(str(error).split())
            raise ValueError(f"--storage {uri}: {why}; expected s3://, gs:// or file:///") from None

    def steps(self, name: str) -> int:
        """Agent steps of the latest checkpoint of a run; -1 where there is none."""
        place = fs.FileSelector(f"{self.root}/{name}/{CHECKPOINTS}", allow_not_found=True)
        found = [
            re.fullmatch(r"(\d{12})\.npz", i.base_name) for i in self.files.get_file_info(place)
        ]
        return max((int(match[1]) for match in found if match), default=-1)

    def fetch(self, logdir: Path) -> None:
        """Makes a logdir what the store has of the run of that name, its log included."""
        shutil.rmtree(logdir, ignore_errors=True)
        if self._has(logdir.name, fs.FileType.Directory):
            self._sweep_temporary(logdir.name)
            logdir.mkdir(parents=True)
            fs.copy_files(
                f"{self.root}/{logdir.name}",
                str(logdir),
                source_filesystem=self.files,
                destination_filesystem=fs.LocalFileSystem(),
            )
        self._fetch_file(record.log_path(logdir))

    def _sweep_temporary(self, name: str) -> None:
        """Removes what a node that died has left half written of a run."""
        place = fs.FileSelector(f"{self.root}/{name}", recursive=True)
        for found in self.files.get_file_info(place):
            if is_temporary(found.base_name):
                self.files.delete_file(found.path)

    def fetch_small(self, logdir: Path) -> None:
        """Copies settings, metrics and log of a run, without episodes and checkpoints."""
        for name in SMALL:
            self._fetch_file(logdir / name, f"{logdir.name}/{name}")
        self._fetch_file(record.log_path(logdir))

    def _fetch_file(self, path: Path, name: str | None = None) -> None:
        name = name or path.name
        if self._has(name, fs.FileType.File):
            path.parent.mkdir(parents=True, exist_ok=True)
            stored = self.files.open_input_stream(f"{self.root}/{name}")
            with stored as source, write_atomically(path) as file:
                shutil.copyfileobj(source, file)

    def _has(self, name: str, kind: fs.FileType) -> bool:
        return self.files.get_file_info(f"{self.root}/{name}").type == kind


class Mirror:
    """Keeps the store equal to the logdir of a run that goes on, from one checkpoint to the next.

    At its start the two must be equal: see `Storage.fetch`.
    """

    def __init__(self, storage: Storage, logdir: Path):
        self._storage, self._logdir = storage, logdir
        self._stored = {path: _version(path) for path in self._local()}
        self._saved = self._checkpoints()

    def is_behind(self) -> bool:
        """Whether there are other checkpoints than at the last `push`."""
        return self._checkpoints() != self._saved

    def push(self) -> None:
        """Brings the store up to date; OSError or ArrowException where that fails."""
        saved = self._checkpoints()
        first = [path for path in self._local() if path.parent.name != CHECKPOINTS]
        for path in (*first, *saved):
            self._upload(path)
        gone = set(self._stored) - set(self._local())
        if not set(saved) <= set(self._stored):
            # The run has saved in the meantime: what the store has stays until the next push.
            gone = {path for path in gone if path.parent.name != CHECKPOINTS}
        for path in gone:
            self._storage.files.delete_file(self._address(path))
            del self._stored[path]
        self._saved = saved

    def _local(self) -> list[Path]:
        """The files of the run; what begins with a dot is locks, and files half written."""
        found = [self._logdir.parent / record.log_path(self._logdir).name]
        found += self._logdir.rglob("*")
        return sorted(p for p in found if p.is_file() and not p.name.startswith("."))

    def _checkpoints(self) -> dict[Path, tuple[int, int] | None]:
        paths = (self._logdir / CHECKPOINTS).glob("*.npz")
        return {path: _version(path) for path in sorted(paths)}

    def _upload(self, path: Path) -> None:
        """Whole or not at all; a file that has gone since it was listed is passed over."""
        version = _version(path)
        if version is None or version == self._stored.get(path):
            return
        files, target = self._storage.files, self._address(path)
        folder = PurePosixPath(target).parent
        part = str(folder / f".{path.name}.{secrets.token_hex(8)}.tmp")
        files.create_dir(str(folder), recursive=True)
        try:
            source = path.open("rb")
        except FileNotFoundError:
            return
        try:
            with source, files.open_output_stream(part) as out:
                shutil.copyfileobj(source, out, 2**20)
            files.move(part, target)
        except ERRORS:
            with contextlib.suppress(*ERRORS):
                files.delete_file(part)
            raise
        self._stored[path] = version

    def _address(self, path: Path) -> str:
        return f"{self._storage.root}/{path.relative_to(self._logdir.parent).as_posix()}"


def _version(path: Path) -> tuple[int, int] | None:
    """What changes when a file does; None where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns
