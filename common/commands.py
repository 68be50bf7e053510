"""What the commands share."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

USER_ERROR = 2
# What goes wrong before a command starts its work is the user's to mend: a value, a file, a
# package that an option needs.
MISTAKES = (ValueError, OSError, ImportError)


@contextlib.contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Turn the exceptions of a user's mistake into one line on stderr and exit code 2."""
    try:
        yield
    except kinds as error:
        message = " ".join(str(error).split()) or type(error).__name__
        sys.stderr.write(f"error: {message}\n")
        raise SystemExit(USER_ERROR) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None


class Parser(argparse.ArgumentParser):
    """Flags of a command that works on a finished run; a mistake is a ValueError."""

    def __init__(self, command: str, description: str):
        super().__init__(
            f"python -m dreamerv2.{command}",
            description=description,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--logdir", type=Path, required=True, help="directory of the run")
        self.add_argument(
            "--checkpoint", type=int, metavar="N", help="its agent steps; None: the latest"
        )
        self.add_argument("--seed", type=at_least(0), default=0, help="same seed, same episodes")

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def at_least(low: int) -> Callable[[str], int]:
    """A type for `add_argument`: whole numbers from `low` on."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise argparse.ArgumentTypeError(f"got {text}, expected a whole number from {low} on")
        return value

    return convert
