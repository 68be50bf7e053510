"""What the commands share."""

import contextlib
import sys
from collections.abc import Iterator

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
