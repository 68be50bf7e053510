"""Calls with bad input: each ends by itself, with one line where it is an error."""

import contextlib
import importlib
import io
import os
import random
import shutil
import time
from pathlib import Path

from outcome import ROOT, Outcome

from dreamerv2.run import blocks

OLD = ROOT / "tests" / "golden" / "old_run"
JUNK = ("", "-1", "0", "nan", ".inf", "1e400", "None", "[", "{a: 1}", "*x", "\x00", "ä" * 300)
JUNK += ("1" * 30, "true", "1 2", "../..", "/dev/null", "linear(1,2,0)", "while_loop")
WHOLE = (b"", b"{}", b"[]", b"&a [*a]", b"\xff\xfe", b"a: &b\n  c: *b")  # instead of a file
FLAGS = {
    "evaluate": ["--episodes", "--mode", "--max-steps", "--seed", "--checkpoint", "--json"],
    "render": ["--out", "--fps", "--episodes", "--panels", "--scale", "--frames", "--seed"],
    "latents": ["--seed", "--checkpoint", "--out"],
    "compare": ["--precisions", "--seeds", "--jobs", "--runs", "--updates"],
    "plot": ["--out", "--runs", "--keys", "--window"],
    "parity": ["--precision", "--tolerance"],
    "import_reference": ["--run", "--out"],
}


def fuzzed_calls(trials: int, where: Path, seed: int | None) -> Outcome:
    seed = time.time_ns() % 10**6 if seed is None else seed
    rng, outcome = random.Random(seed), Outcome(note=f"seed {seed}")
    os.chdir(where)  # some of the calls write files
    for trial in range(trials):
        logdir = where / "run"
        shutil.rmtree(logdir, ignore_errors=True)
        shutil.copytree(OLD, logdir)
        command, argv = call(rng, logdir)
        outcome.add(f"call {trial}, {command} {argv}", problem(command, argv))
    return outcome


def call(rng: random.Random, logdir: Path) -> tuple[str, list[str]]:
    """A command and its arguments, with at least one thing wrong with flags or files."""
    command = rng.choice(["train", *FLAGS])
    argv = ["--logdir", str(logdir)]
    if command == "train":
        # Steps that are done: what is accepted after all ends at once.
        key = rng.choice(sorted(set(blocks.defaults().flat) - {"logdir"}))
        return command, [*argv, "--steps", "400", f"--{key}", rng.choice(JUNK)]
    if command == "compare":
        argv += ["--runs", str(logdir)]
    if rng.random() < 0.5:
        return command, [*argv, rng.choice(FLAGS[command]), rng.choice(JUNK)]
    spoil(rng, rng.choice([p for p in logdir.rglob("*") if p.is_file()]))
    return command, argv + (["--max-steps", "3"] if command == "evaluate" else [])


def spoil(rng: random.Random, path: Path) -> None:
    """Damages a file in one of several ways."""
    content = bytearray(path.read_bytes())
    way = rng.randrange(5)
    if way == 0:
        del content[rng.randrange(len(content)) :]
    elif way == 1:
        for _ in range(20):
            content[rng.randrange(len(content))] = rng.randrange(256)
    elif way == 2:
        content = bytearray(
            rng.choice([b"", b"{}", b"[]", b"&a [*a]", b"\xff\xfe", b"a: &b\n  c: *b"])
        )
    elif way == 3:
        content = bytearray(rng.randbytes(200))
    else:
        content += bytes(content)
    path.write_bytes(content)


def problem(command: str, argv: list[str]) -> str | None:
    """What is wrong with how the command ends."""
    module = importlib.import_module(f"dreamerv2.{command}")
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = module.main(argv)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    errors = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
    if code in (0, 1):
        return None
    return None if code == 2 and len(errors) == 1 else f"code {code}, {len(errors)} errors"
