"""SIGINT and SIGTERM as a request to finish the step at hand, save, and end."""

import os
import signal
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Within `with`, the first signal sets `number`; a second one ends the process at once.

    show: told about the first signal. In a thread other than the main one Python cannot catch
    signals: then nothing is caught and `number` stays None.
    """

    def __init__(self, show: Callable[[str], object] = print):
        self.number: int | None = None
        self._show = show
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.number is not None

    def _handle(self, number: int, _) -> None:
        if self:
            # Files are written whole or not at all, so that there is nothing to tidy up.
            os._exit(128 + number)
        self.number = number
        name = signal.Signals(number).name
        self._show(f"{name}: finishing the step and saving; once more ends the run at once.")
