"""Films show the game's own pixels beside what the agent thinks, and say what they show."""

import imageio.v3 as iio
import numpy as np
import pytest
import saved
from PIL import Image

from common.envs.scripted import Scripted
from dreamerv2 import paint, panels, render, restore
from dreamerv2.evaluate import evaluate
from dreamerv2.film import Layout
from dreamerv2.play import AgentPolicy, episode_seed
from dreamerv2.record import record, unpack

STEPS = 12  # agent steps of an episode
ALL = ",".join(render.NAMES)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("run")
    saved.save(logdir, 100, time_limit=STEPS)
    return logdir


@pytest.fixture(scope="module")
def film(logdir, tmp_path_factory):
    """All panels: the file, and its pictures [T, H, W, 3] with repeated ones again."""
    path = tmp_path_factory.mktemp("film") / "film.gif"
    assert render.main(["--logdir", str(logdir), "--out", str(path)]) == 0
    return path, pictures_of(path, 15)


def pictures_of(path, fps):
    """The pictures of a GIF as they are shown, at `fps`."""
    image, result, ends = Image.open(path), [], 0
    for index in range(image.n_frames):
        image.seek(index)
        ends += image.info["duration"]
        count = round(ends * fps / 1000) - len(result)
        result += [np.asarray(image.convert("RGB"))] * count
    return np.stack(result)


def screens_of(logdir, seed=0):
    """What the greedy agent's first episode looks like, and its actions, straight from the game."""
    back = restore.read(logdir)
    number = episode_seed(seed, 0)
    env, policy = back.env(number), AgentPolicy(back.agent(), "eval").episode(number)
    env.record_frames = True
    obs, state = env.reset(), None
    screens, inputs, actions = [*env.skipped_frames()], [obs["image"]], []
    while not obs["is_last"]:
        action, state = policy(obs, state)
        obs = env.step(action)
        screens += env.skipped_frames()
        inputs.append(obs["image"])
        actions.append(action)
    env.close()
    return screens, inputs, actions


def layout(names=render.NAMES, scale=2, screen=(210, 160)):
    return Layout(names, scale, screen, "caption")


def test_every_env_frame_is_shown_in_the_game_s_own_pixels(logdir, film):
    screens, _, _ = screens_of(logdir)
    _, pictures = film
    assert len(screens) == 1 + 4 * STEPS
    assert len(pictures) == len(screens) + 15  # the end stays for a second
    place = layout().places["screen"]
    for picture, screen in zip(pictures, screens, strict=False):
        np.testing.assert_array_equal(place.of(picture), screen.repeat(2, 0).repeat(2, 1))
    ball = (screens[0] == (200, 72, 72)).all(-1)
    assert ball.any()  # bricks, paddle and ball have this colour


def test_the_input_is_what_the_agent_saw_last(logdir, film):
    _, inputs, _ = screens_of(logdir)
    place = layout().places["input"]
    for number in range(1 + 4 * STEPS):
        shown = place.of(film[1][number]).astype(int)
        expected = inputs[number // 4].repeat(2, 0).repeat(2, 1)
        assert np.abs(shown - expected).max() < 25 and np.abs(shown - expected).mean() < 2


def test_the_window_shows_the_same_pictures(logdir, film, tmp_path):
    path = tmp_path / "part.gif"
    render.main(["--logdir", str(logdir), "--out", str(path), "--frames", "10:22"])
    part, place = pictures_of(path, 15), layout().places["screen"]
    assert len(part) == 12
    np.testing.assert_array_equal(
        [place.of(p) for p in part], [place.of(p) for p in film[1][10:22]]
    )


def test_the_same_seed_makes_the_same_film(logdir, tmp_path):
    films = []
    for seed in "001":
        path = tmp_path / "film.gif"
        flags = ["--logdir", str(logdir), "--out", str(path), "--seed", seed, "--frames", ":33"]
        render.main([*flags, "--mode", "train", "--scale", "1"])
        films.append(path.read_bytes())
    assert films[0] == films[1] != films[2]


def test_mp4_shows_the_same_film(logdir, film, tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    render.main(["--logdir", str(logdir), "--out", str(path), "--frames", ":20"])
    frames = iio.imread(path, plugin="pyav")
    assert len(frames) == 20
    height, width = film[1].shape[1:3]
    assert np.abs(frames[:, :height, :width].astype(int) - film[1][:20]).mean() < 3
    assert b"atari_breakout, trained for 400 frames" in path.read_bytes()


def test_the_best_of_several_episodes_says_so(tmp_path, capsys):
    saved.save(tmp_path / "run", task="gym_CartPole-v1")
    back = restore.read(tmp_path / "run")
    player = AgentPolicy(back.agent(), "train")
    result = evaluate(back.env, lambda n, env: player.episode(n), 3, 7, show=lambda line: None)
    flags = ["--logdir", str(tmp_path / "run"), "--out", str(tmp_path / "cart.gif")]
    flags += ["--seed", "7", "--mode", "train", "--panels", "input,policy", "--best-of", "3"]
    assert render.main(flags) == 0
    assert [path.name for path in tmp_path.glob("*.gif")] == ["cart-best-of-3.gif"]
    best = int(np.argmax(result.returns))
    printed = capsys.readouterr().out
    assert f"episode {best + 1}: return {result.returns[best]:g} after" in printed
    assert b"BEST OF 3 EPISODES" in (tmp_path / "cart-best-of-3.gif").read_bytes()


def test_several_episodes_follow_each_other(logdir, tmp_path, capsys):
    path = tmp_path / "two.gif"
    flags = ["--episodes", "2", "--panels", "screen", "--scale", "1"]
    assert render.main(["--logdir", str(logdir), "--out", str(path), *flags]) == 0
    count = 2 * (1 + 4 * STEPS)
    assert f"{count} pictures" in capsys.readouterr().out
    assert len(pictures_of(path, 15)) == count + 15


def test_panels_that_need_a_decoder_are_left_out_with_a_note(tmp_path, capsys):
    run, path = tmp_path / "run", tmp_path / "cart.gif"
    saved.save(run, task="gym_CartPole-v1", decoder__mlp_keys="$^")
    flags = ["--logdir", str(run), "--out", str(path), "--panels"]
    assert render.main([*flags, "input,recon,dream,latent"]) == 0
    assert "left out: recon, dream (this agent's model predicts no" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        render.main([*flags, "recon"])
    assert "error: --panels recon: this agent's model" in capsys.readouterr().err


@pytest.mark.parametrize("discrete", [3, False])
def test_vectors_continuous_actions_and_gaussian_latents_are_shown(tmp_path, discrete):
    run, path = tmp_path / "run", tmp_path / "pendulum.gif"
    saved.save(run, task="gym_Pendulum-v1", time_limit=8, rssm__discrete=discrete)
    panel_list = ALL.replace("screen,", "")
    assert render.main(["--logdir", str(run), "--out", str(path), "--panels", panel_list]) == 0
    assert len(pictures_of(path, 15)) == 9 + 15


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "film.webm"], "--out film.webm: expected a name that ends in .gif or .mp4"),
        (["--panels", "screen,radar"], "got 'radar', expected some of screen,input,recon"),
        (["--frames", "9:3"], "got '9:3', expected A:B with A below B"),
        (["--frames", "900:"], "--frames starts at 900; there are 49 pictures"),
        (["--best-of", "2", "--episodes", "2"], "--best-of renders one episode"),
        (["--max-steps", "5"], "did not end within 5 agent steps (--max-steps)"),
        (["--scale", "0"], "--scale: got 0, expected a whole number from 1 on"),
        (["--out", "/dev/null/film.gif"], "/dev/null"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(
    logdir, tmp_path, monkeypatch, capsys, flags, message
):
    monkeypatch.chdir(tmp_path)
    flags = flags if "--out" in flags else [*flags, "--out", "film.gif"]
    with pytest.raises(SystemExit) as stop:
        render.main(["--logdir", str(logdir), *flags])
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert lines[-1].startswith("error: ") and message in lines[-1]
    assert sum(line.startswith("error") for line in lines) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_film_without_a_name_goes_into_the_logdir(logdir, capsys):
    render.main(["--logdir", str(logdir), "--panels", "policy", "--frames", ":3"])
    path = logdir / "videos" / "atari_breakout-400-eval-seed0.gif"
    assert path.exists() and str(path) in capsys.readouterr().out
    path.unlink()


# Recording


def recorded(**changes):
    settings = {"screens": True, "wanted": range(100), "whole": False, "max_steps": 50} | changes
    rows = iter(range(100))
    env = Scripted(6)

    def policy(obs, state):
        action = np.eye(3, dtype=np.float32)[next(rows) % 3]
        return action, ({"deter": Tensor(obs["counter"])}, action)

    return record(1, env, policy, "counter", advance=lambda: None, **settings)


class Tensor:
    """One row of a batch, as a policy's state holds it."""

    def __init__(self, value):
        self._value = value

    def numpy(self):
        return self._value[None]


def test_a_take_holds_rows_and_the_screens_that_belong_to_them():
    take = recorded()
    assert take.episode.observed[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert take.episode.reward.tolist() == [0, 1, 2, 3, 1, 2, 3]
    assert take.episode.action.argmax(-1).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert take.episode.latents["deter"][:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert [len(group) for group in take.screens] == [1] * 7
    assert [unpack(group[0], (64, 64))[0, 0, 0] for group in take.screens] == [*range(7)]
    assert take.ended and take.score == 12 and take.count == 7


def test_only_wanted_screens_are_kept_and_the_rest_is_not_played():
    take = recorded(wanted=range(1, 3))
    assert [group[0] is None for group in take.screens] == [True, False, False]
    assert not take.ended
    whole = recorded(wanted=range(1, 3), whole=True)
    assert [group[0] is None for group in whole.screens] == [True, False, False] + [True] * 4
    assert whole.ended


# Painting


def test_zoom_repeats_pixels_and_never_mixes_them():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(paint.zoomed(image, 7, 9), image.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(paint.zoomed(image, 2, 2), [[0, 2]])


def test_text_is_painted_in_the_colours_of_the_palette_and_inside_the_canvas():
    canvas = np.zeros((20, 90, 3), np.uint8)
    canvas[:] = paint.FIELD
    paint.text(canvas, 70, 12, "return 12", 11, paint.GOLD)
    assert (canvas[:12] == paint.FIELD).all() and (canvas[:, :70] == paint.FIELD).all()
    known = {tuple(color) for color in paint.ui_colors().tolist()}
    used = {tuple(color) for color in canvas.reshape(-1, 3).tolist()}
    assert paint.GOLD in used <= known


def test_the_longest_title_that_fits_is_taken():
    candidates = ("reconstruction", "recon")
    wide = paint.text_width("reconstruction", 11)
    assert paint.fitting(candidates, 11, wide) == "reconstruction"
    assert paint.fitting(candidates, 11, wide - 1) == "recon"
    assert paint.fitting(candidates, 11, 1) == "recon"


def test_a_curve_joins_its_points():
    canvas = np.zeros((6, 4, 3), np.uint8)
    paint.curve(canvas, np.array([0.0, 4.0, 4.0]), 1, (9, 9, 9))
    expected = [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0] * 4]
    np.testing.assert_array_equal(canvas[..., 0] // 9, expected)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("screen", [(210, 160), (10, 10), (400, 600)])
@pytest.mark.parametrize("names", [render.NAMES, ("screen",), ("input", "dream"), render.NAMES[1:]])
def test_panels_are_inside_the_picture_and_apart(scale, screen, names):
    plan = layout(names, scale, screen)
    used = np.zeros((plan.strip_top, plan.width), int)
    for place in plan.places.values():
        with_title = used[place.top - plan.title : place.top + place.height]
        with_title[:, place.left : place.left + place.width] += 1
        assert place.of(used).shape == (place.height, place.width)
    assert used.max() == 1 and set(plan.places) == set(names)
    if "screen" in names:
        place = plan.places["screen"]
        assert place.height % screen[0] == 0 and place.width % screen[1] == 0


# Panels


def draw(panel, row, size=128):
    area = np.zeros((size, size, 3), np.uint8)
    area[:] = paint.BACKGROUND
    panel.draw(area, row)
    return area


def count(area, color):
    return int((area == color).all(-1).sum())


def test_the_latent_shows_every_class_that_was_drawn():
    drawn = np.random.default_rng(0).integers(0, 32, (2, 32))
    latents = {"stoch": np.eye(32)[drawn], "logit": np.zeros((2, 32, 32))}
    panel = panels.Latent(latents)
    area = draw(panel, 1)
    assert panel.titles(1)[0] == "latent 32x32"
    for variable, index in enumerate(drawn[1]):
        cell = area[4 * variable : 4 * variable + 4, 4 * index : 4 * index + 4]
        assert (cell == paint.GOLD).all()
    assert count(area, paint.GOLD) == 32 * 16


def test_bars_are_as_long_as_probabilities_and_the_chosen_action_is_named():
    policy = np.array([[0.5, 0.25, 0.25], [1, 0, 0]], np.float32)
    action = np.eye(3, dtype=np.float32)[[1, 0]]
    panel = panels.Policy(policy, action, ["NOOP", "LEFT", "RIGHT"], 11)
    assert panel.titles(0) == ("policy: LEFT", "LEFT") and panel.titles(1)[0] == "policy: NOOP"
    area = draw(panel, 0)
    lengths = []
    for middle, color in ((21, paint.BLUE), (63, paint.GREEN), (105, paint.BLUE)):
        left = np.flatnonzero((area[21] == paint.BLUE).all(-1))[0]
        lengths.append(count(area[middle : middle + 1, left:], color))
    width = 128 - left
    assert lengths == pytest.approx([width / 2, width / 4, width / 4], abs=1)


@pytest.mark.parametrize("count_of_actions", [1, 4, 18, 60])
def test_policies_of_any_size_can_be_drawn(count_of_actions):
    policy = np.full((1, count_of_actions), 1 / count_of_actions, np.float32)
    action = np.eye(count_of_actions, dtype=np.float32)[:1]
    names = [f"DOWNRIGHTFIRE{i}" for i in range(count_of_actions)]
    for size in (64, 128):
        assert count(draw(panels.Policy(policy, action, names, 11), 0, size), paint.GREEN)


def test_a_dream_is_marked_while_nothing_is_observed():
    forecast = render_forecast([0, 0, 1, 2])
    panel = panels.Prediction(forecast, dream=True)
    assert [panel.titles(row)[0] for row in range(4)] == [
        "dream: watching",
        "dream: watching",
        "DREAM  t+1",
        "DREAM  t+2",
    ]
    assert [panel.signal(row) for row in range(4)] == [None, None, *[paint.MAGENTA] * 2]
    panel = panels.Prediction(forecast, dream=False)
    assert panel.titles(3)[0] == "open loop, 2 steps" and panel.signal(3) is None


def render_forecast(age):
    from dreamerv2.insight import Forecast

    return Forecast(np.zeros((len(age), 64, 64, 1), np.uint8), np.array(age))


def test_images_of_any_number_of_channels_are_shown():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 5)).astype(np.uint8)
    np.testing.assert_array_equal(panels.rgb(image[..., :3]), image[..., :3])
    for channels in (1, 2, 4, 5):
        shown = panels.rgb(image[..., :channels])
        np.testing.assert_array_equal(shown, image[..., [channels - 1] * 3])


def test_predicted_images_change_by_less_than_can_be_seen():
    levels = np.arange(256, dtype=np.uint8)
    calm = panels.calm(levels)
    assert np.abs(calm.astype(int) - levels).max() <= 4 and len(np.unique(calm)) <= 33
    assert calm[0] == 0 and calm[255] == 255
