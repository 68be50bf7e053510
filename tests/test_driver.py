import gymnasium
import numpy as np
import pytest
from driving import finish_episodes

from common.data.driver import Driver, EnvLostError, batched, random_policy
from common.data.spaces import OneHot
from common.envs.base import Env


class Counting(Env):
    """Frames carry the step index, the reward is a function of the action just taken."""

    def __init__(self, length, actions=3):
        self.act_space = OneHot(actions)
        self._length = length
        self._frame = np.zeros((2, 2, 1), np.uint8)  # one buffer, as an emulator reuses its own

    def _obs(self, reward):
        self._frame[:] = self._step
        return {
            "image": self._frame,
            "wide": np.full(2, self._step, np.int64),
            "reward": reward,
            "is_first": self._step == 0,
            "is_last": self._step == self._length,
            "is_terminal": False,
        }

    def reset(self):
        self._step = 0
        return self._obs(0.0)

    def step(self, action):
        self._step += 1
        return self._obs(10.0 + int(np.argmax(action)))


class Recorder:
    """A policy for one environment that counts its calls in the state and notes what it saw."""

    def __init__(self):
        self.seen = []

    def __call__(self, obs, state):
        state = 0 if state is None else state
        assert obs["image"].shape == (1, 2, 2, 1)
        self.seen.append((int(obs["image"][0, 0, 0, 0]), state))
        action = np.zeros((1, 3), np.float32)
        action[0, state % 3] = 1
        return action, state + 1


def rows_into(rows):
    return lambda row, env: rows.append(row)


def test_a_row_carries_the_action_that_led_to_it():
    driver, resets, steps = Driver([Counting(4)]), [], []
    driver.on_reset(rows_into(resets))
    driver.on_step(rows_into(steps))
    driver(Recorder(), steps=6)
    assert [int(row["image"][0, 0, 0]) for row in steps] == [1, 2, 3, 4, 1, 2]
    for row in steps:
        assert row["reward"] == 10 + np.argmax(row["action"])
        assert row["action"].sum() == 1
    assert len(resets) == 2
    for row in resets:
        assert not row["action"].any() and row["action"].shape == (3,)
        assert row["reward"] == 0 and row["is_first"] and not row["is_last"]


def test_episodes_are_handed_on_whole_with_dtypes_of_replay():
    driver, episodes = Driver([Counting(4)]), []
    driver.on_episode(episodes.append)
    finish_episodes(driver, Recorder(), 2)
    assert len(episodes) == 2
    first = episodes[0]
    assert first["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert first["is_first"].tolist() == [True] + [False] * 4
    assert first["is_last"].tolist() == [False] * 4 + [True]
    dtypes = {key: str(value.dtype) for key, value in first.items()}
    assert dtypes == {
        "image": "uint8",
        "wide": "int32",
        "reward": "float32",
        "is_first": "bool",
        "is_last": "bool",
        "is_terminal": "bool",
        "action": "float32",
    }


@pytest.mark.parametrize("steps", [0, 2, 6])
def test_takes_the_steps_that_are_asked_for(steps):
    driver, rows = Driver([Counting(4)]), []
    driver.on_step(rows_into(rows))
    driver(Recorder(), steps)
    assert len(rows) == steps


def test_an_episode_goes_on_in_the_next_call_with_the_policy_state_carried():
    driver, policy, episodes = Driver([Counting(4)]), Recorder(), []
    driver.on_episode(episodes.append)
    driver(policy, steps=3)
    driver(policy, steps=3)
    assert policy.seen == [(0, 0), (1, 1), (2, 2), (3, 3), (0, 4), (1, 5)]
    assert len(episodes) == 1 and len(episodes[0]["reward"]) == 5


def test_reset_forgets_the_episode_and_the_policy_state():
    driver, policy, episodes = Driver([Counting(4)]), Recorder(), []
    driver.on_episode(episodes.append)
    driver(policy, steps=3)
    driver.reset()
    finish_episodes(driver, policy, 1)
    assert policy.seen[3:] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert [len(episode["reward"]) for episode in episodes] == [5]


def test_random_policies_are_seeded_and_cover_the_action_space():
    draws = [random_policy(OneHot(3), seed)({}, None)[0] for seed in (0, 0)]
    np.testing.assert_array_equal(*draws)
    policy = random_policy(OneHot(3), 1)
    mean = np.mean([policy({}, None)[0] for _ in range(3000)], 0)
    np.testing.assert_allclose(mean, 1 / 3, atol=0.04)
    box = gymnasium.spaces.Box(-1, 1, (2,))
    policy = random_policy(box, 1)
    actions = np.stack([policy({}, None)[0] for _ in range(1000)])
    assert actions.dtype == np.float32 and np.abs(actions).max() <= 1
    np.testing.assert_allclose(actions.std(0), 3**-0.5, atol=0.05)


class Side(Counting):
    """One of several, which notes how it is called; `lost`: at which of its steps it is gone."""

    def __init__(self, length, calls, lost=()):
        super().__init__(length)
        self.calls, self.lost, self.count = calls, set(lost), 0

    def send(self, action=None):
        self.calls.append(("send", self))
        super().send(action)

    def receive(self):
        self.calls.append(("receive", self))
        if self._sent is not None:
            self.count += 1
            if self.count in self.lost:
                raise EnvLostError("gone")
        return super().receive()


def noted(envs):
    """A driver, and lists of its (environment, step) pairs, resets and episodes."""
    driver, steps, resets, episodes = Driver(envs), [], [], []
    driver.on_step(lambda row, env: steps.append((env, int(row["wide"][0]))))
    driver.on_reset(lambda row, env: resets.append(env))
    driver.on_episode(lambda episode: episodes.append(episode["wide"][:, 0].tolist()))
    return driver, steps, resets, episodes


def count_to(size):
    """A policy for several environments whose state counts its calls."""

    def policy(obs, state):
        assert obs["image"].shape == (size, 2, 2, 1) and not obs["is_last"].any()
        state = 0 if state is None else state
        return np.eye(3, dtype=np.float32)[(np.arange(size) + state) % 3], state + 1

    return policy


def test_environments_side_by_side_have_episodes_of_their_own():
    driver, steps, resets, episodes = noted([Counting(2), Counting(5)])
    driver(count_to(2), steps=9)
    assert [step for env, step in steps if env == 0] == [1, 2, 1, 2, 1]
    assert [step for env, step in steps if env == 1] == [1, 2, 3, 4, 5]
    assert len(steps) == 10, "all step before the policy is asked again"
    assert resets == [0, 1, 0, 0] and episodes == [[0, 1, 2]] * 2 + [[0, 1, 2, 3, 4, 5]]
    driver(count_to(2), steps=1)
    assert resets == [0, 1, 0, 0, 1]


def test_each_environment_gets_its_own_row_of_the_actions():
    driver, rows = Driver([Counting(9), Counting(9)]), []
    driver.on_step(lambda row, env: rows.append((env, row["reward"], row["action"].argmax())))
    driver(count_to(2), steps=6)
    assert [action for env, _, action in rows if env == 0] == [0, 1, 2]
    assert [action for env, _, action in rows if env == 1] == [1, 2, 0]
    assert all(reward == 10 + action for _, reward, action in rows)


def test_all_environments_are_sent_to_before_one_is_waited_for():
    calls = []
    driver, *_ = noted([Side(3, calls) for _ in range(3)])
    driver(count_to(3), steps=3)
    assert [name for name, _ in calls] == (["send"] * 3 + ["receive"] * 3) * 2


def test_an_episode_whose_environment_is_lost_is_dropped_and_the_others_go_on(caplog):
    envs = [Side(4, []), Side(4, [], lost=[2])]
    driver, steps, resets, episodes = noted(envs)
    driver(count_to(2), steps=15)
    assert [step for env, step in steps if env == 0] == [1, 2, 3, 4] * 2
    assert [step for env, step in steps if env == 1] == [1, 1, 2, 3, 4, 1, 2]
    assert resets == [0, 1, 1, 0, 1] and episodes == [[0, 1, 2, 3, 4]] * 3
    assert "environment 1: gone; its episode is dropped" in caplog.text


def test_a_policy_for_one_observation_serves_a_batch():
    policy = batched(lambda obs, state: (obs["counter"] + 1, state))
    obs = {"counter": np.array([[1.0], [5.0]]), "is_first": np.zeros(2, bool)}
    actions, state = policy(obs, "kept")
    assert actions.tolist() == [[2.0], [6.0]] and state == "kept"
