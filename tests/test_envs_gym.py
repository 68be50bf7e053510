"""The adapter for Gymnasium: spaces, both interfaces, flags, rendering."""

import json

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from common.data.spaces import space_from_json, space_to_json
from common.envs import make_env
from common.envs.gym_adapter import GymAdapter
from common.envs.observations import as_row
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
    "space, value, vector",
    [
        (spaces.Discrete(3), np.int64(1), [0, 1, 0]),
        (spaces.Discrete(3, start=-1), -1, [1, 0, 0]),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
        (spaces.MultiDiscrete([[2], [2]], start=[[0], [5]]), np.array([[1], [5]]), [0, 1, 1, 0]),
        (spaces.MultiBinary((2, 2)), np.array([[0, 1], [1, 1]], np.int8), [0, 1, 1, 1]),
        (spaces.MultiBinary(2), np.array([False, True]), [0, 1]),
    ],
)
def test_whole_numbers_become_one_hot_vectors(space, value, vector):
    env = make_env(Toy(space, value))
    row = env.reset()["vector"]
    assert row.tolist() == vector and row.dtype == np.float32
    assert env.obs_space["vector"].shape == (len(vector),)
    again = space_from_json(json.loads(json.dumps(space_to_json(env.obs_space["vector"]))))
    assert again == env.obs_space["vector"]


@pytest.mark.parametrize("value", [3, -1, 0.0, np.array([1])])
def test_a_number_outside_of_its_range_is_refused(value):
    with pytest.raises(ValueError, match="key 'vector': .*(out of range|whole numbers)"):
        make_env(Toy(spaces.Discrete(3), value)).reset()


def test_tuples_and_nested_dicts_are_flattened():
    space = spaces.Tuple(
        [spaces.Discrete(2), spaces.Dict(camera=image_space(9, 9, 3), arm=vector_space(2))]
    )
    camera = np.arange(243, dtype=np.uint8).reshape(9, 9, 3)
    obs = (1, {"camera": camera, "arm": np.array([3, 4], np.float32)})
    env = make_env(Toy(space, obs), render_size=(9, 9))
    row = env.reset()
    assert list(env.obs_space)[:3] == ["part0", "part1_camera", "part1_arm"]
    assert row["part0"].tolist() == [0, 1] and row["part1_arm"].tolist() == [3, 4]
    assert (row["part1_camera"] == camera).all()
    assert (env.render() == camera).all()


@pytest.mark.parametrize(
    "name, length",
    [("FrozenLake-v1", 16), ("Taxi-v4", 500), ("Acrobot-v1", 6), ("MountainCarContinuous-v0", 2)],
)
def test_environments_that_come_with_gymnasium(name, length):
    env = make_env(f"gym_{name}", seed=1)
    assert env.reset()["vector"].shape == (length,)
    assert env.step(env.act_space.sample())["reward"].dtype == np.float32


def test_blackjack_is_a_tuple_of_whole_numbers():
    row = make_env("gym_Blackjack-v1").reset()
    assert [row[f"part{i}"].shape for i in range(3)] == [(32,), (11,), (2,)]
    assert all(row[f"part{i}"].sum() == 1 for i in range(3))


@pytest.mark.parametrize("whole", [True, False])
def test_what_gymnasium_returns_becomes_a_row(whole):
    space = spaces.Dict(
        camera=image_space(20, 30), where=spaces.Discrete(4), arm=vector_space(2, 2)
    )
    toy = Toy(space, results=[(1.5, False, False, {})])
    env = make_env(Toy(space, toy.obs), render_size=(8, 8))
    expected = env.reset()
    row = as_row(env.obs_space, toy.reset() if whole else toy.obs, first=not whole)
    for key in ("camera", "where", "arm"):
        np.testing.assert_array_equal(row[key], expected[key])
        assert row[key].dtype == expected[key].dtype
    assert row["is_first"] is True
    assert as_row(env.obs_space, toy.step(0), first=True)["is_first"] is False
    assert as_row(env.obs_space, expected, first=False)["is_first"] is True


def test_a_lone_observation_needs_no_key():
    obs_space = make_env(Toy(spaces.Discrete(3))).obs_space
    assert as_row(obs_space, 2, first=False)["vector"].tolist() == [0, 0, 1]
    obs_space = make_env(Toy(vector_space(3))).obs_space
    with pytest.raises(ValueError, match=r"'vector': expected float32 \[3\], got float64 \[2\]"):
        as_row(obs_space, np.zeros(2), first=True)
    with pytest.raises(ValueError, match=r"expected the keys \['vector'\], got \['a'\]"):
        as_row(obs_space, {"a": np.zeros(3)}, first=True)


@pytest.mark.parametrize(
    "space, message",
    [
        (spaces.Text(4), "'vector': expected Box, Discrete, .* got Text"),
        (spaces.Sequence(spaces.Discrete(2)), "expected Box, Discrete, .* got Sequence"),
        (spaces.Tuple([]), "observation space"),
        (spaces.Dict(), "observation space"),
        (spaces.Dict(a=spaces.Dict(b=spaces.Text(4))), "key 'a_b': .* got Text"),
        (spaces.Dict(reward=vector_space(2)), "key 'reward': this name is taken"),
        (spaces.Dict(kl=vector_space(2)), "key 'kl': this name is taken"),
        (spaces.Dict(file=vector_space(2)), "key 'file': this name is taken"),
        (
            spaces.Dict(arm_angle=vector_space(2), arm=spaces.Dict(angle=vector_space(3))),
            "key 'arm_angle': two have this name",
        ),
        (image_space(3, 64, 64), "'image'.*height, width, channels.*3, 64, 64"),
    ],
)
def test_unsupported_observation_spaces_are_refused(space, message):
    with pytest.raises(ValueError, match=message):
        make_env(Toy(space))


@pytest.mark.parametrize(
    "space, hint",
    [
        (spaces.MultiDiscrete([2, 3]), "TransformAction"),
        (spaces.MultiBinary(2), "TransformAction"),
        (spaces.Box(0, 3, (2,), np.int64), ""),
    ],
)
def test_unsupported_action_spaces_are_refused(space, hint):
    with pytest.raises(ValueError, match=f"expected Discrete or a Box of floats.*{hint}"):
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


def test_a_picture_stays_as_it_was_when_the_environment_draws_the_next_one():
    class OneCanvas(Toy):
        render_mode = "rgb_array"
        canvas = np.zeros((2, 2, 3), np.uint8)

        def render(self):
            self.canvas += 1
            return self.canvas

    env = GymAdapter(OneCanvas(vector_space(2)))
    assert [picture.max() for picture in (env.render(), env.render())] == [1, 2]


def test_the_picture_of_a_stack_of_frames_is_the_newest_one():
    toy = Toy(image_space(8, 8, 4))
    env = GymAdapter(toy)
    env.reset()
    for channel in range(3):
        np.testing.assert_array_equal(env.render()[..., channel], toy.obs[..., 3])


def test_render_without_the_package_that_draws_names_the_extra():
    class Undrawn(Toy):
        render_mode = "rgb_array"

        def render(self):
            raise gymnasium.error.DependencyNotInstalled("pygame is missing\nrun pip install")

    env = GymAdapter(Undrawn(vector_space(2)))
    with pytest.raises(ValueError, match="rendered: pygame is missing; the extras `classic`"):
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
