"""kill -9: what is on disk is whole, and the same command goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from outcome import ROOT, Outcome, damaged, start
from signals import wait_for_line

from common import checkpoint
from common.files import sweep_temporary

# Saves as fast as it can; the number in the meta is that in the arrays.
WRITER = """
import pathlib, sys
import numpy as np
from common.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep=2)
print("ready", flush=True)
for step in range(10**9):
    checkpoints.save(step, {"x": np.full(200_000, step)}, {"agent_steps": step})
"""


def kills_in_writes(trials: int, where: Path) -> Outcome:
    outcome, rng = Outcome(), random.Random(0)
    interrupted = 0
    for trial in range(trials):
        argv = [sys.executable, "-c", WRITER, str(where)]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0.01, 0.1))
        process.kill()
        process.communicate()
        problem = None
        for path in checkpoint.Checkpoints(where, keep=2).all():
            try:
                arrays, meta = checkpoint.load(path)
                if not (arrays["x"] == meta["agent_steps"]).all():
                    problem = f"{path.name} mixes two saves"
            except checkpoint.CheckpointError as error:
                problem = str(error)
        interrupted += bool(sweep_temporary(where))
        if list(where.glob(".*")):
            problem = "temporary files stay"
        outcome.add(f"write {trial}", problem)
    outcome.note = f"{interrupted} in the middle of a file"
    return outcome


def kills_in_runs(trials: int, where: Path) -> Outcome:
    """One run, killed and started again; its steps never go back below a checkpoint."""
    outcome, rng = Outcome(), random.Random(1)
    logdir, last = where / "run", 0
    for trial in range(trials):
        process = start(logdir, "--steps", "1000000")
        # Half of the kills come while the run starts, the others while it trains.
        phase = rng.choice(["start", "train"]) if trial else "train"
        if phase == "train":
            wait_for_line(process, "train")
        time.sleep(rng.uniform(0, 8 if phase == "start" else 3))
        os.kill(process.pid, signal.SIGKILL)
        _, err = process.communicate()
        problem = damaged(logdir)
        latest = checkpoint.Checkpoints(logdir / "checkpoints", keep=2).latest()
        step = int(latest.stem) if latest else -1
        if step < last:
            problem = f"from step {last} back to {step}"
        if process.returncode != -signal.SIGKILL:
            problem = f"ended by itself: {err.strip().splitlines()[-1:]}"
        last = max(step, last)
        outcome.add(f"kill {trial}, {phase}, saved at {step}", problem)
    outcome.note = f"saved up to step {last}"
    return outcome
