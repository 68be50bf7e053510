import gymnasium
import numpy as np
import pytest
from driving import finish_episodes

from common.data.driver import Driver, random_policy
from common.data.spaces import OneHot


class Counting:
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
    """A policy that counts its calls in the state and notes what it saw."""

    def __init__(self):
        self.seen = []

    def __call__(self, obs, state):
        state = 0 if state is None else state
        self.seen.append((int(obs["image"][0, 0, 0]), state))
        action = np.zeros(3, np.float32)
        action[state % 3] = 1
        return action, state + 1


def test_a_row_carries_the_action_that_led_to_it():
    driver, resets, steps = Driver(Counting(4)), [], []
    driver.on_reset(resets.append)
    driver.on_step(steps.append)
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
    driver, episodes = Driver(Counting(4)), []
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
    driver, rows = Driver(Counting(4)), []
    driver.on_step(rows.append)
    driver(Recorder(), steps)
    assert len(rows) == steps


def test_an_episode_goes_on_in_the_next_call_with_the_policy_state_carried():
    driver, policy, episodes = Driver(Counting(4)), Recorder(), []
    driver.on_episode(episodes.append)
    driver(policy, steps=3)
    driver(policy, steps=3)
    assert policy.seen == [(0, 0), (1, 1), (2, 2), (3, 3), (0, 4), (1, 5)]
    assert len(episodes) == 1 and len(episodes[0]["reward"]) == 5


def test_reset_forgets_the_episode_and_the_policy_state():
    driver, policy, episodes = Driver(Counting(4)), Recorder(), []
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
