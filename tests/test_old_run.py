"""Runs of earlier versions: they evaluate to the same returns, and go on."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from common import checkpoint
from dreamerv2 import evaluate, train
from dreamerv2.run import blocks, finish

OLD = Path(__file__).parent / "golden" / "old_run"


def test_it_is_of_the_first_format():
    path = checkpoint.Checkpoints(OLD / "checkpoints", keep=1).path()
    with zipfile.ZipFile(path) as archive:
        assert "checkpoint" not in json.loads(archive.read("checkpoint.json"))


def test_an_old_run_evaluates_to_the_same_returns(tmp_path):
    out = tmp_path / "evaluation.json"
    assert evaluate.main(["--logdir", str(OLD), "--episodes", "3", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    for name, returns in json.loads((OLD / "evaluation.json").read_text()).items():
        assert found[name]["returns"] == returns


def test_an_old_run_goes_on_from_its_weights(tmp_path, capsys):
    logdir = tmp_path / "run"
    shutil.copytree(OLD, logdir)
    before, _ = checkpoint.load(logdir / "checkpoints" / "000000000400.npz")
    argv = ["--logdir", str(logdir), "--steps", "430", "--eval_eps", "1"]
    assert train.main(argv) == 0
    assert "Resuming at agent step 400 with 124 updates" in capsys.readouterr().out
    after, meta = checkpoint.load(logdir / "checkpoints" / "000000000430.npz")
    assert meta["agent_steps"] == 430 and meta["updates"] > 124
    assert after.keys() >= {name for name in before if name.startswith("agent/")}
    moved = np.abs(
        after["agent/wm/rssm/gru/dense/kernel"] - before["agent/wm/rssm/gru/dense/kernel"]
    )
    assert 0 < moved.max() < 0.1  # three updates from the old weights, not a fresh start


def test_an_agent_with_a_nan_is_refused(tmp_path, capsys):
    logdir = tmp_path / "run"
    shutil.copytree(OLD, logdir)
    path = logdir / "checkpoints" / "000000000400.npz"
    arrays, meta = checkpoint.load(path)
    arrays["agent/wm/rssm/obs_dist/bias"][3] = np.nan
    checkpoint.save(path, arrays, meta)
    for command in (evaluate, train):
        with pytest.raises(SystemExit) as error:
            command.main(["--logdir", str(logdir)])
        assert error.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "the agent is broken: wm/rssm/obs_dist/bias is not finite" in line


@pytest.mark.parametrize("change", [{"spaces": {}}, {"config": 3}, {"agent_steps": "many"}])
def test_a_damaged_description_is_one_line_and_starts_no_new_run(tmp_path, capsys, change):
    logdir = tmp_path / "run"
    shutil.copytree(OLD, logdir)
    path = logdir / "checkpoints" / "000000000400.npz"
    arrays, meta = checkpoint.load(path)
    checkpoint.save(path, arrays, {**meta, **change})
    content = path.read_bytes()
    with pytest.raises(SystemExit) as error:
        evaluate.main(["--logdir", str(logdir)])
    assert error.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "change", [{"agent_steps": "many"}, {"run": 5}, {"run": {"evaluation": 5}}, {"updates": None}]
)
def test_a_damaged_description_is_none_of_a_run_that_has_ended(tmp_path, change):
    ended = {"agent_steps": 400, "updates": 1}
    ended["run"] = {"evaluation": {"agent_steps": 400, "returns": [1.0]}}
    config = blocks.make_config(["vector"], {"logdir": str(tmp_path), "steps": 400})
    path = tmp_path / "checkpoints" / "000000000400.npz"
    path.parent.mkdir()
    checkpoint.save(path, {}, ended)
    assert finish.finished(config).startswith("Done: 400 agent steps, 1 updates")
    checkpoint.save(path, {}, ended | change)
    assert finish.finished(config) is None


@pytest.mark.parametrize("key", ["prefill_left", "random"])
def test_a_damaged_state_of_a_run_is_one_line_and_is_not_saved_again(tmp_path, capsys, key):
    logdir = tmp_path / "run"
    shutil.copytree(OLD, logdir)
    path = logdir / "checkpoints" / "000000000400.npz"
    arrays, meta = checkpoint.load(path)
    checkpoint.save(path, arrays, {**meta, "run": {**meta["run"], key: "x"}})
    content = path.read_bytes()
    with pytest.raises(SystemExit) as error:
        train.main(["--logdir", str(logdir), "--steps", "410"])
    assert error.value.code == 2
    assert "the latest checkpoint does not describe its run" in capsys.readouterr().err
    assert path.read_bytes() == content
