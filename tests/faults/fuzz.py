"""Calls with bad input: each ends by itself, with one line where it is an error."""

import contextlib
import importlib
import io
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from outcome import ROOT, Outcome

from dreamerv2.run import blocks

GOLDEN = ROOT / "tests" / "golden"
PATIENCE = 1800  # for one call, on a machine with much else to do [seconds]
JUNK = ("", "-1", "0", "nan", ".inf", "1e400", "None", "[", "{a: 1}", "*x", "ä" * 300)
JUNK += ("1" * 30, "true", "1 2", "../..", "/dev/null", "linear(1,2,0)", "while_loop")
JUNK += ("minatar", "a.npz", "a.png", "\udcff", "-", "1:0", "no.such:thing", "RUN", "FILE")
WHOLE = (b"", b"{}", b"[]", b"&a [*a]", b"\xff\xfe", b"a: &b\n  c: *b")  # instead of a file

# What each command needs to end well and soon, and the flags that get junk. RUN is a copy of the
# old run, REFERENCE one of a run of the reference, FILE of numbers of the reference.
SMALL = "--episodes 1 --max-steps 500"
COMMANDS = {
    "train": ("--logdir RUN --steps 405 --jit False --eval_eps 1 --eval_every 500", ""),
    "evaluate": (
        f"--logdir RUN {SMALL} --mode eval",
        "--episodes --mode --max-steps --seed --checkpoint --json --env --logdir",
    ),
    "render": (
        "--logdir RUN --out a.gif --panels latent,policy --frames 0:3",
        "--out --fps --episodes --best-of --mode --panels --scale --frames --seed --max-steps --env"
        " --checkpoint --logdir",
    ),
    "latents": (
        "--logdir RUN usage --episodes 1 --steps 20",
        "--seed --checkpoint --out --episodes --steps --env --logdir sweep",
    ),
    "compare": (
        "--logdir comparison --runs RUN",
        "--precisions --seeds --jobs --runs --updates --logdir",
    ),
    "compare --audit": ("--audit RUN --updates 1", "--precisions --updates --audit --rssm.hidden"),
    "plot": ("--logdirs RUN --out a.png", "--out --x --metric --logdirs --reference --explain"),
    "coverage": ("--logdirs RUN --out a.png", "--out --key --cells --logdirs"),
    "report": ("--logdir RUN", "--out --parity --logdir"),
    "export": ("--logdir RUN --out a.npz", "--out --evaluation --note --checkpoint --logdir"),
    "parity": ("FILE", "--precision --tolerance --loss_scale --precision_overrides.rssm"),
    "import_reference": ("REFERENCE --logdir imported", "--logdir"),
}
# Commands that take an agent by its name: damaged files of a run mean nothing to them then.
NAMED = ("evaluate", "render", "latents", "report", "export", "plot", "compare", "coverage")


class EndlessError(BaseException):
    """A call took too long. No subclass of what a command may catch."""


class Place:
    """The folder of the calls, with what they read, made anew for each."""

    def __init__(self, where: Path):
        self.directory = where / "a" / "b"  # "../.." stays inside
        self.directory.mkdir(parents=True)
        os.chdir(self.directory)
        self.sources = {
            "RUN": GOLDEN / "old_run",
            "REFERENCE": GOLDEN / "reference_run",
            "FILE": GOLDEN / "atari.npz",
        }

    def restore(self) -> None:
        for name in os.listdir():
            shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)
        for name, source in self.sources.items():
            shutil.copytree(source, name) if source.is_dir() else shutil.copy(source, name)

    def files(self, argv: list[str]) -> list[Path]:
        """Those that the call reads."""
        named = [Path(word) for word in argv if word in self.sources]
        inside = [path for word in named for path in word.rglob("*")]
        return sorted(path for path in named + inside if path.is_file())


def fuzzed_calls(trials: int, where: Path, seed: int | None) -> Outcome:
    seed = time.time_ns() % 10**6 if seed is None else seed
    rng, outcome = random.Random(seed), Outcome(note=f"seed {seed}")
    sys.stderr.write(f"{outcome.note}\n")
    place, back = Place(where), os.getcwd()
    try:
        for trial in range(trials):
            place.restore()
            command, argv = call(rng, place)
            outcome.add(f"call {trial}, {command} {argv}", problem(command, argv))
    finally:
        os.chdir(back)
    return outcome


def sound_calls(trials: int, where: Path) -> Outcome:
    """The calls before anything is wrong with them: all succeed, so that the others try much."""
    outcome, place = Outcome(), Place(where)
    back = os.getcwd()
    try:
        for name, (words, _) in list(COMMANDS.items())[:trials]:
            place.restore()
            code, _, err = run(name.split()[0], words.split())
            outcome.add(f"sound {name}", None if code == 0 else f"{code}: {err[-200:]}")
    finally:
        os.chdir(back)
    return outcome


def call(rng: random.Random, place: Place) -> tuple[str, list[str]]:
    """A command and its arguments, with at least one thing wrong with flags or files."""
    name = rng.choice(["train", *COMMANDS])  # it has most keys
    words, flags = COMMANDS[name]
    command, argv = name.split()[0], words.split()
    way = rng.random()
    if way < 0.5:
        if command == "train":
            key = rng.choice(sorted(set(blocks.defaults().flat) - {"logdir"}))
            # Steps that are done: what is accepted after all ends at once.
            argv = [*argv, "--steps", "400", f"--{key}"]
        else:
            argv = [*argv, rng.choice(flags.split())]
        return command, [*argv, rng.choice(JUNK)]
    if way < 0.6 and command in NAMED:
        argv = [word.replace("RUN", "minatar") for word in argv]
        return command, [*argv, rng.choice(flags.split()), rng.choice(JUNK)]
    path = rng.choice(place.files(argv))
    path.write_bytes(spoilt(rng, path.read_bytes()))
    return command, argv


def spoilt(rng: random.Random, content: bytes) -> bytes:
    """A file's content, damaged in one of several ways."""
    way = rng.randrange(6)
    if way == 0:
        return content[: rng.randrange(len(content))]
    if way == 1:
        changed = bytearray(content)
        for _ in range(20):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if way == 2:
        return rng.choice(WHOLE)
    if way == 3:
        return rng.randbytes(200)
    if way == 4:
        return content + content
    lines = content.split(b"\n")  # one of them is missing, or is another
    lines[rng.randrange(len(lines))] = rng.choice(WHOLE)
    return b"\n".join(lines)


def problem(command: str, argv: list[str]) -> str | None:
    """What is wrong with how the command ends."""
    code, _, err = run(command, argv)
    if isinstance(code, str):
        return code
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    if "Traceback" in err:
        return "a traceback"
    if code == 0 or code == 1 and command in ("compare", "parity"):
        return None
    return None if code in (1, 2) and len(errors) == 1 else f"code {code}, {len(errors)} errors"


def run(command: str, argv: list[str]) -> tuple[object, str, str]:
    """Exit code, or in words what came instead of one, and what was printed."""
    module = importlib.import_module(f"dreamerv2.{command}")
    out, err = io.StringIO(), io.StringIO()
    previous = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(PATIENCE)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code: object = module.main(argv)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        code = f"{type(error).__name__}: {str(error)[:100]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    return code, out.getvalue(), err.getvalue()


def _too_long(*_) -> None:
    raise EndlessError(f"it did not end in {PATIENCE} seconds")
