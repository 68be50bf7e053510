"""kill -9: what is on disk is whole, and the same command goes on."""

import collections
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from follow import PATIENCE, PHASES, Follower
from outcome import ROOT, Outcome, damaged, start

from common import checkpoint
from common.files import sweep_temporary

AIMS = (*PHASES, "save")
# How long after a phase began a kill comes at most; the next one may have begun by then.
SECONDS = {"start": 8, "prefill": 1, "compile": 3, "train": 3, "eval": 0.5, "save": 0.002}
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
    """One run, killed and started again: no episode goes, no step below a checkpoint is lost."""
    outcome, rng, hit = Outcome(), random.Random(1), collections.Counter()
    logdir = where / "run"
    checkpoints = checkpoint.Checkpoints(logdir / "checkpoints", keep=2)
    last, episodes = -1, set[str]()
    for trial, aim in enumerate(aims(trials, rng)):
        # What a run has in replay when it starts is not prefilled again.
        flags = ["--prefill", "500000"] if aim == "prefill" else []
        unfinished = temporary(logdir)
        run = Follower(start(logdir, "--steps", "1000000", *flags))
        wait_for(aim, run, logdir, rng)
        os.kill(run.process.pid, signal.SIGKILL)
        err = run.end()
        problem = damaged(logdir)
        hit[run.phase] += 1
        saving = bool(temporary(logdir) - unfinished)
        hit["save"] += saving
        found = {path.name for path in logdir.glob("train_episodes/*.npz")}
        if episodes - found:
            problem = f"{len(episodes - found)} episodes are gone"
        latest = checkpoints.latest()
        step = int(latest.stem) if latest else -1
        if step < last:
            problem = f"from step {last} back to {step}"
        if run.process.returncode != -signal.SIGKILL:
            problem = f"ended by itself: {err.strip().splitlines()[-1:]}"
        last, episodes = max(step, last), found
        found_in = f"{run.phase}{' and save' * saving}"
        outcome.add(f"kill {trial}, aimed at {aim}, hit {found_in}, saved at {step}", problem)
    phases = ", ".join(f"{hit[phase]} in {phase}" for phase in PHASES)
    outcome.note = f"{phases}; {hit['save']} of them while a checkpoint was written"
    return outcome


def temporary(logdir: Path) -> set[Path]:
    """The files that are being written, and those that a kill left and no start has swept yet."""
    return set(logdir.glob("checkpoints/.*.tmp"))


def aims(trials: int, rng: random.Random) -> list[str]:
    """As many trials for each phase; those that only a new run goes through come first."""
    found = [AIMS[trial % len(AIMS)] for trial in range(trials)]
    rng.shuffle(found)
    return sorted(found, key=lambda aim: aim != "prefill")


def wait_for(aim: str, run: Follower, logdir: Path, rng: random.Random) -> None:
    """Until a random moment of a phase of the run. A save is seen by its temporary file."""
    # A run that is resumed says train, compile, train.
    run.wait(*(("compile", "train") if aim in ("train", "save") else (aim,)))
    deadline = time.monotonic() + PATIENCE
    while aim == "save" and not temporary(logdir) and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, SECONDS[aim]))
