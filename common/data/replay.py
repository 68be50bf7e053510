"""Replay: episodes in files, as many of them in memory as fit, sampled as chunks `[B, T, ...]`."""

import dataclasses
import datetime
import io
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.checkpoint import DAMAGE
from common.data.driver import stored_dtype
from common.data.rows import problem
from common.files import write_atomically

_NAME = re.compile(r"(\d{8}T\d{6})[^-]*-[^-]+-(\d+)\.npz")
_STAMP = "%Y%m%dT%H%M%S"
_GIB = 2**30

_log = logging.getLogger(__name__)


class _Stored(NamedTuple):
    """An episode file; `length` counts steps, so it has one row more."""

    name: str
    length: int


class _Sequence(NamedTuple):
    """Rows `start` to `stop` of the arrays of an episode, not yet copied into a chunk."""

    arrays: dict[str, np.ndarray]
    start: int
    stop: int


class Replay:
    """Stores finished episodes and samples chunks from them.

    Args:
      directory: where the episodes are, `TIMESTAMP-UUID-LENGTH.npz` with LENGTH = rows - 1;
        created if absent. Only names are read here: an episode is loaded when first sampled.
      capacity: steps to keep (0: no bound). Adding an episode deletes the oldest files beyond it.
      ongoing: whether the episodes under way are sampled from, too.
      minlen: fewest steps of an episode that is kept, and fewest rows of a sampled sequence.
      maxlen: most rows of a sampled sequence (0: no bound).
      prioritize_ends: sample the end of an episode more often.
      memory_gib: GiB of memory for episodes (0 or None: half of the machine's). Those that came
        first leave it first, and are read from their files when they are sampled again (uniform
        sampling hits no more often under another order).
      seed: of the sampling. Same seed and same episodes give the same samples: episodes are
        numbered by file name, which is the order in which they were added.
      keys: what batches contain and memory holds, `is_first` in any case; None: every key.
        Keys that start with `log_` are in the files only.
      spaces: by key, what a row of each of `keys` is; None: what it is in the first episode.

    Not thread-safe.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        capacity: int | float,
        ongoing: bool = False,
        minlen: int = 1,
        maxlen: int = 0,
        prioritize_ends: bool = False,
        memory_gib: float | None = None,
        seed: int = 0,
        keys: Collection[str] | None = None,
        spaces: Mapping[str, Any] | None = None,
    ):
        _check_settings(capacity, minlen, maxlen, memory_gib)
        self._directory = Path(directory)
        self._capacity = int(capacity)
        self._ongoing = ongoing
        self._minlen = int(minlen)
        self._maxlen = int(maxlen)
        self._prioritize_ends = prioritize_ends
        self._keys = None if keys is None else {*keys, "is_first"}
        self._rng = np.random.default_rng(seed)
        self._memory: dict[str, dict[str, np.ndarray]] = {}
        self._memory_bytes = 0
        self._memory_limit = int(memory_gib * _GIB) if memory_gib else machine_memory() // 2
        self._spec: dict[str, tuple[np.dtype, tuple[int, ...]]] | None = None
        self._expected_by = "in other episodes"
        if spaces is not None:
            self._expected_by = "expected"
            wanted = {key: space for key, space in spaces.items() if self._wanted(key)}
            self._spec = {k: (stored_dtype(s.dtype), tuple(s.shape)) for k, s in wanted.items()}
        self._running: defaultdict[int, _Growing] = defaultdict(_Growing)
        self._total_steps = self._total_episodes = 0
        self._pending: _Sequence | None = None
        self._short = self._damaged = self._bad = 0
        self._directory.mkdir(parents=True, exist_ok=True)
        self._list_files()

    def add_step(self, transition: Mapping[str, Any], env: int = 0) -> None:
        """Appends one row; a row with `is_last` completes the episode and writes its file.

        A row with `is_first` drops an episode that was not completed, so that two episodes are
        never glued together. `env` numbers the environments whose episodes are under way at once.
        """
        running = self._running[env]
        if transition["is_first"]:
            running.clear()
        running.append(transition)
        if transition["is_last"]:
            self._add_episode(running.arrays())
            running.clear()

    def put_aside(self, rows: Sequence[Mapping[str, Any]], reason: str, env: int = 0) -> Path:
        """Drops the episode under way in `env`, whose rows these are; they are kept for people.

        They go to a file named like an episode with `.bad` behind it, which nothing here reads
        again, with `reason` among the keys.
        """
        self._running[env].clear()
        self._bad += 1
        path = self._directory / f"{self._new_name(max(len(rows) - 1, 0))}.bad"
        arrays = {key: np.stack([row[key] for row in rows]) for key in (rows[0] if rows else ())}
        with write_atomically(path) as file:
            np.savez_compressed(file, reason=np.array(reason), **arrays)  # type: ignore[arg-type]
        return path

    def batches(self, batch: int, length: int) -> Iterator[dict[str, np.ndarray]]:
        """Batches `{key: [batch, length, ...]}` without end, each of consecutive chunks.

        A chunk is filled from as many sequences as it takes. Where a sequence starts, in the
        chunk, `is_first` is true, whatever was stored. A sequence that is cut by the end of a
        chunk continues in the next one, with `is_first` as stored.

        Raises `ValueError` when there is no episode to sample from, or when episodes differ in
        keys, shapes or dtypes. The arrays are the caller's.
        """
        if batch < 1 or length < 1:
            raise ValueError(f"dataset.batch {batch}, dataset.length {length}: expected at least 1")
        while True:
            yield self._batch(batch, length)

    @property
    def stats(self) -> dict[str, int]:
        """Counts as the reference logs them, and what was skipped.

        `total_*` counts what was ever added, `loaded_*` what can be sampled now; steps exclude
        the row of the reset.
        """
        return {
            "total_steps": self._total_steps,
            "total_episodes": self._total_episodes,
            "loaded_steps": self._steps,
            "loaded_episodes": len(self._index),
            "short_episodes": self._short,
            "damaged_episodes": self._damaged,
            "bad_episodes": self._bad,
            "memory_bytes": self._memory_bytes,
            "memory_episodes": len(self._memory),
        }

    def state(self) -> dict[str, np.ndarray]:
        """What a fresh `Replay` on the same files needs to draw exactly the same from here on.

        The episodes under way are not in it: after a restart, their environments are gone.
        """
        state = {
            "generator": np.array(json.dumps(self._rng.bit_generator.state)),
            "totals": np.array([self._total_steps, self._total_episodes]),
        }
        if self._pending is not None and self._spec is not None:
            arrays, start, stop = self._pending
            for key, (dtype, _) in self._spec.items():
                state[f"pending/{key}"] = arrays[key][start:stop].astype(dtype)
        return state

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Continues where `state()` was taken."""
        self._rng.bit_generator.state = json.loads(str(state["generator"]))
        steps, episodes = (int(count) for count in state["totals"])
        self._total_steps = max(steps, self._total_steps)
        self._total_episodes = max(episodes, self._total_episodes)
        pending = {
            key.removeprefix("pending/"): np.asarray(value)
            for key, value in state.items()
            if key.startswith("pending/")
        }
        self._pending = None
        if pending:
            pending = self._sampled(pending, "the saved state")
            self._pending = _Sequence(pending, 0, len(pending["is_first"]))

    def capacity_report(self, row: Mapping[str, Any]) -> "CapacityReport":
        """What a full buffer takes. `row`: per key, `action` too, a space or array of one row.

        The size on disk assumes that the next episodes compress as well as those in the
        directory, or not at all when there are none.
        """
        sizes = {key: row_bytes(value) for key, value in row.items()}
        used = sum((self._directory / name).stat().st_size for name, _ in self._index)
        raw = sum(length + 1 for _, length in self._index) * sum(sizes.values())
        steps = self._capacity or 1_000_000
        return CapacityReport(
            steps=steps,
            memory_bytes=steps * sum(size for key, size in sizes.items() if self._wanted(key)),
            memory_limit=self._memory_limit,
            disk_bytes=int(steps * sum(sizes.values()) * (used / raw if raw else 1)),
            disk_available=shutil.disk_usage(self._directory).free + used,
        )

    def _list_files(self) -> None:
        names = sorted(os.listdir(self._directory))
        found = [(name, _NAME.fullmatch(name)) for name in names]
        stored = [_Stored(name, int(match[2])) for name, match in found if match]
        self._index = [episode for episode in stored if episode.length >= self._minlen]
        self._steps = sum(episode.length for episode in self._index)
        self._total_steps = sum(episode.length for episode in stored)
        self._total_episodes = len(stored)
        self._last_name = stored[-1].name if stored else ""
        self._short = len(stored) - len(self._index)
        if self._short:
            _log.warning(
                "%s: %d episodes have fewer than minlen = %d steps and are not used",
                *(self._directory, self._short, self._minlen),
            )

    def _add_episode(self, episode: dict[str, np.ndarray]) -> None:
        length = len(episode["is_first"]) - 1
        if length < self._minlen:
            self._short += 1
            if self._short & (self._short - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...
                _log.warning(
                    "episode of %d steps not kept: minlen is %d (%d so far)",
                    *(length, self._minlen, self._short),
                )
            return
        sampled = self._sampled(episode, "the new episode")
        name = self._new_name(length)
        with write_atomically(self._directory / name) as file:
            np.savez_compressed(file, **episode)  # type: ignore[arg-type]
        self._index.append(_Stored(name, length))
        self._steps += length
        self._total_steps += length
        self._total_episodes += 1
        self._remember(name, {key: value.copy() for key, value in sampled.items()})
        while self._capacity and self._steps > self._capacity and len(self._index) > 1:
            self._forget(0)

    def _new_name(self, length: int) -> str:
        """A name that sorts after all others, even if the clock stands still or goes back."""
        stamp = max(datetime.datetime.now().strftime(_STAMP), self._last_name[:15])
        unique = f"{time.time_ns():016x}{secrets.token_hex(8)}"
        if f"{stamp}-{unique}" <= self._last_name:
            later = datetime.datetime.strptime(stamp, _STAMP) + datetime.timedelta(seconds=1)
            stamp = later.strftime(_STAMP)
        self._last_name = f"{stamp}-{unique}-{length}.npz"
        return self._last_name

    def _batch(self, batch: int, length: int) -> dict[str, np.ndarray]:
        out: dict[str, np.ndarray] = {}
        for b in range(batch):
            t = 0
            while t < length:
                starts = self._pending is None
                arrays, start, stop = self._pending or self._draw()
                if not out:
                    assert self._spec is not None  # `_draw` has seen an episode
                    out = {
                        key: np.empty((batch, length, *shape), dtype)
                        for key, (dtype, shape) in self._spec.items()
                    }
                rows = min(stop - start, length - t)
                for key, target in out.items():
                    target[b, t : t + rows] = arrays[key][start : start + rows]
                if starts:
                    out["is_first"][b, t] = True
                t += rows
                rest = _Sequence(arrays, start + rows, stop)
                self._pending = rest if rest.start < stop else None
        return out

    def _draw(self) -> _Sequence:
        """One sequence: episodes are equally likely, whatever their length."""
        while True:
            running = [r for r in self._running.values() if r.rows - 1 >= self._minlen]
            running = running if self._ongoing else []
            if not self._index and not running:
                raise ValueError(
                    f"{self._directory}: no episode to sample from: replay.minlen {self._minlen} "
                    f"asks for episodes of that many steps; {self._short} were shorter, "
                    f"{self._damaged} damaged"
                )
            pick = int(self._rng.integers(len(self._index) + len(running)))
            under_way = pick - len(self._index)
            growing = running[under_way] if under_way >= 0 else None
            total = growing.rows if growing is not None else self._index[pick].length + 1
            length = min(total, self._maxlen) if self._maxlen else total
            # Episodes of one length would otherwise have all their chunks end together.
            length = max(self._minlen, length - int(self._rng.integers(self._minlen)))
            widened = self._minlen if self._prioritize_ends else 0
            start = int(self._rng.integers(total - length + 1 + widened))
            start = min(start, total - length)
            if growing is not None:
                arrays = self._sampled(growing.arrays(), "the episode under way")
                rows = slice(start, start + length)
                return _Sequence({k: v[rows].copy() for k, v in arrays.items()}, 0, length)
            loaded = self._load(pick)
            if loaded is not None:
                return _Sequence(loaded, start, start + length)

    def _load(self, pick: int) -> dict[str, np.ndarray] | None:
        """The arrays of episode `pick`, or None if its file is no good and was put aside."""
        name, length = self._index[pick]
        if name in self._memory:
            return self._memory[name]
        path = self._directory / name
        try:
            content = io.BytesIO(path.read_bytes())
        except FileNotFoundError:
            _log.warning("%s: gone; skipped", path)
        else:
            try:
                episode = self._read(content, length + 1)
            except DAMAGE as error:
                os.replace(path, path.with_name(f"{name}.damaged"))
                _log.warning("%s: damaged (%s); skipped and renamed to *.damaged", path, error)
            else:
                return self._remember(name, self._sampled(episode, str(path)))
        self._damaged += 1
        self._forget(pick)
        return None

    def _read(self, content: io.BytesIO, rows: int) -> dict[str, np.ndarray]:
        with np.load(content, allow_pickle=False) as file:
            episode = {key: file[key] for key in file.files if self._wanted(key)}
        for key, value in episode.items():
            if value.shape[:1] != (rows,):
                raise ValueError(f"{key} has shape {value.shape}, expected {rows} rows")
            episode[key] = value.astype(stored_dtype(value.dtype), copy=False)
        broken = problem(episode)
        if broken:
            raise ValueError(broken)
        return episode

    def _wanted(self, key: str) -> bool:
        return not key.startswith("log_") and (self._keys is None or key in self._keys)

    def _sampled(self, episode: dict[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
        """The part of an episode that batches contain, checked to be like all others."""
        spec = {k: (v.dtype, v.shape[1:]) for k, v in episode.items() if self._wanted(k)}
        if self._spec is None:
            missing = (self._keys or {"is_first"}) - spec.keys()
            if missing:
                raise ValueError(f"{source}: keys {sorted(missing)} are missing")
            self._spec = spec
        for key in {**self._spec, **spec}:
            if spec.get(key) != self._spec.get(key):
                raise ValueError(
                    f"{source}: {key} is {_describe(spec.get(key))}, "
                    f"{self._expected_by} {_describe(self._spec.get(key))}"
                )
        return {key: episode[key] for key in spec}

    def _remember(self, name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Keeps an episode in memory; the ones that came first make room for it."""
        arrays = {key: _narrow(value) for key, value in arrays.items()}
        self._memory[name] = arrays
        self._memory_bytes += _nbytes(arrays)
        while self._memory_bytes > self._memory_limit:
            self._memory_bytes -= _nbytes(self._memory.pop(next(iter(self._memory))))
        return arrays

    def _forget(self, pick: int) -> None:
        """Removes an episode from the index, from memory and from the disk."""
        name, length = self._index.pop(pick)
        self._steps -= length
        self._memory_bytes -= _nbytes(self._memory.pop(name, {}))
        (self._directory / name).unlink(missing_ok=True)


class _Growing:
    """The rows of an episode under way, in arrays that double: a row costs O(1), amortised.

    The arrays are used again for the next episode: giving them back each time leaves holes in
    the heap that cost 5 % of the memory of a replay.
    """

    def __init__(self):
        self.rows = 0
        self._buffers: dict[str, np.ndarray] = {}

    def append(self, row: Mapping[str, Any]) -> None:
        if not self._buffers:
            for key, value in row.items():
                value = np.asarray(value)
                self._buffers[key] = np.empty((64, *value.shape), stored_dtype(value.dtype))
        if row.keys() != self._buffers.keys():
            raise ValueError(f"row has keys {sorted(row)}, expected {sorted(self._buffers)}")
        for key, value in row.items():
            buffer = self._buffers[key]
            if self.rows == len(buffer):
                self._buffers[key] = np.empty((2 * self.rows, *buffer.shape[1:]), buffer.dtype)
                self._buffers[key][: self.rows] = buffer
                buffer = self._buffers[key]
            buffer[self.rows] = value
        self.rows += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """Views `[rows, ...]`, valid until `clear`."""
        return {key: buffer[: self.rows] for key, buffer in self._buffers.items()}

    def clear(self) -> None:
        self.rows = 0


@dataclasses.dataclass(frozen=True)
class CapacityReport:
    """What a full replay of `steps` steps takes; the text of it is for the user."""

    steps: int
    memory_bytes: int  # if all of it were in memory
    memory_limit: int
    disk_bytes: int
    disk_available: int  # free, or taken by these episodes already

    @property
    def disk_suffices(self) -> bool:
        return self.disk_bytes <= self.disk_available

    def __str__(self) -> str:
        text = (
            f"{self.steps:,} steps take {self.memory_bytes / _GIB:.2f} GiB of memory "
            f"(limit {self.memory_limit / _GIB:.2f}) and {self.disk_bytes / _GIB:.2f} GiB of disk "
            f"({self.disk_available / _GIB:.2f} available)"
        )
        if self.memory_bytes > self.memory_limit:
            text += "; what does not fit in memory is read from its file when sampled"
        if not self.disk_suffices:
            text += "; the disk is too small"
        return text


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less in a container."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = Path(path)
        if limit.exists():
            text = limit.read_text().strip()
            total = min(total, int(text)) if text.isdigit() else total
    return total


def _check_settings(capacity, minlen, maxlen, memory_gib) -> None:
    if capacity < 0:
        raise ValueError(f"replay.capacity {capacity}: expected 0 (no bound) or a number of steps")
    if minlen < 1:
        raise ValueError(f"replay.minlen {minlen}: expected at least 1")
    if maxlen and maxlen < minlen:
        raise ValueError(f"replay.maxlen {maxlen}: expected 0 or at least minlen ({minlen})")
    if memory_gib is not None and memory_gib < 0:
        raise ValueError(f"replay.memory_gib {memory_gib}: expected 0 (half of the RAM) or more")


def _narrow(array: np.ndarray) -> np.ndarray:
    """As uint8, if no value changes by it: one-hot actions and the rewards of many games.

    Batches are widened again when they are filled. Saves 15 of 4119 bytes of a row of Breakout
    with 4 actions, 57 of 4175 with 18.
    """
    if array.dtype.kind in "fi" and array.size and array.min() >= 0 and array.max() <= 255:
        small = array.astype(np.uint8)
        if (small == array).all():
            return small
    return array


def _nbytes(arrays: Mapping[str, np.ndarray]) -> int:
    return sum(value.nbytes for value in arrays.values())


def row_bytes(value: Any) -> int:
    """Bytes of one stored row of a space, or of an array like it."""
    return int(np.prod(value.shape)) * stored_dtype(np.dtype(value.dtype)).itemsize


def _describe(spec: tuple[np.dtype, tuple[int, ...]] | None) -> str:
    return "absent" if spec is None else f"{spec[0]} {list(spec[1])}"
