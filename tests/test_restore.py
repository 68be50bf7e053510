"""Agents come back from a checkpoint alone, and from nothing else."""

import json
import re
import shutil
import zipfile

import numpy as np
import pytest
import saved

import dreamerv2
from common import checkpoint
from common.checkpoint import CheckpointError
from dreamerv2.run import restore


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("run")
    return logdir, saved.save(logdir, 100)


def rows_of(env, agent, steps):
    """The first row without action, then rows with the action that led to them."""
    rows, state = [env.reset()], None
    for _ in range(steps):
        action, state = agent.act(rows[-1], state)
        rows.append({**env.step(action), "action": action})
    return rows


def test_a_loaded_agent_acts_as_the_saved_one(run):
    logdir, original = run
    agent = dreamerv2.load(logdir)
    env = restore.read(logdir).env(seed=0)
    obs = env.reset()
    for mode in ("eval", "train"):
        state, other = None, None
        for _ in range(3):
            action, state = agent.act(obs, state, mode)
            expected, other = original.act(obs, other, mode)
            np.testing.assert_array_equal(action, expected)
            np.testing.assert_array_equal(state[0]["deter"], other[0]["deter"])
    env.close()


def test_spaces_configuration_and_counters_are_inside(run):
    logdir, original = run
    back = restore.read(logdir)
    assert back.config == original.config
    assert {k: s.shape for k, s in back.obs_space.items()} == {
        k: s.shape for k, s in original.obs_space.items()
    }
    assert (back.agent_steps, back.env_frames) == (100, 400)
    assert back.action_names == ("NOOP", "FIRE", "RIGHT", "LEFT")


def test_one_of_several_checkpoints_is_chosen(tmp_path):
    saved.save(tmp_path, 100)
    saved.save(tmp_path, 200, discount=0.5)
    assert restore.read(tmp_path).agent_steps == 200
    assert restore.read(tmp_path, 100).config.discount != 0.5
    with pytest.raises(
        CheckpointError, match="no checkpoint of agent step 150; there are 100, 200"
    ):
        restore.read(tmp_path, 150)


def test_a_directory_without_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere/checkpoints: no checkpoint here"):
        restore.read(tmp_path / "nowhere")


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def damage_other_file(path):
    path.write_bytes(b"GIF89a")


def damage_foreign_arrays(path):
    np.savez(path, weights=np.zeros(3))


def damage_foreign_meta(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("checkpoint.json", json.dumps({"epoch": 3}))


def damage_configuration(path):
    change_meta(path, lambda meta: meta["config"].update(discuont=1.0))


def damage_variables(path):
    change_meta(path, lambda meta: meta["config"]["rssm"].update(deter=9))


def damage_spaces(path):
    change_meta(path, lambda meta: meta["spaces"]["act"].update(shape=[]))


def damage_names(path):
    change_meta(path, lambda meta: meta.update(action_names=5))


def damage_count_of_names(path):
    change_meta(path, lambda meta: meta.update(action_names=["left"] * 9))


def damage_steps(path):
    change_meta(path, lambda meta: meta.update(agent_steps=10**30))


def damage_kernel(path):
    arrays, meta = checkpoint.load(path)
    checkpoint.save(path, {**arrays, "agent/words": np.array(["a word"])}, meta)


def damage_updates(path):
    change_meta(path, lambda meta: meta.update(updates=None))


def change_meta(path, change):
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(entries["checkpoint.json"])
    change(meta)
    entries["checkpoint.json"] = json.dumps(meta)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


DAMAGES = {
    "damaged or not a checkpoint": damage_truncate,
    "damaged or not a checkpoint ": damage_other_file,
    "damaged or not a checkpoint  ": damage_foreign_arrays,
    "not a checkpoint of a run: it has no config": damage_foreign_meta,
    "discuont": damage_configuration,
    "has shape": damage_variables,
    "its spaces are damaged (list index out of range)": damage_spaces,
    "its spaces are damaged ('int' object is not iterable)": damage_names,
    "it has no updates": damage_updates,
    "its spaces are damaged (9 names of 4 actions)": damage_count_of_names,
    "agent_steps 1000000000000000000000000000000 is no number": damage_steps,
    "the agent is broken: words is <U6": damage_kernel,
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_checkpoint_that_is_none_is_one_clear_line(run, tmp_path, message):
    shutil.copytree(run[0] / "checkpoints", tmp_path / "checkpoints")
    path = tmp_path / "checkpoints" / "000000000100.npz"
    DAMAGES[message](path)
    with pytest.raises(CheckpointError) as error:
        dreamerv2.load(tmp_path)
    assert str(path) in str(error.value) and message.strip() in str(error.value)
    assert "\n" not in str(error.value)


def test_an_environment_that_the_agent_does_not_know_is_refused(tmp_path):
    saved.save(tmp_path)
    path = tmp_path / "checkpoints" / "000000000100.npz"
    change_meta(path, lambda meta: meta["config"].update(task="atari_pong"))
    with pytest.raises(ValueError, match=r"action was one-hot \[4\], and is one-hot \[6\]"):
        restore.read(tmp_path).env(seed=0)
    change_meta(path, lambda meta: meta["config"].update(task="gym_CartPole-v1"))
    with pytest.raises(ValueError, match="observation 'image' was uint8"):
        restore.read(tmp_path).env(seed=0)


def test_a_dream_is_frames_of_the_decoder_and_can_be_repeated(run):
    logdir, _ = run
    agent, env = dreamerv2.load(logdir), restore.read(logdir).env(seed=0)
    rows = rows_of(env, agent, 4)
    frames = agent.dream(rows, 7)
    assert frames.shape == (7, 64, 64, 1) and frames.dtype == np.uint8
    np.testing.assert_array_equal(agent.dream(rows, 7), frames)
    first = {"action": np.zeros(4, np.float32), **rows[0]}
    arrays = {key: np.stack([row[key] for row in [first, *rows[1:]]]) for key in first}
    np.testing.assert_array_equal(agent.dream(arrays, 7), frames)
    assert agent.dream(rows[:1], 2).shape == (2, 64, 64, 1)
    env.close()


def test_a_dream_goes_on_from_all_that_was_seen_and_done(tmp_path):
    # Gaussian latents move with every input, and this decoder shows it.
    agent = saved.save(tmp_path, rssm__discrete=False)
    env = restore.read(tmp_path).env(seed=0)
    for variable in agent.wm.decoder.variables:
        variable.assign(100 * variable)
    rows = rows_of(env, agent, 4)
    frames = agent.dream(rows, 3)
    other_action = [*rows[:-1], {**rows[-1], "action": np.roll(rows[-1]["action"], 1)}]
    other_start = [{**rows[0], "image": 255 - rows[0]["image"]}, *rows[1:]]
    for changed in (other_action, other_start, rows[:-1]):
        assert (agent.dream(changed, 3) != frames).any()
    env.close()


def test_a_dream_without_actions_or_images_is_refused(run, tmp_path):
    agent, env = dreamerv2.load(run[0]), restore.read(run[0]).env(seed=0)
    obs = env.reset()
    with pytest.raises(ValueError, match="without 'action'.*the one that led to it"):
        agent.dream([obs, obs], 3)
    with pytest.raises(ValueError, match="without 'rows'"):
        agent.dream([], 3)
    with pytest.raises(ValueError, match="got 0 steps"):
        agent.dream([obs], 0)
    blind = saved.save(tmp_path, task="gym_CartPole-v1")
    with pytest.raises(ValueError, match="predicts no image"):
        blind.dream([{"vector": np.zeros(4, np.float32)}], 3)
    env.close()


def test_the_snippets_of_the_documentation_run(project, run, tmp_path, monkeypatch):
    pages = [project / "README.md", *project.glob("docs/*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    snippets = re.findall(r"```python\n(.*?)```", text, re.S)
    snippets = [code for code in snippets if "dreamerv2.load" in code]
    assert snippets, "no page shows dreamerv2.load"
    monkeypatch.chdir(tmp_path)
    for code in snippets:
        named = re.search(r'dreamerv2\.load\("(.*?)"\)', code)
        shutil.copytree(run[0], tmp_path / named[1], dirs_exist_ok=True)
        result = {}
        exec(code, result)
        assert result["frames"].dtype == np.uint8 and result["frames"].ndim == 4
