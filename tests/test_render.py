"""Films show the game's own pixels beside what the agent thinks, and say what they show."""

import shutil

import imageio.v3 as iio
import numpy as np
import pytest
import saved
from PIL import Image

from dreamerv2 import render
from dreamerv2.film import PANELS
from dreamerv2.film.layout import Layout
from dreamerv2.play.episodes import AgentPolicy, episode_seed
from dreamerv2.play.evaluation import evaluate
from dreamerv2.run import restore

STEPS = 12  # agent steps of an episode
ALL = ",".join(PANELS)


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


def layout(names=PANELS, scale=2, screen=(210, 160)):
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


def test_mp4_shows_the_same_film_and_chooses_no_palette(logdir, film, tmp_path, monkeypatch):
    pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    monkeypatch.setattr("dreamerv2.film.film._palette", None)
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
    pictures = pictures_of(path, 15)
    assert len(pictures) == count + 15
    render.main(["--logdir", str(logdir), "--out", str(path), *flags, "--frames", "40:60"])
    above_the_strip = slice(None), slice(0, 210)
    np.testing.assert_array_equal(
        pictures_of(path, 15)[above_the_strip], pictures[40:60][above_the_strip]
    )


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


def test_a_film_of_an_agents_file_goes_into_a_folder_of_its_name(logdir, tmp_path):
    (checkpoint,) = (logdir / "checkpoints").glob("*.npz")
    shutil.copy(checkpoint, tmp_path / "pole.npz")
    render.main(["--logdir", str(tmp_path / "pole.npz"), "--panels", "policy", "--frames", ":3"])
    assert (tmp_path / "pole" / "videos" / "atari_breakout-400-eval-seed0.gif").is_file()


def test_a_film_without_a_name_goes_into_the_logdir(logdir, capsys):
    render.main(["--logdir", str(logdir), "--panels", "policy", "--frames", ":3"])
    path = logdir / "videos" / "atari_breakout-400-eval-seed0.gif"
    assert path.exists() and str(path) in capsys.readouterr().out
    path.unlink()
