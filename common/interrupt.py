"""SIGINT, SIGTERM and SIGHUP as a request to finish the step at hand, save, and end."""

import os
import signal
import threading
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """Within `with`, the first signal sets `number`; a second one ends the process at once.

    The handler does nothing else: it may run inside any write, where printing would raise. A second
    SIGHUP is passed over, because a terminal that closes may send two. A signal that was ignored
    before (SIGHUP under `nohup`) stays ignored. In a thread other than the main one Python cannot
    catch signals: then nothing is caught and `number` stays None.
    """

    def __init__(self):
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    previous = signal.signal(number, self._handle)
                    # None: of a handler that Python did not set, which it cannot put back.
                    self._previous[number] = signal.SIG_DFL if previous is None else previous
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.number is not None

    @property
    def name(self) -> str:
        """The name of the signal that came, such as SIGINT."""
        assert self.number is not None
        return signal.Signals(self.number).name

    def _handle(self, number: int, _) -> None:
        if self and number != signal.SIGHUP:
            # Files are written whole or not at all, so that there is nothing to tidy up.
            os._exit(128 + number)
        self.number = self.number or number
