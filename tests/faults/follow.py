"""What a run is doing, by what it prints."""

import subprocess
import threading
import time

PATIENCE = 180  # for a phase to come [seconds]
PHASES = ("start", "prefill", "compile", "train", "eval")


class Follower:
    """Reads the standard output of a run as it comes."""

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self.phase = PHASES[0]  # the last that it said
        self._seen = {self.phase}
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, phase: str) -> bool:
        """Whether the run says in time that it has come to a phase."""
        deadline = time.monotonic() + PATIENCE
        with self._news:
            while phase not in self._seen and self._reader.is_alive():
                if time.monotonic() >= deadline:
                    return False
                self._news.wait(1)
        return phase in self._seen

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
                    self.phase = word
                    self._seen.add(word)
                    self._news.notify_all()
