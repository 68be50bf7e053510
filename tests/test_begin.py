"""Runs that begin with the networks of a trained agent."""

import shutil

import numpy as np
import pytest
import saved
import tiny

from common import checkpoint
from common.config import ConfigError
from dreamerv2 import train
from dreamerv2.agent.agent import Agent
from dreamerv2.run import begin, restore, shipped

NETWORKS = ("wm/", "behavior/actor/", "behavior/critic/")


def run(logdir, *flags):
    """A `debug` run on Breakout, in this process; its exit code."""
    words = ["--logdir", str(logdir), "--configs", "atari", "debug", *map(str, flags)]
    return train.main(words)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has made updates."""
    logdir = tmp_path_factory.mktemp("trained") / "run"
    assert run(logdir, "--steps", 180, "--eval_eps", 0) == 0
    return logdir


@pytest.fixture
def source(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "source")


def variables(logdir):
    path = checkpoint.Checkpoints(logdir / "checkpoints", 2).path()
    arrays, meta = checkpoint.load(path)
    return {k.removeprefix("agent/"): v for k, v in arrays.items() if k.startswith("agent/")}, meta


def test_a_new_run_has_the_networks_of_the_agent_and_nothing_else_of_it(source, tmp_path, capsys):
    logdir = tmp_path / "new"
    flags = ("--start_from", source, "--pretrain", 0, "--prefill", 80, "--eval_eps", 0, "--seed", 7)
    assert run(logdir, *flags, "--steps", 80) == 0  # ends before the first update
    theirs, _ = variables(source)
    ours, meta = variables(logdir)
    assert meta["updates"] == 0 and meta["agent_steps"] == 80
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if name.startswith(NETWORKS):
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)
        elif "_opt/" in name and value.ndim:
            assert not value.any(), name
            assert theirs[name].any(), name  # else the line above would say nothing
    said = capsys.readouterr().out
    assert f"Begins with networks of {source}, agent step 180: " in said
    assert "actor, critic" in said and "; new: " not in said

    shutil.rmtree(source)  # a resumed run does not need it
    assert run(logdir, *flags, "--steps", 90) == 0
    said = capsys.readouterr().out
    assert "Resuming at agent step 80" in said and "Begins" not in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--start_from", "nothing"), "start_from: nothing: "),
        (("--start_from", "SOURCE", "--rssm.deter", 32), "has shape"),
        (("--start_from", "SOURCE", "--atari_grayscale", False), "has shape"),
        (("--start_from", "SOURCE", "--discount_head.layers", 3), "wm/discount/"),
    ],
)
def test_an_agent_that_is_absent_or_does_not_fit_is_one_error(
    source, tmp_path, capsys, flags, message
):
    words = [source if word == "SOURCE" else word for word in flags]
    with pytest.raises(SystemExit) as exit_:
        run(tmp_path / "new", *words)
    assert exit_.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert line.startswith("error: start_from: ") and message in line
    assert not (tmp_path / "new").exists()


def test_a_run_that_has_begun_takes_no_other_networks(source, trained, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(source, "--start_from", trained)
    assert exit_.value.code == 2
    assert "this run has begun already; take another logdir" in capsys.readouterr().err
    begin.check_resumed("a", {"start_from": "a"})
    begin.check_resumed("", {"start_from": "a"})
    begin.check_resumed("", {})  # of an older version


def test_an_exported_agent_serves_as_well(tmp_path, monkeypatch):
    original = saved.save(tmp_path / "run", task="gym_CartPole-v1")
    monkeypatch.setattr(shipped, "agents_dir", lambda: tmp_path)
    from_run = restore.read(tmp_path / "run")
    shipped.write(tmp_path / "pole.npz", from_run.variables, from_run.meta)
    agent = Agent(original.config, original.obs_space, original.act_space)
    text = begin.take_networks(agent, "pole")
    assert text == (
        "Begins with networks of pole, agent step 100: actor, critic, decoder, discount, encoder, "
        "reward, rssm"
    )
    ours, theirs = agent.state_dict(), original.state_dict()
    for name in theirs:
        if name.startswith(NETWORKS):
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_networks_that_only_explore_are_taken_where_both_agents_explore(tmp_path, monkeypatch):
    explores = {"expl_behavior": "Plan2Explore", "disag_models": 2}
    plain, exploring = tiny.agent(), tiny.agent(**explores)
    ensemble = [name for name in exploring.state_dict() if name.startswith("expl/disag")]

    def starts_from(new, old):
        kept = restore.Saved(tmp_path, old.config, 5, {}, None, None, old.state_dict(), {})
        monkeypatch.setattr(begin.restore, "read", lambda source: kept)
        return begin.take_networks(new, "it")

    new = tiny.agent(**explores)
    assert "disag0, disag1" in starts_from(new, exploring) and ensemble
    for name in ensemble:
        np.testing.assert_array_equal(new.state_dict()[name], exploring.state_dict()[name])
    assert "disag" not in starts_from(tiny.agent(), exploring)
    assert starts_from(tiny.agent(**explores), plain).endswith("; new: disag0, disag1")


def test_an_agent_that_does_not_fit_changes_nothing(tmp_path):
    saved.save(tmp_path / "run", task="gym_CartPole-v1", rssm__stoch=2)
    agent = saved.save(tmp_path / "other", task="gym_CartPole-v1")
    before = agent.state_dict()
    with pytest.raises(ConfigError, match="start_from: .*run: saved variables do not match"):
        begin.take_networks(agent, str(tmp_path / "run"))
    for name, value in agent.state_dict().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
