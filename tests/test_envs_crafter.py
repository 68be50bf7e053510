"""Crafter: observations, rewards, achievements."""

import sys

import numpy as np
import pytest

from common.envs import make_env
from common.envs.crafter import ACHIEVEMENT, CELL, Crafter

crafter = pytest.importorskip("crafter", reason="the extra `crafter` is not installed")


def play(env, steps=80, seed=0):
    rng = np.random.default_rng(seed)
    rows = [env.reset()]
    while len(rows) <= steps and not rows[-1]["is_last"]:
        rows.append(env.step(rng.integers(env.act_space.n)))
    return rows


def test_rows_are_those_of_the_game():
    rng, game = np.random.default_rng(0), crafter.Env(seed=5)
    rows = play(Crafter("reward", seed=5))
    np.testing.assert_array_equal(rows[0]["image"], game.reset())
    unlocked = 0
    for row in rows[1:]:
        image, reward, over, info = game.step(rng.integers(17))
        np.testing.assert_array_equal(row["image"], image)
        assert row["reward"] == row["log_reward"] == np.float32(reward)
        assert (row["is_last"], row["is_terminal"]) == (over, info["discount"] == 0)
        for name, count in info["achievements"].items():
            assert row[ACHIEVEMENT + name] == count
        unlocked = sum(count > 0 for count in info["achievements"].values())
    assert unlocked
    assert not any(value for key, value in rows[0].items() if key.startswith(ACHIEVEMENT))


def test_without_reward_the_log_still_has_it():
    rows, rewarded = play(Crafter("noreward", seed=5)), play(Crafter("reward", seed=5))
    assert not any(row["reward"] for row in rows)
    assert [row["log_reward"] for row in rows] == [row["reward"] for row in rewarded]
    assert any(row["log_reward"] for row in rows)


def test_death_is_terminal_and_the_games_time_limit_is_not():
    env = Crafter("reward", seed=1)
    env.reset()
    env._game._player.health = 0
    row = env.step(0)
    assert row["is_last"] and row["is_terminal"]
    env.reset()
    env._game._step = 9999
    row = env.step(0)
    assert row["is_last"] and not row["is_terminal"]


def test_the_environment_keeps_the_contract_and_names_its_actions():
    env = make_env("crafter_reward", render_size=(32, 48), seed=2)
    obs = env.reset()
    obs = env.step(np.eye(17, dtype=np.float32)[3])
    assert obs["image"].shape == (32, 48, 3)
    assert sum(key.startswith(ACHIEVEMENT) for key in env.obs_space) == 22
    assert env.action_names[:2] == ("noop", "move_left") and len(env.action_names) == 17
    assert env.render().shape == (9 * CELL, 9 * CELL, 3)


def test_a_mistake_is_one_line_and_a_missing_package_is_named_with_its_extra(monkeypatch):
    with pytest.raises(ValueError, match="unknown Crafter task 'rewards'; nearest: .*reward"):
        make_env("crafter_rewards")
    with pytest.raises(ValueError, match="render_size 64 x 17: .* at least 18 x 18"):
        make_env("crafter_reward", render_size=(64, 17))
    make_env("crafter_reward", render_size=(18, 18)).reset()
    monkeypatch.setitem(sys.modules, "crafter", None)
    with pytest.raises(ValueError, match="install the extra `crafter`"):
        make_env("crafter_reward")
