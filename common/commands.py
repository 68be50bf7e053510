"""What the commands share: how flags are read, and what a user's mistake looks like."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from common import VERSION

USER_ERROR = 2
# What goes wrong before a command starts its work is the user's to mend: a value, a file, a
# package that an option needs.
MISTAKES = (ValueError, OSError, ImportError)
# The process of a command is its own. There, TensorFlow need not load Keras 3 beside the Keras 2 of
# TensorFlow Probability, which takes a quarter of the start; nothing here uses either.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


def fill_standard_streams() -> None:
    """Gives a process that was started without stdin, stdout or stderr (`2>&-`) the null device.

    Python has None there, and the next file that is opened would get the free descriptor, into
    which native libraries then write.
    """
    if all((sys.stdin, sys.stdout, sys.stderr)):
        return
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


fill_standard_streams()


@contextlib.contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn the exceptions of a user's mistake into one line on stderr and exit code 2."""
    try:
        yield
    except BrokenPipeError:
        settle_stdout()
        sys.stderr.write("error: standard output was closed\n")
        raise SystemExit(USER_ERROR) from None
    except kinds as error:
        message = " ".join(str(error).split()) or type(error).__name__
        sys.stderr.write(f"error: {message}\n")
        raise SystemExit(USER_ERROR) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None


def settle_stdout() -> None:
    """Flushes standard output. Where its reader has gone (`| head`), what is left for it is
    dropped: Python's own flush at the end would fail once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and keeps the line breaks of a description."""


class Parser(argparse.ArgumentParser):
    """Flags of a command; a mistake is a ValueError.

    command: its name. description: for `--help`. run: whether it works on a finished run, which
    `--logdir`, `--checkpoint` and `--seed` then name. required: whether it needs `--logdir`.

    `parse_known_args` leaves flags that it does not know to `train`.
    """

    def __init__(self, command: str, description: str, *, run: bool = True, required: bool = True):
        super().__init__(
            f"python -m dreamerv2.{command}",
            description=description,
            formatter_class=_Help,
            allow_abbrev=False,
        )
        self.add_argument("--version", action="version", version=VERSION)
        if run:
            self.add_argument("--logdir", type=directory, required=required, help="of the run")
            self.add_argument(
                "--checkpoint", type=int, metavar="N", help="its agent steps; None: the latest"
            )
            self.add_argument(
                "--seed", type=at_least(0), default=0, help="same seed, same episodes"
            )

    def add_env(self) -> None:
        """`--env`, for commands that play."""
        self.add_argument(
            "--env",
            metavar="MODULE:FUNCTION",
            help="makes the environment to play in; None: what the agent was trained on",
        )

    def parse_known_args(self, args=None, namespace=None):
        """As its base class; ValueError for bytes that are no UTF-8, which no report can name."""
        for word in sys.argv[1:] if args is None else args:
            if not word.isascii() and word.encode(errors="ignore").decode() != word:
                raise ValueError(f"got {word!r}, expected UTF-8")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def directory(text: str) -> Path:
    """A type for `add_argument`: a path, `~` resolved."""
    if not text:
        raise argparse.ArgumentTypeError("got nothing, expected a directory")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"got {text}, but there is no such user") from None


def file_path(text: str) -> Path:
    """A type for `add_argument`: a file, `~` resolved."""
    if not text:
        raise argparse.ArgumentTypeError("got nothing, expected a file")
    return directory(text)


def at_least(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """A type for `add_argument`: whole numbers from `low` to `high`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            expected = f"a whole number from {low}" + (f" to {high}" if value > high else " on")
            raise argparse.ArgumentTypeError(f"got {text}, expected {expected}")
        return value

    return convert
