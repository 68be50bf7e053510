"""What ends a run before its time."""


class RunError(ValueError):
    """The run cannot go on, for a reason that the user can mend."""


class RunBrokenError(RuntimeError):
    """The run ended before its time; the message says why, what was saved, and how to go on."""


class NonFiniteError(RunBrokenError):
    """A loss, gradient or parameter is not finite; the message names it."""
