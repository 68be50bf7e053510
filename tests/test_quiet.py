"""No noise of native libraries at the terminal, and none of it lost when it matters."""

import os
import subprocess
import sys

import pytest

from common.quiet import quiet_stderr
from dreamerv2.jobs.record import log_path, read_log


def test_what_native_code_writes_is_dropped(capfd):
    with quiet_stderr():
        os.write(2, b"native\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_it_is_shown_when_the_body_raises(capfd):
    with pytest.raises(ImportError, match="libcuda"), quiet_stderr():
        os.write(2, b"native\n")
        raise ImportError("libcuda")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "native\nafter\n"


def test_no_descriptor_stays_open():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with quiet_stderr():
            pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_descriptor_2_the_body_runs():
    code = "import os; os.close(2); from common.quiet import quiet_stderr as quiet\n"
    code += "with quiet(): print('ran')"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.stdout == "ran\n"


def test_a_run_and_its_film_print_nothing_but_our_lines(tmp_path):
    pytest.importorskip("pygame", reason="CartPole draws with pygame")
    env = {k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "DISPLAY")}
    run = ["--logdir", str(tmp_path)]
    training = [*run, "--configs", "vector", "debug", "--steps", "170", "--eval_eps", "1"]
    filming = [*run, "--panels", "screen", "--out", f"{tmp_path}/a.gif"]
    code = "from dreamerv2 import render, train\n"
    code += f"assert train.main({training}) == 0\nassert render.main({filming}) == 0"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    ours = ("episode of ", "playing: ", "imagining: ", "drawing: ")
    assert [x for x in done.stderr.splitlines() if not x.startswith(ours)] == []
    assert done.stdout.startswith("Device: ")


def test_a_runs_log_is_read_without_native_notes(tmp_path):
    log_path(tmp_path / "run").write_text(
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "train 10/20 steps\n"
        "I0000 00:00:1795639793.811055   12938 port.cc:153] oneDNN custom operations are on.\n"
        "2026-01-01 10:00:00.123456: W tensorflow/core/x.cc:1] note\n"
        "error: XDG_RUNTIME_DIR is invalid or not set in the environment.\n\n"
        "F0000 00:00:1795639793.811055   12938 port.cc:153] out of memory\n"
        "error: disk full\n"
    )
    kept = [line.split()[0] for line in read_log(tmp_path / "run")]
    assert kept == ["train", "F0000", "error:"]
