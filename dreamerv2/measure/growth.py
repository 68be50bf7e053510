"""What grows with the replay: the cost of a batch, the start of a run, memory, a checkpoint."""

import io
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.config import Config
from common.data.replay import Replay
from common.report.tables import table

EPISODE_STEPS = 100  # so that 500,000 steps are 5,000 files
SHARES = (0.01, 0.5, 1.0)
BATCHES = 200


def measure_growth(config: Config, shares: Sequence[float] = SHARES) -> list[dict[str, Any]]:
    """One row per share of `replay.capacity`, in files of `EPISODE_STEPS` agent steps.

    steps, episodes   in the replay
    open_seconds      until a `Replay` on these files is ready to draw
    memory_ms         a batch of `dataset`, all episodes in memory
    disk_ms           a batch whose episodes all come from their files
    state_ms          the replay's part of a checkpoint
    resident_gib      memory of the process, all episodes loaded

    Episodes are gray images and what belongs to them. All files are links to one: what is in them
    makes no difference, only how many they are.
    """
    if not config.replay.capacity:
        raise ValueError("replay.capacity: got 0, expected the agent steps of the largest replay")
    image = np.random.default_rng(0).integers(0, 256, (*config.render_size, 1), np.uint8)
    content = episode_file(image, EPISODE_STEPS)
    with tempfile.TemporaryDirectory() as root:
        first = Path(root) / "episode.npz"
        first.write_bytes(content)
        rows = []
        for index, share in enumerate(shares):
            episodes = max(1, int(config.replay.capacity * share) // EPISODE_STEPS)
            folder = Path(root) / str(index)
            folder.mkdir()
            for number in range(episodes):
                stamp = f"20260101T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}"
                os.link(first, folder / f"{stamp}-{number:016x}-{EPISODE_STEPS}.npz")
            rows.append(_measure(folder, config))
            print(f"{rows[-1]['steps']:,} agent steps measured", flush=True)
    return rows


def episode_file(image: np.ndarray, steps: int) -> bytes:
    """An episode of `steps` agent steps that shows one image, as replay stores it."""
    rows = steps + 1
    first, last = np.zeros((2, rows), bool)
    first[0], last[-1] = True, True
    episode = {
        "image": np.broadcast_to(image, (rows, *image.shape)),
        "action": np.zeros((rows, 4), np.float32),
        "reward": np.zeros(rows, np.float32),
        "is_first": first,
        "is_last": last,
        "is_terminal": last,
    }
    file = io.BytesIO()
    np.savez_compressed(file, **episode)  # type: ignore[arg-type]
    return file.getvalue()


def _measure(folder: Path, config: Config) -> dict[str, Any]:
    settings = {**config.replay, "capacity": 0}
    start = time.perf_counter()
    replay = Replay(folder, **{**settings, "memory_gib": None})
    open_seconds = time.perf_counter() - start
    stats = replay.stats
    sizes = (config.dataset.batch, config.dataset.length)
    batches = replay.batches(*sizes)
    while replay.stats["memory_episodes"] < stats["loaded_episodes"]:
        next(batches)
    # The least that is accepted: one episode stays in memory.
    from_disk = Replay(folder, **{**settings, "memory_gib": 1e-9}).batches(*sizes)
    return {
        "steps": stats["loaded_steps"],
        "episodes": stats["loaded_episodes"],
        "open_seconds": open_seconds,
        "memory_ms": _median_ms(lambda: next(batches)),
        "disk_ms": _median_ms(lambda: next(from_disk)),
        "state_ms": _median_ms(replay.state),
        "resident_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _median_ms(function: Callable[[], Any]) -> float:
    times = []
    for _ in range(BATCHES):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """One Markdown table, a row per size of the replay."""
    head = ["agent steps", "files", "opened in [s]", "batch from memory [ms]"]
    head += ["batch from disk [ms]", "its part of a checkpoint [ms]", "memory of the process [GiB]"]
    lines = [head]
    for row in rows:
        counts = [f"{row['steps']:,}", f"{row['episodes']:,}", f"{row['open_seconds']:.2f}"]
        times = [f"{row[key]:.1f}" for key in ("memory_ms", "disk_ms", "state_ms")]
        lines.append([*counts, *times, f"{row['resident_gib']:.2f}"])
    return table(lines)
