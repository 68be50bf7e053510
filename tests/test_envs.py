"""The contract of environments: wrappers, the scripted environment, `make_env`."""

import numpy as np
import pytest
from gymnasium import spaces

from common.data.spaces import OneHot
from common.envs import make_env, wrap
from common.envs.base import Env, with_flags, with_transition
from common.envs.scripted import Scripted
from common.envs.wrappers import (
    ActionRepeat,
    CheckSpaces,
    NormalizeAction,
    OneHotAction,
    TimeLimit,
)


class Recorder(Env):
    """Remembers the actions that it got; every step gives reward 1; ends by itself at `length`."""

    def __init__(self, act_space, length=1000):
        self.obs_space = with_flags({"vector": spaces.Box(-1, 1, (2,), np.float32)})
        self.act_space = act_space
        self.actions = []
        self.length = length
        self.frame = 0

    def reset(self):
        self.frame = 0
        return with_transition({"vector": np.zeros(2, np.float32)}, is_first=True)

    def step(self, action):
        self.actions.append(action)
        self.frame += 1
        last = self.frame == self.length
        obs = {"vector": np.zeros(2, np.float32)}
        return with_transition(obs, 1.0, is_last=last, is_terminal=last)

    def render(self):
        return np.full((4, 4, 3), self.frame, np.uint8)


def one_hot(index, size=3):
    return np.eye(size, dtype=np.float32)[index]


def test_scripted_shows_step_episode_and_reward_of_the_last_action():
    env = Scripted(lengths=(300, 2), actions=3)
    obs = env.reset()
    assert obs["is_first"] and obs["reward"] == 0 and obs["counter"].tolist() == [0, 0]
    for step in range(1, 301):
        obs = env.step(one_hot(step % 3))
        assert obs["reward"] == step % 3 + 1
        assert obs["image"][5, 7].tolist() == [step % 256, step // 256, 0]
        assert not obs["is_first"]
        assert obs["is_last"] == obs["is_terminal"] == (step == 300)
    with pytest.raises(RuntimeError, match="before reset"):
        env.step(one_hot(0))
    assert env.reset()["image"][0, 0].tolist() == [0, 0, 1]
    assert env.length == 2


def test_scripted_can_end_as_at_a_time_limit():
    env = Scripted(1, terminal=False, actions=2, continuous=True)
    env.reset()
    obs = env.step(np.array([0.5, -1.0], np.float32))
    assert obs["is_last"] and not obs["is_terminal"]
    assert obs["reward"] == -1.5


def test_observations_have_the_declared_spaces():
    for env in (Scripted(), Scripted(continuous=True)):
        wrapped = wrap(env, time_limit=3)
        wrapped.reset()
        obs = wrapped.step(wrapped.act_space.sample())
        assert list(obs) == list(env.obs_space)
        assert all(env.obs_space[key].contains(np.asarray(obs[key])) for key in obs)


def test_time_limit_ends_without_terminal_and_starts_anew():
    env = TimeLimit(Recorder(spaces.Discrete(2)), 3)
    for _ in range(2):
        env.reset()
        flags = [env.step(0) for _ in range(3)]
        assert [obs["is_last"] for obs in flags] == [False, False, True]
        assert not any(obs["is_terminal"] for obs in flags)


def test_time_limit_keeps_a_terminal_that_falls_on_it():
    env = TimeLimit(Recorder(spaces.Discrete(2), length=3), 3)
    env.reset()
    assert [env.step(0)["is_terminal"] for _ in range(3)] == [False, False, True]


def test_time_limit_counts_agent_steps_not_frames():
    inner = Recorder(spaces.Discrete(2))
    env = wrap(inner, time_limit=2, action_repeat=4)
    env.reset()
    assert [env.step(one_hot(1, 2))["is_last"] for _ in range(2)] == [False, True]
    assert len(inner.actions) == 8


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    env = ActionRepeat(Recorder(spaces.Discrete(2), length=6), 4)
    env.record_frames = True
    env.reset()
    first, second = env.step(0), env.step(1)
    assert (first["reward"], second["reward"]) == (4, 2)
    assert second["reward"].dtype == np.float32
    assert not first["is_last"] and second["is_last"]
    frames = env.skipped_frames()
    assert [frame[0, 0, 0] for frame in frames] == [5, 6]
    assert (frames[-1] == env.render()).all()
    env.reset()
    assert [frame[0, 0, 0] for frame in env.skipped_frames()] == [0]


def test_one_hot_action_gives_the_index():
    inner = Recorder(spaces.Discrete(4, start=2))
    env = OneHotAction(inner)
    assert env.act_space == OneHot(4)
    env.step(one_hot(3, 4))
    env.step(np.array([1e-4, 0.9995, 0, -1e-4], np.float32))
    assert inner.actions == [5, 3]


@pytest.mark.parametrize(
    "action", [[0, 0, 0], [1, 1, 0], [0.5, 0.5, 0], [1, -1, 1], [np.nan, 0, 0], [1, 0], 1]
)
def test_one_hot_action_refuses_anything_else(action):
    env = OneHotAction(Recorder(spaces.Discrete(3)))
    with pytest.raises(ValueError, match="one-hot"):
        env.step(np.array(action, np.float32))


def test_a_dimension_with_one_bound_gets_what_lies_beside_it():
    inner = Recorder(spaces.Box(np.float32([2, -np.inf]), np.float32([np.inf, -3])))
    env = NormalizeAction(inner)
    for action in ([-1, -1], [1, 1], [0, 5]):
        env.step(np.array(action, np.float32))
    assert [action.tolist() for action in inner.actions] == [[2, -5], [4, -3], [3, -3]]


def test_normalize_action_maps_to_the_declared_bounds():
    low, high = np.array([[-2, 0], [-np.inf, 5]]), np.array([[2, 10], [np.inf, 5.5]])
    inner = Recorder(spaces.Box(low.astype(np.float32), high.astype(np.float32)))
    env = NormalizeAction(inner)
    assert env.act_space == spaces.Box(-1.0, 1.0, (4,), np.float32)
    env.step(np.array([-1, 1, 0.25, 0], np.float32))
    env.step(np.array([1.5, -1.5, -1.5, 1.5], np.float32))
    assert inner.actions[0].tolist() == [[-2, 10], [0.25, 5.25]]
    assert inner.actions[1].tolist() == [[2, 0], [-1.5, 5.5]]
    assert inner.actions[0].dtype == np.float32
    with pytest.raises(ValueError, match="action"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="action"):
        env.step(np.array([0, np.nan, 0, 0], np.float32))


def test_bounds_as_wide_as_float32_are_reached():
    most = np.finfo(np.float32).max
    inner = Recorder(spaces.Box(-most, most, (3,), np.float32))
    NormalizeAction(inner).step(np.array([-1, 0, 1], np.float32))
    assert inner.actions[0].tolist() == [-most, 0, most]


class Wrong(Recorder):
    """Returns `value` as `vector` from the given call."""

    def __init__(self, call, value):
        super().__init__(spaces.Discrete(2))
        self.call, self.value = call, value

    def reset(self):
        obs = super().reset()
        return {**obs, "vector": self.value} if self.call == "reset" else obs

    def step(self, action):
        obs = super().step(action)
        return {**obs, "vector": self.value} if self.call == "step" else obs


@pytest.mark.parametrize("call", ["reset", "step"])
@pytest.mark.parametrize(
    "value, got", [(np.zeros(3, np.float32), r"float32 \[3\]"), (np.zeros(2), r"float64 \[2\]")]
)
def test_wrong_observations_are_named_on_the_first_reset_and_step(call, value, got):
    env = CheckSpaces(Wrong(call, value))
    expected = rf"'vector' at {call}: expected float32 \[2\], got {got}"
    if call == "reset":
        with pytest.raises(ValueError, match=expected):
            env.reset()
    else:
        env.reset()
        with pytest.raises(ValueError, match=expected):
            env.step(0)


def test_missing_and_surplus_keys_are_named():
    env = Recorder(spaces.Discrete(2))
    env.obs_space["more"] = env.obs_space["vector"]
    with pytest.raises(ValueError, match="'more' at reset: expected float32.*got no such key"):
        CheckSpaces(env).reset()
    del env.obs_space["more"], env.obs_space["vector"]
    with pytest.raises(ValueError, match="'vector' at reset: expected no such key"):
        CheckSpaces(env).reset()


def test_step_before_reset_is_refused():
    env = wrap(Recorder(spaces.Discrete(2), length=1))
    with pytest.raises(RuntimeError, match="before reset"):
        env.step(one_hot(0, 2))
    env.reset()
    env.step(one_hot(0, 2))
    with pytest.raises(RuntimeError, match="before reset"):
        env.step(one_hot(0, 2))


def test_record_frames_reaches_the_innermost_environment():
    inner = Recorder(spaces.Discrete(2))
    env = wrap(inner, time_limit=5)
    env.record_frames = True
    assert inner.record_frames


@pytest.mark.parametrize("task", ["breakout", "atari_", "atary_breakout", ""])
def test_unknown_suite_is_named_with_the_accepted_ones(task):
    with pytest.raises(ValueError, match=f"task '{task}'.*atari_NAME"):
        make_env(task)


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode: expected one of train, eval, got 'test'"):
        make_env("atari_breakout", mode="test")
