"""The tasks without reward on which exploration is shown."""

import numpy as np

from docs.exploration import acrobot, grid, valley

RIGHT, LEFT, DOWN, UP = range(4)


def cell(observation):
    """Column and height of the walk."""
    return tuple(np.round((observation + 1) / 2 * 16).astype(int))


def test_every_one_of_237_cells_can_be_reached():
    walls = np.array([[c == "#" for c in row] for row in grid.ROOMS])
    reached = np.zeros_like(walls)
    reached[0, 0] = True
    for _ in range(walls.size):
        wide = np.pad(reached, 1)
        around = wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
        reached |= around & ~walls
    assert reached.sum() == (~walls).sum() == 237


def test_walls_and_borders_stop_a_move_and_doors_let_pass():
    env = grid.rooms()
    assert cell(env.reset()[0]) == (0, 16)
    for action in (LEFT, UP):
        assert cell(env.step(action)[0]) == (0, 16)
    for _ in range(6):
        observation = env.step(RIGHT)[0]
    assert cell(observation) == (4, 16)  # the wall
    for action in (DOWN, DOWN, RIGHT, RIGHT):
        observation, reward, *_ = env.step(action)
        assert env.observation_space.contains(observation) and reward == 0
    assert cell(observation) == (6, 14)  # through the door


def test_the_picture_shows_walls_and_the_walker():
    env = grid.rooms()
    env.reset()
    env.step(RIGHT)
    picture = env.render()[4::8, 4::8]
    np.testing.assert_array_equal(picture[0, 1], [230, 120, 0])
    assert (picture == 90).all(-1).sum() == 17 * 17 - 237


def test_the_walk_starts_again_after_100_steps():
    env = grid.rooms()
    env.reset()
    ends = [env.step(RIGHT)[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]
    assert cell(env.reset()[0]) == (0, 16)


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


def test_acrobot_has_no_reward_and_its_angles_are_those_of_the_links():
    env = acrobot.make()
    observation, _ = env.reset(seed=0)
    ends = []
    for step in range(100):
        observation, reward, terminated, truncated, _ = env.step(step // 5 % 2 * 2)
        assert reward == 0 and env.observation_space.contains(observation)
        np.testing.assert_allclose(
            observation["angles"] * np.pi, env.unwrapped.state[:2], atol=1e-5
        )
        ends.append((terminated, truncated))
    assert ends == [(False, False)] * 99 + [(False, True)]
    speeds = env.unwrapped.state[2:] / (4 * np.pi, 9 * np.pi)
    np.testing.assert_allclose(observation["vector"][4:], speeds, atol=1e-5)
