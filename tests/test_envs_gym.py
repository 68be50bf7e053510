"""The adapter for Gymnasium: spaces, both interfaces, flags, rendering."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from common.envs import make_env
from common.envs.gym_adapter import GymAdapter
from common.envs.resize import resize_by_area


class Toy:
    """An environment of the current interface that returns what it was told to."""

    render_mode = None

    def __init__(self, observation_space, obs=None, action_space=None, results=()):
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Discrete(3)
        self.obs = observation_space.sample() if obs is None else obs
        self.results = list(results)
        self.seeds, self.actions = [], []

    def reset(self, seed=None):
        self.seeds.append(seed)
        return self.obs, {}

    def step(self, action):
        self.actions.append(action)
        return (self.obs, *self.results.pop(0))

    def close(self):
        pass


class OldToy(Toy):
    """The same with the interface of gym before 0.26."""

    def reset(self):
        return self.obs

    def seed(self, seed):
        self.seeds.append(seed)

    def render(self, mode="human"):
        return np.full((2, 3, 3), 7) if mode == "rgb_array" else None


class OldBox(spaces.Box):
    """Stands for a Box of another package."""


def image_space(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


def vector_space(*shape, dtype=np.float32):
    return spaces.Box(-5, 5, shape, dtype)


def test_lone_vector_becomes_float32_under_vector():
    obs = np.array([1.5, -2, 0, 4], np.float64)
    env = make_env(Toy(vector_space(4, dtype=np.float64), obs))
    row = env.reset()
    assert list(env.obs_space) == ["vector", "reward", "is_first", "is_last", "is_terminal"]
    assert row["vector"].dtype == env.obs_space["vector"].dtype == np.float32
    assert row["vector"].tolist() == obs.tolist()
    assert row["is_first"] and row["reward"] == 0


@pytest.mark.parametrize(
    "space, size",
    [(vector_space(), 1), (vector_space(2, 3), 6), (spaces.Box(0, 1, (2, 2, 3), bool), 12)],
)
def test_boxes_of_other_ranks_and_types_are_flattened(space, size):
    value = space.sample()
    env = make_env(Toy(space, value))
    row = env.reset()
    assert row["vector"].shape == (size,) and row["vector"].dtype == np.float32
    assert row["vector"].tolist() == np.ravel(value).tolist()


def test_uint8_vectors_keep_their_type():
    assert make_env(Toy(image_space(128))).reset()["vector"].dtype == np.uint8


@pytest.mark.parametrize("shape", [(64, 64, 3), (100, 80, 3), (84, 84), (32, 32, 1)])
def test_images_get_the_render_size(shape):
    env = make_env(Toy(image_space(*shape)))
    raw = env.env.env._env.obs
    image = env.reset()["image"]
    channels = shape[2] if len(shape) == 3 else 1
    assert image.shape == env.obs_space["image"].shape == (64, 64, channels)
    assert image.dtype == np.uint8
    expected = resize_by_area(raw, (64, 64))
    np.testing.assert_array_equal(image, expected)


def test_image_of_the_right_size_is_a_copy_of_the_environments_own():
    toy = Toy(image_space(64, 64, 3))
    image = make_env(toy).reset()["image"]
    np.testing.assert_array_equal(image, toy.obs)
    assert not np.shares_memory(image, toy.obs)


def test_dict_keeps_its_keys():
    space = spaces.Dict(camera=image_space(20, 20, 3), position=vector_space(3))
    row = make_env(Toy(space), render_size=(16, 32)).reset()
    assert row["camera"].shape == (16, 32, 3)
    assert row["position"].shape == (3,)


def test_truncation_is_last_but_not_terminal():
    results = [(1, False, False, {}), (2.0, False, True, {}), (3, True, False, {})]
    env = GymAdapter(Toy(vector_space(2), results=results + [(4, True, True, {})]))
    env.reset()
    rows = [env.step(0) for _ in range(4)]
    assert [row["reward"] for row in rows] == [1, 2, 3, 4]
    assert all(row["reward"].dtype == np.float32 for row in rows)
    assert [row["is_last"] for row in rows] == [False, True, True, True]
    assert [row["is_terminal"] for row in rows] == [False, False, True, True]
    assert not any(row["is_first"] for row in rows)


def test_old_interface_with_four_values():
    cut = {"TimeLimit.truncated": True}
    results = [(1, False, {}), (2, True, cut), (3, True, {}), (4, False, cut)]
    toy = OldToy(vector_space(2), results=results)
    env = GymAdapter(toy, seed=5)
    assert env.reset()["is_first"]
    env.reset()
    assert toy.seeds == [5]
    rows = [env.step(0) for _ in range(4)]
    assert [row["is_last"] for row in rows] == [False, True, True, False]
    assert [row["is_terminal"] for row in rows] == [False, False, True, False]
    assert env.render().tolist() == np.full((2, 3, 3), 7).tolist()
    assert env.render().dtype == np.uint8


def test_spaces_of_another_package_are_known_by_their_names():
    toy = Toy(OldBox(0, 255, (64, 64, 3), np.uint8), action_space=OldBox(-2, 2, (2,), np.float32))
    toy.results = [(0, False, False, {})]
    env = make_env(toy)
    env.reset()
    env.step(np.array([1, -0.5], np.float32))
    assert toy.actions[0].tolist() == [2, -1]


def test_seed_is_given_once():
    toy = Toy(vector_space(2))
    env = GymAdapter(toy, seed=7)
    env.reset(), env.reset()
    assert toy.seeds == [7, None]


def test_discrete_actions_arrive_as_their_own_numbers():
    toy = Toy(vector_space(2), action_space=spaces.Discrete(3, start=-1))
    toy.results = [(0, False, False, {})]
    env = make_env(toy)
    env.reset()
    env.step(np.array([0, 0, 1], np.float32))
    assert toy.actions == [1]


@pytest.mark.parametrize(
    "space, message",
    [
        (spaces.Discrete(4), "observation space.*got Discrete"),
        (spaces.Tuple([vector_space(2)]), "observation space.*got Tuple"),
        (spaces.Dict(), "observation space"),
        (spaces.Dict(a=spaces.Discrete(2)), "key 'a': expected a Box, got Discrete"),
        (spaces.Dict(reward=vector_space(2)), "key 'reward': this name is taken"),
        (image_space(3, 64, 64), "'image'.*height, width, channels.*3, 64, 64"),
    ],
)
def test_unsupported_observation_spaces_are_refused(space, message):
    with pytest.raises(ValueError, match=message):
        make_env(Toy(space))


@pytest.mark.parametrize(
    "space", [spaces.MultiDiscrete([2, 3]), spaces.Box(0, 3, (2,), np.int64), spaces.MultiBinary(2)]
)
def test_unsupported_action_spaces_are_refused(space):
    with pytest.raises(ValueError, match="action space: expected Discrete or a Box of floats"):
        make_env(Toy(vector_space(2), action_space=space))


@pytest.mark.parametrize(
    "space, obs, message",
    [
        (vector_space(4), np.zeros(3), r"'vector'.*expected float32 \[4\], got float64 \[3\]"),
        (vector_space(2), np.zeros(2, int), r"'vector'.*expected float32 \[2\], got int64 \[2\]"),
        (vector_space(2), np.array(["a", "b"]), r"'vector'.*expected float32 \[2\], got <U1"),
        (image_space(9, 9, 3), np.zeros((9, 9, 3)), r"'image'.*expected uint8.*got float64"),
        (spaces.Dict(a=vector_space(2)), {"b": np.zeros(2)}, r"keys \['a'\], got \['b'\]"),
        (spaces.Dict(a=vector_space(2)), np.zeros(2), r"keys \['a'\], got ndarray"),
    ],
)
@pytest.mark.parametrize("call", ["reset", "step"])
def test_observations_other_than_declared_are_refused(space, obs, message, call):
    toy = Toy(space, results=[(0, False, False, {})])
    env = make_env(toy)
    if call == "step":
        env.reset()
    toy.obs = obs
    with pytest.raises(ValueError, match=message):
        env.reset() if call == "reset" else env.step(np.eye(3, dtype=np.float32)[0])


def test_reward_that_is_no_scalar_is_refused():
    env = make_env(Toy(vector_space(2), results=[(np.zeros(1), False, False, {})]))
    env.reset()
    with pytest.raises(ValueError, match=r"'reward' at step: expected float32 \[\], got.*\[1\]"):
        env.step(np.eye(3, dtype=np.float32)[0])


def test_render_without_a_render_mode_shows_the_image_or_says_what_to_do():
    toy = Toy(image_space(20, 30))
    env = GymAdapter(toy)
    env.reset()
    assert env.render().shape == (20, 30, 3)
    np.testing.assert_array_equal(env.render()[..., 1], toy.obs)
    env = GymAdapter(Toy(vector_space(2)))
    env.reset()
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        env.render()


@pytest.mark.parametrize("repeat", [1, 2])
def test_cartpole_by_name(repeat):
    pytest.importorskip("pygame", reason="CartPole draws with pygame")
    env = make_env("gym_CartPole-v1", seed=1, action_repeat=repeat)
    env.record_frames = True
    action = np.array([1, 0], np.float32)
    rows = [env.reset()]
    while not rows[-1]["is_last"]:
        rows.append(env.step(action))
    assert rows[-1]["is_terminal"]
    assert rows[1]["reward"] == repeat
    assert env.render().shape == (400, 600, 3) and env.render().std() > 0
    assert (env.skipped_frames()[-1] == env.render()).all()
    again = make_env("gym_CartPole-v1", seed=1).reset()
    assert (again["vector"] == rows[0]["vector"]).all()
    assert (make_env("gym_CartPole-v1", seed=2).reset()["vector"] != rows[0]["vector"]).any()
    env.close()


def test_pendulum_is_cut_at_200_steps_but_never_terminal():
    env = make_env("gym_Pendulum-v1")
    env.reset()
    rows = [env.step(np.array([1], np.float32)) for _ in range(200)]
    assert [row["is_last"] for row in rows] == [False] * 199 + [True]
    assert not any(row["is_terminal"] for row in rows)


class Plain(gymnasium.Env):
    """Knows nothing of render modes."""

    observation_space = vector_space(2)
    action_space = spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        return np.zeros(2, np.float32), {}


def test_registered_environment_without_render_modes():
    gymnasium.register("Plain-v0", Plain)
    try:
        with pytest.warns(UserWarning, match="render"):
            assert make_env("gym_Plain-v0").reset()["vector"].shape == (2,)
    finally:
        del gymnasium.registry["Plain-v0"]


@pytest.mark.parametrize(
    "name, message",
    [
        ("CartPol-v1", "unknown Gymnasium environment 'CartPol-v1'; nearest: CartPole-v1"),
        ("CartPole-v9", "unknown Gymnasium environment 'CartPole-v9'; nearest: CartPole"),
        ("nosuchmodule:Foo-v0", "'nosuchmodule:Foo-v0': No module named"),
        ("a/b/c", "'a/b/c': Malformed"),
    ],
)
def test_unknown_environment_is_named_with_others(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_env(f"gym_{name}")
    assert "\n" not in str(caught.value)
