"""The commands by name: `dreamerv2 train ...` is `python -m dreamerv2.train ...`."""

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from common import VERSION
from common.commands import USER_ERROR
from common.config import nearest

NOT_COMMANDS = {"__main__", "api"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first word names; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        print("usage: dreamerv2 COMMAND ...\n")
        print("\n".join(f"  {command:18}{summary(command)}" for command in names()))
        return 0
    if name == "--version":
        print(VERSION)
        return 0
    if name not in names():
        close = nearest(name, names()) or f"; there are {', '.join(names())}"
        sys.stderr.write(f"error: unknown command {name}{close}\n")
        return USER_ERROR
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does: `--env MODULE:FUNCTION` may be here
    return importlib.import_module(module(name)).main(rest)


def names() -> list[str]:
    """The commands: the modules beside this one, and the rooms that can be run."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(m.name for m in modules if m.name not in NOT_COMMANDS and source(m.name).exists())


def module(command: str) -> str:
    """The name of the module that has the command's `main`."""
    return f"dreamerv2.{command}" + (".__main__" if source(command).stem == "__main__" else "")


def source(command: str) -> Path:
    """Where the command is written; a room without a command has no such file."""
    place = Path(__file__).parent / command
    return place / "__main__.py" if place.is_dir() else place.with_suffix(".py")


def summary(command: str) -> str:
    """The first sentence of a command's docstring, read without running it."""
    text = source(command).read_text(encoding="utf-8")
    return text.split('"""')[1].split(":")[0].split(".\n")[0].strip()


if __name__ == "__main__":
    sys.exit(main())
