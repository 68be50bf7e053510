"""DM Control: observations, rewards, cameras, and what is said when something is missing."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from common.envs import dmc, make_env

pytest.importorskip("dm_control", reason="the extra `dmc` is not installed")
# Not imported here: what draws may not share a process with TensorFlow.

ALONE = """
import sys
import numpy as np
from dm_control import suite
from common.envs.dmc import DMC

ours = DMC("walker_walk", seed=3, action_repeat=2, image=False)
env = suite.load("walker", "walk", task_kwargs={"random": 3})
actions = np.random.default_rng(0).uniform(-1, 1, (505, 6)).astype(np.float32)
theirs, obs = env.reset(), ours.reset()
assert obs["is_first"] and not obs["is_last"] and obs["reward"] == 0
for step, action in enumerate(actions, 1):
    rewards = []
    for _ in range(2):
        theirs = env.step(action)
        rewards.append(theirs.reward)
    obs = ours.step(action)
    assert obs["reward"] == np.float32(sum(rewards)), step
    assert list(theirs.observation) == ["orientations", "height", "velocity"]
    for key, value in theirs.observation.items():
        assert np.array_equal(obs[key], np.float32(value).reshape(-1)), (step, key)
    assert obs["is_last"] == theirs.last() == (step == 500), step
    assert not obs["is_terminal"]
    if obs["is_last"]:
        break
print("checked", step)
"""


def test_rows_are_those_of_the_suite_with_rewards_of_a_repeat_summed(project):
    command = [sys.executable, "-c", ALONE]
    env = {"MUJOCO_GL": "disabled", "PATH": ""}
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    assert done.stdout == "checked 500\n", done.stderr


@pytest.fixture(scope="module")
def pictures():
    env = make_env("dmc_cartpole_balance", seed=1, action_repeat=2, render_size=(48, 32))
    yield env
    env.close()


def test_images_have_the_asked_size_and_show_the_movement(pictures):
    first = pictures.reset()
    assert list(first)[:3] == list(pictures.obs_space)[:3] == ["image", "position", "velocity"]
    assert first["image"].shape == (48, 32, 3) and first["image"].dtype == np.uint8
    for _ in range(20):
        last = pictures.step(np.ones(1, np.float32))
    assert (first["image"] != last["image"]).mean() > 0.01


def test_a_film_has_a_frame_per_control_step(pictures):
    pictures.reset()
    pictures.record_frames = True
    pictures.step(np.ones(1, np.float32))
    frames = pictures.skipped_frames()
    assert [frame.shape for frame in frames] == [(*dmc.SCREEN, 3)] * 2
    np.testing.assert_array_equal(frames[-1], pictures.render())
    assert (frames[0] != frames[1]).any()
    pictures.record_frames = False


def test_another_camera_sees_something_else(pictures):
    other = make_env("dmc_cartpole_balance", seed=1, dmc_camera=1, render_size=(48, 32))
    try:
        assert (other.reset()["image"] != pictures.reset()["image"]).mean() > 0.05
    finally:
        other.close()


@pytest.mark.parametrize(
    "task, settings, message",
    [
        ("dmc_wlker_walk", {}, "unknown DM Control task 'wlker_walk'; nearest: walker_walk"),
        ("dmc_walker_jump", {}, "unknown DM Control task 'walker_jump'; nearest: walker_"),
        ("dmc_walker_walk", {"dmc_camera": 2}, r"no camera 2; expected -1 or 0 \(side\), 1 "),
    ],
)
def test_a_mistake_is_one_line(task, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        make_env(task, **settings)
    assert "\n" not in str(error.value)


def test_what_cannot_draw_says_what_to_install(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(ValueError, match="MUJOCO_GL=disabled .*libegl1 or libosmesa6"):
        make_env("dmc_cartpole_balance")
    make_env("dmc_cartpole_balance", dmc_render=False).close()


def test_the_first_backend_that_draws_is_chosen(monkeypatch):
    works = {"osmesa": 0}

    def run(command, env, **_):
        return subprocess.CompletedProcess(command, works.get(env["MUJOCO_GL"], 1))

    monkeypatch.setattr(subprocess, "run", run)
    assert dmc.choose_backend() == "osmesa"
    works["egl"] = 0
    assert dmc.choose_backend() == "egl"
    works.clear()
    assert dmc.choose_backend() == "disabled"


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="dm-control; install the extra `dmc`"):
        make_env("dmc_walker_walk")
