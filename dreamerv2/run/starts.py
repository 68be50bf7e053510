"""Where a run was computed: one line of `starts.jsonl` for each time that its command started."""

import datetime
import importlib
import json
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import common
from common.device import gpu_name, processor
from common.files import close_last_line

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
    close_last_line(logdir / FILE)
    with (logdir / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": now, **start._asdict()}) + "\n")


def read(logdir: Path) -> list[Start]:
    """The starts of a run, oldest first. Where it went back, those that came to nothing are left
    out; lines that are none are passed over, such as the half of one that a full disk left."""
    path = logdir / FILE
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found: list[Start] = []
    for start in filter(None, map(_start, text.splitlines())):
        while found and found[-1].agent_steps >= start.agent_steps:
            found.pop()
        found.append(start)
    return found


def _start(line: str) -> Start | None:
    try:
        found: Any = json.loads(line)
        return Start(int(found["agent_steps"]), str(found["machine"]), str(found["versions"]))
    except (ValueError, RecursionError, LookupError, TypeError, OverflowError):
        return None


def machine() -> str:
    """This machine: GPU, if TensorFlow can use one, processor, cores and system."""
    parts = [gpu_name(), processor(), f"{os.cpu_count()} cores", platform.system()]
    return ", ".join(filter(None, parts))


def versions() -> str:
    """The versions in use here."""
    own = [f"dreamerv2 {common.__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*own, *(f"{name} {_version(name)}" for name in PACKAGES)])


def _version(package: str) -> str:
    """TensorFlow may have come under another name, such as tensorflow-cpu."""
    return str(getattr(importlib.import_module(package), "__version__", "unknown"))
