"""One run, one process: a lock on the logdir that ends with the process that holds it."""

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import socket
from pathlib import Path
from typing import NamedTuple

NAME = ".lock"
# What file systems say that have no locks, some network ones among them.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


_log = logging.getLogger(__name__)


class LockedError(ValueError):
    """Another process has a run in this logdir."""


class Holder(NamedTuple):
    """Who has a run in a logdir."""

    host: str
    pid: int
    since: str  # local time of that host

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


class RunLock:
    """Held from construction to `release`, or to the end of the process, however it ends.

    `fcntl` locks are seen by all hosts that share a directory over NFS, and children of the process
    do not inherit them. They do not keep out their own process; `_held` does. Where the file system
    has no locks there is a warning and no protection.

    Raises:
        LockedError: another process has the logdir; the message says which.
        OSError: the logdir cannot be made or written.
    """

    _held: set[Path] = set()

    def __init__(self, logdir: Path):
        self._made = _make_directories(logdir)
        self._path = logdir.resolve() / NAME
        self._file: int | None = None
        # Opened and closed once more, the file would take this process's lock with it.
        if self._path in self._held:
            raise LockedError(_message(logdir, "this process"))
        try:
            self._file = _open_locked(self._path)
        except BlockingIOError:
            raise LockedError(_message(logdir, str(holder(logdir) or "another process"))) from None
        except BaseException:
            self._remove_directories()
            raise
        self._held.add(self._path)
        _write(self._file, Holder(socket.gethostname(), os.getpid(), _now()))

    def release(self, leave_nothing: bool = False) -> None:
        """Gives the logdir free. leave_nothing: remove what the constructor made, where empty."""
        if self._file is None:
            return
        self._path.unlink(missing_ok=True)  # before the lock ends: no one else has it now
        os.close(self._file)
        self._file = None
        self._held.discard(self._path)
        if leave_nothing:
            self._remove_directories()

    def _remove_directories(self) -> None:
        for directory in self._made:
            try:
                directory.rmdir()
            except OSError:  # something is in it
                return


def holder(logdir: Path) -> Holder | None:
    """Who has a run in this logdir; None if nobody."""
    path = logdir.resolve() / NAME
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except OSError as error:
        return None if error.errno in _NO_LOCKS else _read(file)
    finally:
        os.close(file)


def _open_locked(path: Path) -> int:
    """The lock file, opened and locked; BlockingIOError when someone else has it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(file)
                raise BlockingIOError from error
            _log.warning("%s: this file system has no locks; start no second run here", path)
            return file
        # Its holder may have removed it after we opened it: then we have locked nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)


def _read(file: int) -> Holder:
    try:
        return Holder(**json.loads(os.read(file, 4096)))
    except (ValueError, TypeError):  # it has not written its name yet
        return Holder("unknown", 0, "a moment ago")


def _write(file: int, who: Holder) -> None:
    with contextlib.suppress(OSError):  # on a full disk the lock holds, without a name
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(who._asdict()).encode(), 0)


def _now() -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")


def _make_directories(path: Path) -> list[Path]:
    """Makes a directory; those that were not there, the innermost first."""
    missing = [d for d in (path, *path.parents) if not d.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def _message(logdir: Path, who: str) -> str:
    return (
        f"logdir {logdir} has a run already: {who}; wait for it, end it (it saves), or name "
        "another --logdir"
    )
