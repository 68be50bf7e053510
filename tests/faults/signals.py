"""Signals in each phase, and two processes on one logdir."""

import signal
import subprocess
from pathlib import Path

from follow import PATIENCE, Follower
from outcome import Outcome, damaged, one_line, start

from common import checkpoint

PHASES = ("prefill", "compile", "eval", "train")
SIGNALS = {
    "SIGINT": [signal.SIGINT],
    "SIGTERM": [signal.SIGTERM],
    "SIGHUP": [signal.SIGHUP],
    "two SIGINT": [signal.SIGINT, signal.SIGINT],
}


def ends(process) -> bool:
    """Whether the process ends in time; it is over in any case."""
    try:
        process.wait(PATIENCE)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def signals_in_phases(trials: int, where: Path) -> Outcome:
    outcome = Outcome()
    cases = [(name, phase) for name in SIGNALS for phase in PHASES]
    for name, phase in cases[:: max(1, len(cases) // trials)]:
        logdir = where / f"{name}-{phase}".replace(" ", "-")
        process = start(logdir, "--steps", "1000000", "--prefill", "1000")
        reached = Follower(process).wait(phase)
        for number in SIGNALS[name]:
            process.send_signal(number)
        ended = ends(process)
        problem = damaged(logdir)
        if not ended:
            problem = f"it goes on for {PATIENCE} seconds"
        elif not reached:
            problem = "the phase was not reached"
        elif process.returncode != 128 + SIGNALS[name][0]:
            problem = f"exit code {process.returncode}"
        elif len(SIGNALS[name]) == 1 and not list(logdir.glob("checkpoints/*.npz")):
            problem = "nothing was saved"
        outcome.add(f"{name} in {phase}", problem)
    return outcome


def two_processes(trials: int, where: Path) -> Outcome:
    outcome, logdir = Outcome(), where / "run"
    first = start(logdir, "--steps", "1000000")
    Follower(first).wait("train")
    for trial in range(trials):
        second = start(logdir, "--steps", "1000000")
        _, err = second.communicate(timeout=PATIENCE)
        problem = one_line(second.returncode, err)
        if f"has a run already: process {first.pid} on " not in err:
            problem = problem or "it does not say who"
        outcome.add(f"second process {trial}", problem)
    first.send_signal(signal.SIGTERM)
    if not ends(first):
        outcome.short.append("the first one did not end")
    elif not checkpoint.Checkpoints(logdir / "checkpoints", 2).latest():
        outcome.short.append("the first one saved nothing")
    return outcome
