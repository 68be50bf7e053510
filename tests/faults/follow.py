"""What a run is doing, by what it prints."""

import subprocess
import threading
import time
from collections.abc import Sequence

PATIENCE = 180  # for a phase to come [seconds]
PHASES = ("start", "prefill", "compile", "train", "eval")


class Follower:
    """Reads the standard output of a run as it comes."""

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self._said = [PHASES[0]]
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def phase(self) -> str:
        """The last that it said."""
        return self._said[-1]

    def wait(self, *phases: str) -> bool:
        """Whether the run says in time that it has come to these phases, one after the other."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while not self._came_to(phases) and self._reader.is_alive():
                if time.monotonic() >= deadline:
                    return False
                self._news.wait(1)
        return self._came_to(phases)

    def _came_to(self, phases: Sequence[str]) -> bool:
        said = iter(self._said)
        return all(phase in said for phase in phases)  # each search goes on behind the last one

    def end(self) -> str:
        """All that it printed as errors, once it has ended."""
        self._reader.join()
        err = self.process.stderr.read()
        self.process.wait()
        return err

    def _read(self) -> None:
        for line in self.process.stdout:
            word = line.split(" ", 1)[0]
            if word in PHASES:
                with self._news:
                    self._said.append(word)
                    self._news.notify_all()
