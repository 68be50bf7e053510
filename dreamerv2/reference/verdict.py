"""What the comparison of this code with the author's numbers came to, measured once per version."""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from common.files import write_json

PACKAGE = Path(__file__).resolve().parents[1]
NAME = "atari.npz"
VERSIONS = ("tensorflow", "numpy")
AGREES, DIFFERS = 0, 1  # exit codes of the command `parity`


def golden_file() -> Path:
    """Numbers of the author's code that come with the project: in the installed package, or in
    `tests/` of a checkout. FileNotFoundError if they were removed."""
    places = [PACKAGE / "golden" / NAME, PACKAGE.parent / "tests" / "golden" / NAME]
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(f"{places[0]} does not exist; name a golden file")


def measure(path: Path) -> str:
    """What the command `parity` prints of a golden file; half a minute of a core.

    Raises:
        ValueError: the file cannot be used, or the command broke.
    """
    command = [sys.executable, "-m", "dreamerv2.parity", str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    text = result.stdout.strip()
    if result.returncode not in (AGREES, DIFFERS) or not text:  # Python's own code is 1 as well
        said = result.stderr.strip().splitlines() or [f"parity ended with code {result.returncode}"]
        raise ValueError(said[-1].removeprefix("error: "))
    return text


def known() -> str | None:
    """What `measured` has found for this version of the code, if it was ever called."""
    try:
        kept = json.loads(_memory().read_text(encoding="utf-8"))
        return kept["text"] if kept["version"] == _version() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def measured() -> str:
    """The comparison with the numbers that come with the project.

    It is made once for each version of this code and of what computes, and then known: in
    `dreamerv2/parity.json` below XDG_CACHE_HOME or `~/.cache`, if that can be written.
    """
    text = known()
    if text is None:
        text = measure(golden_file())
        try:
            _memory().parent.mkdir(parents=True, exist_ok=True)
            write_json(_memory(), {"version": _version(), "text": text})
        except OSError:
            pass  # measured again next time
    return text


def _memory() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "dreamerv2" / "parity.json"


@functools.cache
def _version() -> str:
    """Of all that the numbers depend on: our sources, the golden file, packages, machine."""
    digest = hashlib.sha256()
    sources = sorted([*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "common").rglob("*.py")])
    for path in [*sources, golden_file()]:
        digest.update(path.read_bytes())
    versions = [f"{name} {importlib.metadata.version(name)}" for name in VERSIONS]
    for text in (*versions, platform.machine(), platform.node()):
        digest.update(text.encode())
    return digest.hexdigest()
