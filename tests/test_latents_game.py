"""Boards and their rules, what variables are about, and games with a variable held fixed."""

import json
import re

import imageio.v3 as iio
import numpy as np
import pytest
import saved
import tensorflow as tf
import tiny

from common.envs.minatar import MinAtar
from common.envs.scripted import Scripted
from common.nn.draws import Modes
from dreamerv2 import latents
from dreamerv2.latent import board, fix, information, report_game, sweep
from dreamerv2.latent.model import LatentModel, Latents, Response
from dreamerv2.play.episodes import AgentPolicy
from dreamerv2.play.evaluation import evaluate

pytest.importorskip("minatar", reason="the package minatar is not installed")


def played_boards(games=30):
    """Boards and the game's own variables, while the paddle mostly follows the ball."""
    env, rng = MinAtar("breakout", seed=0), np.random.default_rng(0)
    boards, known = [], []
    for _ in range(games):
        obs = env.reset()
        while True:
            game = env.variables()
            boards.append(obs["vector"].reshape(10, 10, 4))
            known.append(game)
            if obs["is_last"]:
                break
            follow = 1 + (game["ball_x"] > game["paddle_x"])
            obs = env.step(int(rng.integers(3) if rng.random() < 0.1 else follow))
    return np.array(boards), known


def test_the_game_shows_only_boards_that_its_rules_allow():
    boards, known = played_boards()
    assert len(boards) > 500
    assert board.judge(boards).allowed.all()
    for picture, game in zip(boards, known, strict=True):
        assert picture[int(game["ball_y"]), int(game["ball_x"]), 1]
        assert picture[9, int(game["paddle_x"]), 0]
        assert picture[..., 3].sum() == game["bricks"]


def test_the_direction_is_where_the_ball_goes_next_unless_it_meets_something():
    _, known = played_boards(5)
    agree = [
        (b["ball_x"] - a["ball_x"] == a["ball_dx"]) and (b["ball_y"] - a["ball_y"] == a["ball_dy"])
        for a, b in zip(known[:-1], known[1:], strict=True)
    ]
    assert np.mean(agree) > 0.6


def legal():
    """The board of a ball that comes down in the middle."""
    picture = np.zeros((10, 10, 4))
    picture[9, 4, 0] = picture[6, 5, 1] = picture[5, 4, 2] = 1
    picture[1:4, :, 3] = 1
    return picture


def changed(*cells, value=1.0):
    picture = legal()
    for cell in cells:
        picture[cell] = value
    return picture


@pytest.mark.parametrize(
    "picture, wrong",
    [
        (legal(), []),
        (changed((1, 0, 3), value=0), []),
        (changed((9, 7, 0)), ["paddle"]),
        (changed((9, 4, 0), value=0.4), ["paddle"]),
        (changed((2, 2, 1)), ["ball"]),
        (changed((6, 5, 1), value=0), ["ball"]),
        (changed((5, 4, 2), value=0), ["trail"]),
        (changed((5, 6, 2)), ["trail"]),
        (np.roll(legal(), 3, 0) * [0, 0, 1, 0] + legal() * [1, 1, 0, 1], ["trail"]),
        (np.roll(legal(), 1, 1) * [0, 0, 1, 0] + legal() * [1, 1, 0, 1], ["trail"]),
        (changed((5, 0, 3)), ["brick"]),
    ],
)
def test_what_is_wrong_with_a_board_is_named(picture, wrong):
    verdict = board.judge(picture[None])
    assert [kind for kind, share in verdict._asdict().items() if share[0]] == wrong
    assert bool(verdict.allowed[0]) == (not wrong)


def test_a_swept_variable_is_known_by_the_cells_that_it_flips():
    def decode(latents):  # variable 0 moves the paddle, variable 1 does nothing that crosses half
        boards = np.repeat(legal()[None], len(latents.classes), 0)
        boards[:, 9, :, 0] = np.eye(10)[latents.classes[:, 0]]
        boards[:, 0, 0, 3] = 0.1 * latents.classes[:, 1]
        return boards

    def respond(latents):
        zeros = np.zeros(len(latents.classes))
        return Response(zeros, zeros, np.zeros((len(zeros), 2)))

    states = Latents(np.array([[4, 0]], np.int32), np.zeros((1, 1), np.float32))
    counts = np.ones((2, 5), int)
    numbers = sweep.summarize_board(sweep.sweep(decode, respond, states, counts), counts)
    assert numbers["unchanged_fraction"] == 0.5
    assert numbers["cells_changed"] == 2
    assert numbers["kinds"]["paddle"] == {"fraction": 0.5, "by_variable": [2.0, 0.0]}
    assert numbers["kinds"]["brick"]["fraction"] == 0


# Information


def test_information_finds_what_a_variable_is_about():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 8, 4000), rng.integers(0, 2, 4000)
    noise = rng.integers(0, 4, 4000)
    classes = np.stack([noise, x, y, x // 4], 1)
    found = information.measure(classes, {"x": x.astype(float), "y": 2.0 * y - 1})
    np.testing.assert_allclose(found.entropy, [3, 1], atol=0.01)
    np.testing.assert_allclose(found.bits, [[0, 0], [3, 0], [0, 1], [1, 0]], atol=0.02)
    assert found.about[1:].tolist() == [0, 1, 0]
    assert found.order.tolist().index(1) < found.order.tolist().index(3)


def test_what_chance_alone_gives_is_taken_off():
    """Two slow random walks look related in few rows."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.integers(-1, 2, (400, 2)), 0)
    classes, values = walk[:, :1] // 4 % 8, walk[:, 1].astype(float)
    found = information.measure(classes, {"x": values})
    raw = information.mutual_bits(classes[:, 0], information.to_bins(values))
    assert raw > 0.3 and found.bits[0, 0] < 0.6 * raw


def test_many_values_become_bins_of_equal_content():
    bins = information.to_bins(np.arange(1000) ** 2.0)
    assert np.bincount(bins).tolist() == [100] * 10
    assert information.to_bins(np.array([5.0, -1.0, 5.0])).tolist() == [1, 0, 1]


def test_a_variable_that_tells_nothing_is_on_nothing():
    numbers = {"variables": ["x", "y"], "bits": [[1.5, 0], [0.01, 0], [0, 0], [0, 0.01]]}
    numbers |= {"entropy_bits": [3.0, 1.0], "chance_bits": 0.01, "rows": 400}
    numbers |= {"about": ["x", "x", "x", "y"], "share": [0.5, 0.0033, 0.0, 0.01]}
    text = report_game.information({"rows": 500}, numbers)
    lines = [line for line in text.splitlines() if re.match(r"\| [xy] ", line)]
    assert [line.strip("|").split("|")[-1].strip() for line in lines] == ["1", "1"]


# Fixed variables


def scripted_agent():
    env = Scripted(6)
    agent = tiny.agent(
        {k: v for k, v in env.obs_space.items() if k == "counter"},
        env.act_space,
        eval_state_mean=True,
    )
    return LatentModel(agent)


def test_with_nothing_fixed_the_games_are_those_of_the_agent():
    model = scripted_agent()
    seeds = [3, 4, 5]
    masks = np.zeros((3, model.variables), bool)
    classes = np.zeros(model.variables, int)
    returns, over = fix.play(model, lambda seed: Scripted(seed), seeds, masks, classes, 100, 0)
    assert over.all()
    _, over = fix.play(model, lambda seed: Scripted(seed), seeds, masks, classes, 4, 0)
    assert over.tolist() == [True, True, False]
    player = AgentPolicy(model.agent, "eval")
    lengths = iter(seeds)
    alone = evaluate(
        lambda seed: Scripted(next(lengths)),
        lambda seed, env: player.episode(seed),
        3,
        show=lambda line: None,
    )
    np.testing.assert_allclose(returns, alone.returns)


def test_a_fixed_variable_has_its_class_in_what_policy_and_memory_see():
    model = scripted_agent()
    masks = np.array([[False] * 3, [True, False, False], [True] * 3])
    step = fix._policy_step(model, masks, np.array([2, 1, 0]))
    obs = {"counter": np.ones((3, 2), np.float32), "is_first": np.array([True] * 3)}
    state = model.agent.initial_policy_state(3)
    action, (latent, _) = step(obs, state, tf.constant([0, 0], tf.int64))
    stoch = latent["stoch"].numpy().argmax(-1)
    assert stoch[2].tolist() == [2, 1, 0]
    assert stoch[1].tolist() == [2, *stoch[0, 1:]]
    actor = model.agent.behavior.actor(model.agent.wm.feat(latent), Modes())
    np.testing.assert_array_equal(action, actor.mode())


def test_losses_are_those_of_equal_games():
    free = np.array([3.0, 5.0, 7.0, 5.0])
    one = np.stack([free, free - 2])
    found = fix.Fixed(free, 0 * free, one, np.array([0, 1]), np.array([0.5, 1]), 0)
    numbers = fix.summarize(found, seed=0)
    assert numbers["loss"] == [0, 2] and numbers["loss_interval"] == [[0, 0], [2, 2]]
    assert numbers["free"]["mean"] == 5 and numbers["all_fixed_mean"] == 0
    assert report_game.harmful(numbers) == 1


def test_variables_that_cost_nothing_are_hardly_ever_called_harmful():
    rng = np.random.default_rng(0)
    called, intervals = 0, 0
    for trial in range(40):
        free, one = rng.normal(size=10), rng.normal(size=(16, 10))
        classes, usual = np.zeros(16, int), np.ones(16)
        numbers = fix.summarize(fix.Fixed(free, free, one, classes, usual, 0), seed=trial)
        called += report_game.harmful(numbers) > 0
        intervals += any(low > 0 for low, _ in numbers["loss_interval"])
    # An interval for each variable alone finds some in nearly half of the trials.
    assert intervals > 12 and called <= 4
    few = fix.Fixed(np.ones(2), np.ones(2), np.zeros((3, 2)), np.zeros(3, int), np.ones(3), 0)
    assert report_game.harmful(fix.summarize(few, seed=0)) == 0  # too few games to call any


# The command


def test_the_report_of_a_game_without_images_is_whole(tmp_path):
    run = tmp_path / "run"
    saved.save(run, task="minatar_breakout", time_limit=60, rssm__discrete=3)
    words = ["--logdir", str(run), "--episodes", "16", "--steps", "960"]
    assert latents.main(words) == 0
    text = (run / "latents" / "report.md").read_text()
    assert "Not available" not in text and not re.search(r"\{\w*\}|\bnan\b|None", text)
    for name in re.findall(r"!\[.*\]\((.*)\)", text):
        assert np.ptp(iio.imread(run / "latents" / name)) > 100, name
    numbers = json.loads((run / "latents" / "report.json").read_text())
    walked = numbers["interpolate"]["board"]
    assert set(walked) == {"given", "random", "greedy", "real", "shuffled"}
    assert walked["real"]["allowed"] == 0  # an untrained decoder draws nothing
    assert numbers["probe"]["variables"][:2] == ["ball_x", "ball_y"]
    pixels = numbers["probe"]["errors"]["pixels"]["linear"]
    assert pixels["paddle_x"] < 0.5 * numbers["probe"]["errors"]["mean"]["mean"]["paddle_x"]
