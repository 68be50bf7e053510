"""The two tasks without reward on which exploration is shown."""

import numpy as np

from docs.exploration import grid, valley

RIGHT, LEFT, DOWN, UP = range(4)


def test_the_corridor_has_71_cells_and_can_be_walked_within_one_episode():
    env = grid.snake()
    observation, _ = env.reset()
    places = {tuple(observation["place"])}
    way = [*[RIGHT] * 10, DOWN, DOWN, *[LEFT] * 10, DOWN, DOWN] * 2 + [RIGHT] * 10 + [DOWN] * 2
    for action in [*way, *[LEFT] * 10]:
        observation, reward, terminated, truncated, _ = env.step(action)
        assert reward == 0 and not terminated and not truncated
        places.add(tuple(observation["place"]))
    assert len(places) == sum(row.count(".") + row.count("S") for row in grid.SNAKE) == 71
    assert tuple(observation["place"]) == (0, 0)


def test_walls_and_borders_stop_a_move_and_the_episode_ends_after_100():
    env = grid.snake()
    start, _ = env.reset()
    for action in (LEFT, UP, DOWN):
        np.testing.assert_array_equal(env.step(action)[0]["place"], start["place"])
    observation = env.step(RIGHT)[0]
    np.testing.assert_array_equal(observation["place"], [1, 10])
    np.testing.assert_array_equal(np.flatnonzero(observation["vector"]), [0, 11 + 1])
    assert [env.step(UP)[3] for _ in range(96)] == [False] * 95 + [True]


def test_the_valley_has_no_reward_and_numbers_from_minus_one_to_one():
    env = valley.make()
    observation, _ = env.reset(seed=0)
    position = observation[0] * 0.9 - 0.3
    np.testing.assert_allclose(position, env.unwrapped.state[0], rtol=1e-5)
    for _ in range(50):
        action = 2 if observation[1] >= 0 else 0
        observation, reward, _, _, _ = env.step(action)
        assert reward == 0 and env.observation_space.contains(observation)
    assert abs(observation[1]) > 0.2
