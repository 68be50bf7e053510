"""Evaluation gives the numbers of the episodes that its seed decides, and nothing else."""

import json

import numpy as np
import pytest
import saved
import tiny

from common.data.driver import random_policy
from common.envs.scripted import Scripted
from common.report.stats import bootstrap_mean
from dreamerv2 import evaluate
from dreamerv2.play import evaluation, scores
from dreamerv2.play.episodes import AgentPolicy, EndlessEpisodeError, episode_seed, play


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("run")
    saved.save(logdir, 100, task="gym_CartPole-v1", action_repeat=2)
    return logdir


def always(index, size=3):
    """A policy that does the same again and again, and makes its state the number of its calls."""
    action = np.eye(size, dtype=np.float32)[index]
    return lambda obs, state: (action, (state or 0) + 1)


def command(logdir, tmp_path, *flags):
    file = tmp_path / "result.json"
    code = evaluate.main(["--logdir", str(logdir), "--json", str(file), *flags])
    return code, json.loads(file.read_text())


def test_rows_of_an_episode_hold_observation_action_and_state():
    rows = list(play(Scripted(4), always(1), 10))
    assert [row.obs["counter"][0] for row in rows] == [0, 1, 2, 3, 4]
    assert [row.obs["reward"] for row in rows] == [0, 2, 2, 2, 2]
    assert [row.state for row in rows] == [1, 2, 3, 4, 5]
    assert [bool(row.obs["is_last"]) for row in rows] == [False] * 4 + [True]


def test_an_episode_may_take_just_max_steps():
    assert len(list(play(Scripted(4), always(0), 4))) == 5
    with pytest.raises(EndlessEpisodeError, match=r"within 3 agent steps \(--max-steps\)"):
        list(play(Scripted(4), always(0), 3))


def test_returns_are_sums_of_rewards_and_lengths_are_agent_steps():
    lines = []
    lengths = iter([5, 2, 9])
    result = evaluation.evaluate(
        lambda seed: Scripted(next(lengths)), lambda seed, env: always(2), 3, show=lines.append
    )
    assert result.lengths == [5, 2, 9]
    assert result.returns == [15.0, 6.0, 27.0]
    assert [line.split() for line in lines][2] == ["episode", "3", "return", "27", "length", "9"]


def test_every_episode_has_a_seed_of_its_own_and_keeps_it():
    def seeds(episodes, seed):
        seen = []

        def make_env(number):
            seen.append(number)
            return Scripted(1)

        evaluation.evaluate(
            make_env, lambda n, env: always(0), episodes, seed, show=lambda line: None
        )
        return seen

    assert seeds(2, 0) == seeds(5, 0)[:2]
    assert len({*seeds(5, 0), *seeds(5, 1)}) == 10
    assert seeds(1, 0) == [episode_seed(0, 0)]


def test_statistics_of_known_returns():
    summary = evaluation.Result([1.0, 2.0, 6.0], [10, 20, 60], []).summary(seed=0)
    assert summary["returns"] == [1, 2, 6] and summary["lengths"] == [10, 20, 60]
    assert summary["mean"] == 3 and summary["median"] == 2
    assert summary["std"] == pytest.approx(np.sqrt((4 + 1 + 9) / 3))
    low, high = summary["interval"]
    assert 1 <= low < 3 < high <= 6
    assert evaluation.Result([4.0], [10], []).summary(seed=0)["interval"] is None


def test_large_returns_are_printed_with_all_their_digits():
    result = evaluation.Result([12_000.0, 13_000.0] * 9, [9] * 18, [])
    text = evaluation._sentence(result.summary(seed=0))
    assert text.startswith("mean 12,500 (95% interval 12,") and "std 500" in text
    assert "e+" not in text
    small = evaluation._sentence(evaluation.Result([1234.56], [9], []).summary(seed=0))
    assert small == "mean 1235"


def test_the_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.normal(size=40), seed=seed) for seed in range(200)]
    covered = np.mean([low < 0 < high for low, high in intervals])
    assert 0.88 < covered < 0.99
    assert bootstrap_mean([4.0, 4.0]) == (4.0, 4.0)
    assert bootstrap_mean([4.0]) == (4.0, 4.0)


def test_the_command_gives_the_same_numbers_for_the_same_seed(logdir, tmp_path, capsys):
    flags = ["--episodes", "2", "--random", "--seed", "5"]
    code, first = command(logdir, tmp_path, *flags)
    printed = capsys.readouterr().out
    assert code == 0
    assert command(logdir, tmp_path, *flags)[1] == first
    assert capsys.readouterr().out == printed
    assert first["env_frames"] == 200
    for name in ("greedy", "sampled", "random"):
        assert len(first[name]["returns"]) == 2
        assert first[name]["mean"] == np.mean(first[name]["returns"])
        assert f"mean {first[name]['mean']:.4g} (95% interval" in printed
    assert command(logdir, tmp_path, *flags[:-1], "6")[1]["random"] != first["random"]


def test_a_mode_is_played_alone_as_with_the_others(logdir, tmp_path):
    both = command(logdir, tmp_path, "--episodes", "2")[1]
    assert both["greedy"] != both["sampled"]
    for mode, name, other in (("eval", "greedy", "sampled"), ("train", "sampled", "greedy")):
        report = command(logdir, tmp_path, "--episodes", "2", "--mode", mode)[1]
        assert report[name] == both[name]
        assert other not in report


def test_nothing_but_the_checkpoint_is_there_and_nothing_is_added(logdir, tmp_path, capsys):
    code, report = command(logdir, tmp_path, "--episodes", "1", "--mode", "eval")
    assert code == 0 and report["published"] == []
    names = [str(path.relative_to(logdir)) for path in logdir.rglob("*")]
    assert sorted(names) == ["checkpoints", "checkpoints/000000000100.npz"]


def test_published_scores_are_printed_with_their_protocol(tmp_path, capsys):
    saved.save(tmp_path / "run", time_limit=5)
    command(tmp_path / "run", tmp_path, "--episodes", "1", "--mode", "eval")
    printed = capsys.readouterr().out
    assert "DreamerV2 at 200M frames   447.8  training return" in printed
    assert "no sticky actions (Wang et al. 2016)" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "error: the following arguments are required: --logdir"),
        (["--logdir", "nowhere"], "error: nowhere/checkpoints: no checkpoint here"),
        (["--logdir", "RUN", "--checkpoint", "7"], "no checkpoint of agent step 7; there are 100"),
        (["--logdir", "RUN", "--episodes", "0"], "--episodes: got 0, expected a whole number from"),
        (["--logdir", "RUN", "--mode", "best"], "--mode: invalid choice: 'best'"),
        (["--logdir", "RUN", "--max-steps", "9"], "did not end within 9 agent steps (--max-steps)"),
        (["--logdir", "RUN", "--json", "/dev/null/x.json"], "/dev/null"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(logdir, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        evaluate.main([str(logdir) if flag == "RUN" else flag for flag in flags])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1 and error.startswith("error: ") and message in error


def test_published_scores_are_those_near_the_run_and_the_final_ones():
    found = {score.name: score.value for score in scores.published("atari_breakout", 12_000_000)}
    assert found == {
        "random": 1.7,
        "human": 30.5,
        "DreamerV2 at 10M frames": 9.2,
        "DreamerV2 at 200M frames": 447.8,
    }
    assert scores.published("atari_pong", 400)[2].name == "DreamerV2 at 1M frames"
    assert scores.published("gym_CartPole-v1", 400) == []
    assert all(score.protocol for score in scores.published("atari_pong", 400))


def test_sampled_actions_depend_on_the_seed_and_the_step_alone():
    agent = tiny.agent()
    player = AgentPolicy(agent, "train")
    obs = {"vector": np.zeros(3, np.float32), "is_first": True}

    def actions(seed):
        policy = player.episode(seed)
        return [policy(obs, None)[0].argmax() for _ in range(12)]

    first = actions(1)
    assert actions(2) != first == actions(1)
    assert len(set(first)) > 1


def test_random_actions_are_seeded():
    env = Scripted()
    actions = [random_policy(env.act_space, seed)({}, None)[0].argmax() for seed in range(40)]
    assert len(set(actions)) == 3
