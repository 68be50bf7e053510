"""Where a run was computed: one line of `starts.jsonl` for each time that its command started."""

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import common
from common.device import gpu_name

FILE = "starts.jsonl"
PACKAGES = ("tensorflow", "numpy", "gymnasium")


class Start(NamedTuple):
    """A start of a run, or its going on from a checkpoint."""

    agent_steps: int  # where it started
    machine: str
    versions: str


def note(logdir: Path, agent_steps: int) -> None:
    """Appends a start on this machine; OSError where the file cannot be written."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    start = Start(agent_steps, machine(), versions())
    with (logdir / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": now, **start._asdict()}) + "\n")


def read(logdir: Path) -> list[Start]:
    """The starts of a run, oldest first. Lines that are none are passed over, such as the half of
    one that a full disk left."""
    path = logdir / FILE
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return [start for line in text.splitlines() if (start := _start(line))]


def _start(line: str) -> Start | None:
    try:
        found: Any = json.loads(line)
        return Start(int(found["agent_steps"]), str(found["machine"]), str(found["versions"]))
    except (ValueError, RecursionError, LookupError, TypeError, OverflowError):
        return None


def machine() -> str:
    """This machine: GPU, if TensorFlow can use one, processor, cores and system."""
    parts = [gpu_name(), _processor(), f"{os.cpu_count()} cores", platform.system()]
    return ", ".join(filter(None, parts))


def versions() -> str:
    """The versions in use here."""
    own = [f"dreamerv2 {common.__version__}", f"Python {platform.python_version()}"]
    packages = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    return ", ".join(own + packages)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
