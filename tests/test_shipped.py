"""Agents that come with the project: written small, found by name, equal to the run's agent."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import saved

import dreamerv2
from common import checkpoint
from common.checkpoint import CheckpointError
from dreamerv2 import export
from dreamerv2.run import restore, shipped


@pytest.fixture
def run(tmp_path):
    agent = saved.save(tmp_path / "run", task="gym_CartPole-v1")
    return tmp_path / "run", agent


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    (tmp_path / "agents").mkdir()
    monkeypatch.setattr(shipped, "agents_dir", lambda: tmp_path / "agents")
    return tmp_path / "agents"


def export_to(path, logdir, *flags):
    return export.main(["--logdir", str(logdir), "--out", str(path), *flags])


def test_an_exported_agent_is_found_by_name_and_acts_and_values_as_the_original(run, shelf):
    logdir, agent = run
    assert export_to(shelf / "pole.npz", logdir) == 0
    loaded = dreamerv2.load("pole")
    obs = {"vector": np.arange(4, dtype=np.float32) / 9, "is_first": True}
    action, (latent, _) = agent.act(obs)
    same, (same_latent, _) = loaded.act(obs)
    np.testing.assert_array_equal(action, same)
    feats = [a.wm.feat(z) for a, z in ((agent, latent), (loaded, same_latent))]
    values = [a.behavior.critic(f).mode() for a, f in zip((agent, loaded), feats, strict=True)]
    np.testing.assert_array_equal(*values)


def test_an_agent_that_was_given_away_is_named_by_its_file(run, tmp_path, monkeypatch):
    (tmp_path / "friend").mkdir()
    monkeypatch.chdir(tmp_path / "friend")
    assert export_to("pole.npz", run[0]) == 0
    loaded, weights = dreamerv2.load("pole.npz").state_dict(), restore.read(run[0]).variables
    assert "wm/rssm/gru/dense/kernel" in loaded
    for name, value in shipped.acting(weights).items():
        np.testing.assert_array_equal(loaded[name], value)
    assert "--logdir pole.npz --out pole.gif" in Path("pole.md").read_text()
    with pytest.raises(CheckpointError, match="checkpoint 7: pole.npz is one agent"):
        restore.read("pole.npz", 7)


def test_what_only_training_needs_stays_out(run, shelf):
    logdir, agent = run
    export_to(shelf / "pole.npz", logdir)
    kept = set(restore.read("pole").variables)
    assert kept == {k for k in agent.state_dict() if re.match("wm/|behavior/(actor|critic)/", k)}
    whole = next((logdir / "checkpoints").glob("*.npz")).stat().st_size
    assert (shelf / "pole.npz").stat().st_size < whole / 2
    meta = restore.read(logdir).meta
    meta["config"]["start_from"] = "/home/somebody/runs/before"
    shipped.write(shelf / "pole.npz", restore.read(logdir).variables, meta)
    config = restore.read("pole").config
    assert (config.logdir, config.start_from) == ("pole", "before")  # not where runs were


def test_an_agent_of_an_older_version_whose_description_lacks_keys_is_exported(run, shelf):
    path = run[0] / "checkpoints" / "000000000100.npz"
    arrays, meta = checkpoint.load(path)
    del meta["config"]["action_repeat"], meta["config"]["seed"], meta["action_names"]
    checkpoint.save(path, arrays, meta)
    assert export_to(shelf / "pole.npz", run[0]) == 0
    assert "100 env frames" in (shelf / "pole.md").read_text()


def test_half_precision_halves_the_file_and_rounds_the_weights(run, shelf):
    logdir, agent = run
    export_to(shelf / "pole.npz", logdir)
    export_to(shelf / "half.npz", logdir, "--half")
    full, half = (restore.read(name).variables for name in ("pole", "half"))
    assert sum(v.nbytes for v in half.values()) * 2 == sum(v.nbytes for v in full.values())
    loaded = dreamerv2.load("half").state_dict()
    for name, value in full.items():
        np.testing.assert_array_equal(loaded[name], value.astype(np.float16).astype(np.float32))


def test_half_precision_keeps_the_statistics_of_pixels(tmp_path, shelf):
    pixels = {"encoder__image_net": "mlp", "encoder__image_stats": True, "encoder__mlp_keys": "^$"}
    agent = saved.save(tmp_path / "run", **{"decoder__image_net": "mlp", **pixels})
    agent.wm.encoder.pixels["pixels_image"].update(np.full((2, 64, 64, 1), 69, np.uint8))
    count = next(k for k in agent.state_dict() if k.endswith("pixels_image/count"))
    variables = {**agent.state_dict(), count: np.float32(70_000)}
    shipped.write(shelf / "a.npz", variables, restore.read(tmp_path / "run").meta, half=True)
    kept = restore.read("a").variables
    for name in (name for name in kept if "/pixels_" in name):
        np.testing.assert_array_equal(kept[name], variables[name], err_msg=name)


def test_the_card_says_how_long_it_was_trained_and_what_it_reaches(run, shelf, tmp_path):
    logdir, _ = run
    result = {"mean": 3.25, "returns": [3, 3.5], "interval": [3.0, 3.5]}
    (tmp_path / "result.json").write_text(json.dumps({"greedy": result}))
    (logdir / "metrics.jsonl").write_text(
        '{"step": 1, "cpu_seconds": 3}\n{"step": 2, "cpu_seconds": 5400.0}\n'
        '{"step": 101, "cpu_seconds": 9e9}\n'  # beyond this checkpoint
    )
    flags = ["--evaluation", str(tmp_path / "result.json"), "--note", "It cannot swim."]
    export_to(shelf / "pole.npz", logdir, *flags)
    card = (shelf / "pole.md").read_text()
    for text in ("100 agent steps", "CPU hours of its training: 1.5", "3.25 over 2 episodes"):
        assert text in card
    assert "interval 3 to 3.5" in card and "It cannot swim." in card


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", '{"greedy": 1}', '{"greedy": {"mean": 1}}', "1", '{"foo": 1}'),
        '{"task": "atari_pong", "greedy": {"mean": 1, "returns": [1], "interval": null}}',
        '{"agent_steps": 7, "greedy": {"mean": 1, "returns": [1], "interval": null}}',
    ],
)
def test_an_evaluation_that_is_none_is_refused_and_nothing_is_written(
    run, tmp_path, capsys, content
):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "result.json").write_text(content)
    with pytest.raises(SystemExit, match="2"):
        export_to(tmp_path / "new" / "a.npz", run[0], "--evaluation", f"{tmp_path}/new/result.json")
    assert "--evaluation" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result.json"]


def test_an_unknown_name_lists_those_that_there_are(run, shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_to(shelf / "pole.npz", run[0])
    with pytest.raises(CheckpointError, match=r"stick/checkpoints: no checkpoint.*\(pole\)"):
        restore.read("stick")
    with pytest.raises(CheckpointError, match="checkpoint 7: pole is one agent"):
        restore.read("pole", 7)


def test_a_run_of_the_same_name_comes_first(run, shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_to(shelf / "run.npz", run[0])
    assert restore.read("run").path == Path("run/checkpoints/000000000100.npz")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--out", "x.gif"], "--out: got x.gif, expected a name that ends in .npz"),
        (["--out", "README.npz"], "--out: README.md, where the card goes, is there already"),
        (["--out", "nowhere/x.npz"], "--out: there is no directory nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    run, tmp_path, monkeypatch, capsys, flags, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    with pytest.raises(SystemExit) as end:
        export.main(["--logdir", str(run[0]), *flags])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not list(tmp_path.glob("x*"))
