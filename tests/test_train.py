"""The command as a user runs it: real agent, real Breakout, the smallest configuration."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import imageio.v3 as iio
import numpy as np
import pytest

from common import checkpoint
from dreamerv2 import api, train
from dreamerv2.run import blocks, environments, factory, starts

TIMES = ("time_", "fps", "hours", "cpu_seconds", "memory_gib", "updates_per_second")


def command(logdir, *flags):
    flags = [str(flag) for flag in flags]
    return [sys.executable, "-m", "dreamerv2.train", "--logdir", str(logdir), *flags]


def run(logdir, *flags):
    """A `debug` run on Breakout, in this process, which has TensorFlow; its exit code."""
    flags = [str(flag) for flag in flags]
    return train.main(["--logdir", str(logdir), "--configs", "atari", "debug", *flags])


def metrics_of(logdir):
    return [json.loads(line) for line in (logdir / "metrics.jsonl").read_text().splitlines()]


def latest(logdir):
    return checkpoint.Checkpoints(logdir / "checkpoints", 2).path()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: (logdir, stdout)."""
    logdir = tmp_path_factory.mktemp("finished") / "run"
    argv = command(logdir, "--configs", "atari", "debug")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return logdir, done.stdout


def test_first_lines_say_what_runs_where(finished):
    lines = finished[1].splitlines()
    assert lines[0].startswith("Device: ") and "TensorFlow 2." in lines[0]
    assert any(line.startswith("Replay: 2,000 steps take ") for line in lines)
    assert any(line.startswith("Parameters: ") for line in lines)
    assert "Batch: image uint8 [4, 10, 64, 64, 1], " in finished[1]
    for phase in ("prefill", "compile", "eval", "train"):
        assert any(line.startswith(phase + " ") for line in lines), phase
    assert max(map(len, lines)) < 220


def test_a_run_leaves_all_that_it_should(finished):
    logdir = finished[0]
    names = {path.name for path in logdir.iterdir() if not path.name.startswith("events.")}
    assert names == {
        *("checkpoints", "config.yaml", "eval_episodes", "metrics.jsonl", "starts.jsonl"),
        *("train_episodes", "videos", "report.html"),
    }
    assert len(list(logdir.glob("events.out.tfevents.*"))) == 1
    assert blocks.load_config(logdir / "config.yaml").steps == 400
    assert latest(logdir).name == "000000000400.npz"
    assert len(list((logdir / "train_episodes").iterdir())) == 5
    assert len(list((logdir / "eval_episodes").iterdir())) == 2


def test_both_gifs_of_every_evaluation_can_be_seen(finished):
    shapes = {
        path.name: iio.imread(path, plugin="pillow", index=...).shape
        for path in (finished[0] / "videos").iterdir()
    }
    assert sorted(shapes) == [
        *("000000000640-eval_openl_image.gif", "000000000640-eval_policy_image.gif"),
        *("000000001120-eval_openl_image.gif", "000000001120-eval_policy_image.gif"),
        *("000000001600-eval_openl_image.gif", "000000001600-eval_policy_image.gif"),
    ]
    # Truth, model and error of all four sequences of a batch; equal frames are merged.
    assert shapes["000000000640-eval_openl_image.gif"][1:] == (192, 48 + 256, 3)
    assert shapes["000000000640-eval_policy_image.gif"][1:] == (64, 64, 3)


def test_metrics_tell_what_a_user_wants_to_know(finished):
    rows = metrics_of(finished[0])
    assert all(row["step"] % 4 == 0 for row in rows)
    logged = set().union(*rows)
    assert logged >= {
        *("train_return", "train_length", "train_total_steps", "train_loaded_episodes"),
        *("eval_return", "eval_length", "model_loss", "image_loss", "reward_loss"),
        *("discount_loss", "kl_loss", "model_kl", "prior_ent", "post_ent", "model_grad_norm"),
        *("actor_loss", "actor_ent", "actor_ent_scale", "actor_grad_norm", "critic"),
        *("critic_loss", "critic_grad_norm", "critic_slow", "critic_target", "reward_mean"),
        *("reward_std", "reward_normed_mean", "reward_normed_std", "advantage_mean"),
        *("advantage_std", "fps", "updates", "updates_per_second", "memory_gib", "hours"),
        *(f"time_{name}" for name in ("env", "policy", "data", "train", "eval")),
    }
    assert all(value is not None for row in rows for value in row.values())


def test_a_larger_steps_resumes(finished, tmp_path, capsys):
    logdir = tmp_path / "run"
    shutil.copytree(finished[0], logdir)
    before = len(metrics_of(logdir))
    assert run(logdir, "--steps", 500) == 0
    said = capsys.readouterr().out
    assert "Resuming at agent step 400 with 25 updates" in said
    assert "changed since: steps: 400 -> 500" in said
    assert "prefill" not in said
    rows = metrics_of(logdir)
    assert latest(logdir).name == "000000000500.npz"
    assert all(row["step"] >= 1600 for row in rows[before:])
    hours = [row["hours"] for row in rows if "hours" in row]
    assert hours == sorted(set(hours)) and len(hours) == 6 + 2  # each run's end logs what is left
    started = starts.read(logdir)
    assert [start.agent_steps for start in started] == [0, 400]
    assert {start.machine for start in started} == {starts.machine()}


def test_the_same_seed_gives_the_same_metrics(finished, tmp_path):
    steps = 280  # with the first evaluation after updates; the other run goes on
    assert run(tmp_path / "again", "--steps", steps) == 0

    def rows(logdir):
        rows = [row for row in metrics_of(logdir) if row["step"] < 4 * steps]
        return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]

    ours, again = rows(finished[0]), rows(tmp_path / "again")
    assert {"model_loss", "train_return", "eval_return"} <= set().union(*ours)
    for one, other in zip(ours, again, strict=True):
        assert one == other


@pytest.mark.parametrize("precision", ["16", "bfloat16"])
def test_other_precisions_end_by_themselves(tmp_path, precision, capsys):
    assert run(tmp_path / "run", "--precision", precision, "--steps", 200) == 0
    said = capsys.readouterr().out
    rows = [row for row in metrics_of(tmp_path / "run") if "model_loss" in row]
    assert all(np.isfinite(row["image_loss"]) for row in rows)
    parts = ("model", "actor", "critic")
    scaled = {f"{part}_{name}" for part in parts for name in ("loss_scale", "skipped")}
    assert (scaled <= rows[-1].keys()) == (precision == "16")
    slow = precision == "16" and "Device: CPU" in said
    assert ("float16 is emulated" in said) == slow
    arrays, _ = checkpoint.load(latest(tmp_path / "run"))
    floats = {v.dtype for k, v in arrays.items() if k.startswith("agent/") and v.dtype.kind == "f"}
    assert floats <= {np.dtype(np.float32), np.dtype(np.float64)}


def test_sigterm_saves_and_the_same_command_resumes(tmp_path):
    logdir = tmp_path / "run"
    flags = ["--configs", "atari", "debug", "--steps", 100_000, "--eval_every", 50_000]
    process = subprocess.Popen(
        command(logdir, *flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline, metrics = time.monotonic() + 120, logdir / "metrics.jsonl"
    while time.monotonic() < deadline:
        if metrics.exists() and "model_loss" in metrics.read_text():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: saving" in out
    _, meta = checkpoint.load(latest(logdir))
    steps = meta["agent_steps"]
    assert 160 < steps < 100_000
    assert out.splitlines()[-1] == f"Saved at agent step {steps:,}; the same command resumes."


def eight_updates(logdir, copy=None):
    """Makes the checkpoint after eight updates on a fixed replay.

    That is all of a long pretraining, which a signal ends. copy: where to the run is saved and
    copied after three of them.
    """
    config = blocks.make_config(["atari", "debug"], {"logdir": str(logdir), "pretrain": 9})
    config = config.update({"reward_norm.momentum": 0.9, "replay.minlen": 7, "dataset.length": 8})
    runner = factory.make_runner(config, lambda *args: environments.configured_envs(config, *args))

    def watched(batches):
        for batch in batches:
            yield batch
            if runner.updates == 3 and copy:
                runner._save()
                shutil.copytree(logdir, copy)
            if runner.updates == 7:
                os.kill(os.getpid(), signal.SIGTERM)

    runner._learner.batches = watched(runner._learner.batches)
    assert runner.run() == 128 + signal.SIGTERM and runner.updates == 8


def test_updates_continue_bit_for_bit_in_a_fresh_process(tmp_path, project):
    def fresh(*logdirs):
        code = "import sys, test_train; test_train.eight_updates(*sys.argv[1:])"
        path = os.pathsep.join(["tests", os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "PYTHONPATH": path}
        subprocess.run([sys.executable, "-c", code, *logdirs], cwd=project, env=env, check=True)
        return checkpoint.load(latest(logdirs[0]))

    whole, meta = fresh(tmp_path / "whole", tmp_path / "cut")
    start, start_meta = checkpoint.load(latest(tmp_path / "cut"))
    cut, cut_meta = fresh(tmp_path / "cut")
    assert (start_meta["updates"], cut_meta["updates"], meta["updates"]) == (3, 8, 8)
    assert cut.keys() == whole.keys()
    for name in whole:
        np.testing.assert_array_equal(cut[name], whole[name], err_msg=name)
    changed = [k for k in cut if k.startswith("agent/") and (cut[k] != start[k]).any()]
    assert len(changed) > 100


def files_of(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_another_architecture_is_one_line_and_changes_nothing(finished, capsys):
    before = files_of(finished[0])
    with pytest.raises(SystemExit) as exit_:
        run(finished[0], "--steps", 500, "--rssm.deter", 24)
    assert exit_.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: saved variables do not match the agent: ")
    assert "/dense0/kernel has shape (32, 16), expected (40, 16)" in error
    assert files_of(finished[0]) == before


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--task", "atari_breakot"], "unknown Atari game 'breakot'; nearest: breakout"),
        (["--task", "foo_breakout"], "task 'foo_breakout': expected one of atari_NAME"),
        (["--stepz", "3"], "unknown key stepz; did you mean steps?"),
        (["--configs", "smal"], "unknown block smal; did you mean small?"),
        (["--precision", "64"], "precision: 64 is not accepted; expected 32 or 16 or bfloat16"),
        (["--steps", "many"], "steps: 'many' is not accepted; expected a whole number"),
        (["--logdir", "/dev/null/run"], "logdir /dev/null/run cannot be written"),
        (["--logdir", ""], "--logdir is missing"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as exit_:
        train.main(["--logdir", str(tmp_path), *flags])
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_reported_before_tensorflow_is_imported(tmp_path):
    code = (
        "import sys, dreamerv2.train as t\n"
        f"try: t.main(['--logdir', {str(tmp_path)!r}, '--task', 'atari_nothing'])\n"
        "except SystemExit as e: sys.exit(10 * e.code + ('tensorflow' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 20


def test_a_truncated_checkpoint_is_one_line_and_stays(finished, tmp_path, capsys):
    logdir = tmp_path / "run"
    shutil.copytree(finished[0], logdir)
    path = latest(logdir)
    os.truncate(path, path.stat().st_size // 2)
    before = files_of(logdir)
    with pytest.raises(SystemExit) as exit_:
        run(logdir, "--steps", 500)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line and "resume from" in line and "000000000280.npz" in line
    assert files_of(logdir) == before


def test_help_lists_keys(capsys):
    with pytest.raises(SystemExit) as exit_:
        train.main(["--help"])
    assert exit_.value.code == 0
    assert "--rssm.deter 600" in capsys.readouterr().out


def test_api_trains_on_a_gymnasium_environment(tmp_path):
    gymnasium = pytest.importorskip("gymnasium")
    settings = {"logdir": str(tmp_path), "steps": 240, "prefill": 160, "action_repeat": 1}
    settings |= {"(encoder|decoder).mlp_keys": ".*", "(encoder|decoder).cnn_keys": "$^"}
    settings |= {"replay": {"minlen": 5, "maxlen": 10}}
    config = blocks.make_config(["atari", "debug"], settings)
    api.train(gymnasium.make("CartPole-v1"), config)
    rows = metrics_of(tmp_path)
    assert rows[0]["train_return"] == rows[0]["train_length"]
    assert rows[-1]["step"] <= 240 and not any("eval_return" in row for row in rows)
    assert latest(tmp_path).name == "000000000240.npz"
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_api_asks_for_a_logdir():
    with pytest.raises(ValueError, match="logdir"):
        api.train(None, blocks.make_config(["atari", "debug"]))
