"""Atari: recorded traces, the steps around an agent step, both backends."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from common.envs import make_env
from common.envs.atari import BACKENDS, Atari
from common.envs.resize import resize_by_area

GOLDEN = Path(__file__).parent / "golden"
EXACT = {"sticky": 0.0, "noops": 0}

needs_atari_py = pytest.mark.skipif(
    importlib.util.find_spec("atari_py") is None,
    reason="atari-py is not installed (extra `legacy`)",
)
backends = pytest.mark.parametrize(
    "backend", ["ale", pytest.param("atari_py", marks=needs_atari_py)]
)


def play(env, actions):
    """Observations of a list of action indices, where -1 is a reset; keys stacked over time."""
    rows = [env.reset() if action < 0 else env.step(int(action)) for action in actions]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


@backends
@pytest.mark.parametrize("game", ["breakout", "pong"])
def test_recorded_traces_of_the_reference_are_reproduced(game, backend):
    golden = np.load(GOLDEN / f"env_{game}.npz")
    ours = play(Atari(game, backend=backend, **EXACT), golden["actions"])
    for key in ("image", "ram", "reward", "is_first", "is_last", "is_terminal"):
        assert ours[key].shape == golden[key].shape
        np.testing.assert_array_equal(ours[key], golden[key], err_msg=key)
    assert golden["is_terminal"].any() or game != "breakout"


@backends
def test_a_lost_life_is_terminal_only_where_that_is_asked_for(backend):
    actions = [-1, *np.random.default_rng(0).integers(0, 4, 300)]
    ours, marked = (
        play(Atari("breakout", backend=backend, life_terminal=life), actions)
        for life in (False, True)
    )
    lives = marked["ram"][:, 57].astype(int)  # as the game itself counts them
    lost = np.flatnonzero(np.diff(lives) < 0) + 1
    assert len(lost) == 5
    np.testing.assert_array_equal(np.flatnonzero(marked["is_terminal"])[:5], lost)
    np.testing.assert_array_equal(np.flatnonzero(ours["is_terminal"])[:1], lost[-1:])
    for key in ours.keys() - {"is_terminal"}:
        np.testing.assert_array_equal(ours[key], marked[key], err_msg=key)


@needs_atari_py
@pytest.mark.parametrize("game", ["breakout", "pong", "ms_pacman"])
def test_both_backends_show_the_same_frames(game):
    actions = [-1, *np.random.default_rng(0).integers(0, 18, 100)]
    settings = {"grayscale": False, "full_actions": True, **EXACT}
    envs = [Atari(game, backend=backend, **settings) for backend in BACKENDS]
    new, old = (play(env, actions) for env in envs)
    assert envs[0].action_names == envs[1].action_names
    for key in new:
        np.testing.assert_array_equal(new[key], old[key], err_msg=key)
    np.testing.assert_array_equal(envs[0].render(), envs[1].render())
    assert Atari(game).action_names == Atari(game, backend="atari_py").action_names


@pytest.mark.skipif(
    importlib.util.find_spec("atari_py") is not None, reason="atari-py is installed"
)
def test_missing_legacy_package_is_named_with_its_extra():
    with pytest.raises(ValueError, match="atari-py.*`legacy`"):
        make_env("atari_breakout", atari_backend="atari_py")


@backends
@pytest.mark.parametrize("game", ["brekout", "xyzxyz"])
def test_unknown_game_is_named_with_others(game, backend):
    with pytest.raises(ValueError, match=f"Atari game '{game}'.*(breakout|adventure)"):
        make_env(f"atari_{game}", atari_backend=backend)


def test_game_for_several_players_is_refused():
    with pytest.raises(ValueError, match="'combat' is for several players"):
        make_env("atari_combat")


@backends
def test_games_with_other_screens_work(backend):
    env = Atari("air_raid", backend=backend)
    assert env.reset()["image"].shape == (64, 64, 1)
    assert env.render().shape == (250, 160, 3)


def test_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="atari_backend: expected ale or atari_py, got 'gym'"):
        make_env("atari_breakout", atari_backend="gym")


def test_same_seed_same_play_and_other_seed_other_play():
    actions = [-1, *[1, 2, 3, 2] * 20, -1, *[3] * 10]
    first, same, other = (play(Atari("breakout", seed=seed), actions) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["ram"], same["ram"])
    assert (first["ram"] != other["ram"]).any()


def test_seed_reaches_the_emulators_sticky_actions():
    actions = [-1, *[1, 2, 3, 2] * 20]
    first, same, other = (
        play(Atari("breakout", seed=seed, noops=0), actions)["ram"] for seed in (1, 1, 2)
    )
    assert (first == same).all() and (first != other).any()


def test_train_and_eval_environment_of_a_seed_differ():
    train, again, evaluation = (
        make_env("atari_breakout", seed=0, mode=mode, action_repeat=4)
        for mode in ("train", "train", "eval")
    )
    starts = [[env.reset()["ram"].tolist() for _ in range(3)] for env in (train, again, evaluation)]
    assert starts[0] == starts[1] != starts[2]


class CountingEmulator:
    """Stands before an emulator, counts frames and can end the game at one of them."""

    def __init__(self, ale, over_at=None):
        self.ale = ale
        self.acts = []
        self.over_at = over_at

    def __getattr__(self, name):
        return getattr(self.ale, name)

    def act(self, code):
        self.acts.append(code)
        return self.ale.act(code)

    def game_over(self):
        return len(self.acts) == self.over_at


def count(env, over_at=None):
    env._ale = CountingEmulator(env._ale, over_at)
    return env._ale


def test_no_ops_at_reset_are_one_to_thirty():
    env = Atari("breakout")
    emulator = count(env)
    numbers = []
    for _ in range(200):
        emulator.acts.clear()
        env.reset()
        assert set(emulator.acts) == {0}
        numbers.append(len(emulator.acts))
    assert min(numbers) == 1 and max(numbers) == 30
    env = Atari("breakout", noops=0)
    emulator = count(env)
    env.reset()
    assert not emulator.acts


@pytest.mark.parametrize("repeat", [1, 2, 4])
def test_image_is_the_maximum_of_the_last_two_frames(repeat):
    env = Atari("space_invaders", action_repeat=repeat, **EXACT)
    env.record_frames = True
    env.reset()
    single = Atari("space_invaders", action_repeat=1, size=(210, 160), **EXACT)
    single.reset()
    for step in range(60):
        screens = [single.step(step % 6)["image"] for _ in range(repeat)]
        obs = env.step(step % 6)
        expected = np.maximum(*screens[-2:]) if repeat > 1 else screens[0]
        np.testing.assert_array_equal(obs["image"], resize_by_area(expected, (64, 64)))


def test_rewards_of_the_repeated_frames_are_summed_and_not_clipped():
    env = Atari("ms_pacman", **EXACT)
    single = Atari("ms_pacman", action_repeat=1, **EXACT)
    env.reset(), single.reset()
    rewards = []
    for step in range(150):
        action = step // 10 % 4 + 1
        rewards.append(env.step(action)["reward"])
        assert rewards[-1] == sum(single.step(action)["reward"] for _ in range(4))
    assert max(rewards) >= 10


def test_sticky_actions_repeat_the_last_action_per_frame():
    sticky, exact = Atari("breakout", sticky=1.0, noops=0), Atari("breakout", **EXACT)
    actions = [-1, *[2] * 10]
    noop = play(exact, [-1, *[0] * 10])["ram"]
    np.testing.assert_array_equal(play(sticky, actions)["ram"], noop)
    assert (play(exact, actions)["ram"] != noop).any()
    assert make_env("atari_breakout").env.env._ale.getFloat("repeat_action_probability") == 0.25


def test_step_stops_where_the_game_ends():
    env = Atari("breakout", **EXACT)
    env.record_frames = True
    env.reset()
    emulator = count(env, over_at=6)
    assert not env.step(1)["is_last"]
    obs = env.step(1)
    assert obs["is_last"] and obs["is_terminal"] and not obs["is_first"]
    assert len(emulator.acts) == 6 and len(env.skipped_frames()) == 2


def test_colour_images_and_action_sets():
    env = Atari("pong", grayscale=False, full_actions=True, size=(32, 48))
    image = env.reset()["image"]
    assert image.shape == env.obs_space["image"].shape == (32, 48, 3)
    assert (image[..., 0] != image[..., 1]).any()
    assert env.act_space.n == 18 and env.action_names[-1] == "DOWNLEFTFIRE"
    assert Atari("breakout").action_names == ("NOOP", "FIRE", "RIGHT", "LEFT")


def test_render_is_the_screen_and_frames_are_recorded_on_request():
    env = Atari("breakout", **EXACT)
    env.reset()
    env.step(1)
    assert env.skipped_frames() == []
    env.record_frames = True
    env.reset()
    assert len(env.skipped_frames()) == 1
    env.step(1)
    frames = env.skipped_frames()
    assert len(frames) == 4
    assert all(frame.shape == (210, 160, 3) and frame.dtype == np.uint8 for frame in frames)
    np.testing.assert_array_equal(frames[-1], env.render())
    assert (frames[0] != frames[-1]).any()


def test_recording_frames_does_not_change_the_play():
    actions = [-1, *[1, 2, 2, 3] * 10]
    plain, recorded = Atari("breakout", seed=3), Atari("breakout", seed=3)
    recorded.record_frames = True
    plain, recorded = play(plain, actions), play(recorded, actions)
    for key in plain:
        np.testing.assert_array_equal(plain[key], recorded[key], err_msg=key)


def test_observations_are_not_overwritten_by_later_steps():
    env = Atari("breakout", **EXACT)
    obs = env.reset()
    before = {key: np.array(value) for key, value in obs.items()}
    for _ in range(30):
        env.step(1)
    for key in before:
        np.testing.assert_array_equal(obs[key], before[key])


def test_emulator_keeps_quiet(capfd):
    make_env("atari_breakout").reset()
    assert capfd.readouterr() == ("", "")


def area_weights(old, new):
    """[new, old] by the definition: the share of each old pixel in each new one, exactly."""
    fine = np.repeat(np.eye(old), new, 0).reshape(new, old, old)
    return fine.mean(1)


@pytest.mark.parametrize(
    "old, new", [((210, 160), (64, 64)), ((7, 20), (6, 16)), ((4, 4), (8, 12))]
)
@pytest.mark.parametrize("channels", [1, 3, 4, 5, 12])
def test_resize_gives_the_mean_of_the_area(old, new, channels):
    image = np.random.default_rng(0).integers(0, 256, (*old, channels), dtype=np.uint8)
    rows, columns = (area_weights(a, b) for a, b in zip(old, new, strict=True))
    exact = np.einsum("yh,xw,hwc->yxc", rows, columns, image)
    ours = resize_by_area(image, new)
    assert ours.shape == (*new, channels) and ours.dtype == np.uint8
    assert np.abs(ours - exact).max() <= 0.5 + 1e-3
