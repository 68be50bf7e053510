"""A disk that fills up: one line at the end, and the last checkpoint stays whole."""

import subprocess
from pathlib import Path

from outcome import Outcome, damaged, one_line, start

# From where nothing fits to where only some checkpoints do [KiB].
SIZES = (8, 64, 128, 200, 256, 320, 400, 600, 800, 1200)


def full_disks(trials: int, where: Path) -> Outcome:
    outcome = Outcome()
    for size in SIZES[:: max(1, len(SIZES) // trials)]:
        disk = where / f"disk{size}"
        disk.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
        if subprocess.run(argv, capture_output=True).returncode:
            outcome.note = "skipped: no tmpfs may be mounted here"
            return outcome
        try:
            logdir = disk / "run"
            process = start(logdir, "--steps", "1000000", "--log_every", "20")
            try:
                _, err = process.communicate(timeout=300)
                problem = one_line(process.returncode, err) or damaged(logdir)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                problem = "it did not notice in 300 seconds"
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        outcome.add(f"{size} KiB", problem)
    return outcome
