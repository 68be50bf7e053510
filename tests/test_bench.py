"""The benchmark: operation counts against hand arithmetic, and a whole run on a tiny agent."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.envs.scripted import Scripted
from common.nn.flops import count_gflop
from dreamerv2 import bench
from dreamerv2.measure import growth, playing, sharing, timing
from dreamerv2.measure.apart import MeasurementLostError
from dreamerv2.run import environments, factory
from dreamerv2.run.blocks import make_config


def gflop(function, *args, loop_steps=1):
    traced = tf.function(function, autograph=False).get_concrete_function(*args)
    return count_gflop(traced, loop_steps) * 1e9


def test_products_and_convolutions_are_counted_with_their_gradients():
    x, kernel = tf.ones([7, 5]), tf.ones([5, 3])
    assert gflop(tf.matmul, x, kernel) == 2 * 7 * 5 * 3
    assert (
        gflop(lambda x, k: tf.matmul(x, k, transpose_a=True), x, tf.ones([7, 2])) == 2 * 5 * 7 * 2
    )
    image, window = tf.ones([2, 8, 8, 3]), tf.ones([4, 4, 3, 6])
    forward = 2 * (2 * 3 * 3 * 6) * (4 * 4 * 3)

    def gradients(image, window):
        with tf.GradientTape() as tape:
            tape.watch([image, window])
            out = tf.nn.conv2d(image, window, 2, "VALID")
        return tape.gradient(out, [image, window])

    assert gflop(lambda i, w: tf.nn.conv2d(i, w, 2, "VALID"), image, window) == forward
    # TensorFlow drops the forward pass, which the gradients do not need, only when it runs.
    assert gflop(gradients, image, window) == 3 * forward


def test_a_loop_counts_once_per_step():
    def power(x):
        return tf.while_loop(lambda i, _: i < 9, lambda i, y: (i + 1, tf.matmul(y, x)), (0, x))

    assert gflop(power, tf.ones([4, 4]), loop_steps=9) == 9 * 2 * 4**3


def test_a_function_that_is_called_counts_each_time():
    square = tf.function(lambda x: tf.matmul(x, x))
    assert gflop(lambda x: square(square(x)), tf.ones([4, 4])) == 2 * 2 * 4**3


def test_a_product_of_unknown_shape_is_an_error():
    spec = tf.TensorSpec([None, 4])
    with pytest.raises(ValueError, match="cannot count"):
        gflop(lambda x: tf.matmul(x, tf.ones([4, 4])), spec)


@pytest.mark.parametrize(
    "flags",
    [
        ["--size", "nothing"],
        ["--precision", "8"],
        ["--no_key", "1"],
        ["--against", "/"],
        ["--envs", "0"],
        ["--size", "vector", "--task", "gym_No-v0"],
        ["--size", "vector", "--actor.dist", "normal"],
        ["--envs", "2", "--against", "/"],
        ["--split", "2", "--growth"],
        ["--split", "2", "--json", "a.json"],
        ["--split", "1"],
        ["--split", "3"],  # of 16 sequences
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(flags, capsys):
    with pytest.raises(SystemExit) as error:
        bench.main(flags)
    assert error.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_growth_is_measured_on_replays_of_the_sizes_that_it_names():
    config = make_config(["atari", "debug"], {"replay.capacity": 1000})
    rows = growth.measure_growth(config, shares=(0.1, 1.0))
    assert [(row["steps"], row["episodes"]) for row in rows] == [(100, 1), (1000, 10)]
    assert all(value > 0 for row in rows for value in row.values())
    assert "| 1,000" in growth.report(rows)


AUTHOR_AGENT = """
import common
class Agent:
    def __init__(self, config, obs_space, act_space, step):
        assert obs_space["image"].shape == (64, 64, 1), obs_space
        self.size = config.size
    def train(self, batch, state):
        assert batch["action"].shape == (16, 50, 4), batch["action"].shape
        return state, {"model_loss": common.slow(self.size)}
    def policy(self, obs, state, mode):
        assert obs["image"].shape == (1, 64, 64, 1) and mode == "train"
        return {"action": common.slow(0)}, state
"""
AUTHOR_COMMON = """
import time, types, numpy as np
def slow(seconds):
    time.sleep(seconds)
    return types.SimpleNamespace(numpy=lambda: 0.0)
class Counter:
    def __init__(self, value): pass
class Config:
    def __init__(self, values):
        self.flat = {"dataset.batch": 16, "rssm.hidden": values["rssm"]["hidden"], "size": 0.02}
        self.dataset, self.size = types.SimpleNamespace(batch=16, length=50), 0.02
    def update(self, values):
        assert values["rssm.hidden"] == 256, values  # ours, not the 1024 of the file
        return self
"""
AUTHOR_CONFIGS = """
defaults:
  rssm: {hidden: 1024, deter: 1024}
  encoder: &images {mlp_keys: x, cnn_keys: x, cnn_depth: 48, mlp_layers: [400]}
  decoder: *images
  reward_head: &head {units: 400}
  discount_head: *head
  actor: *head
  critic: *head
"""


@pytest.fixture
def checkout(tmp_path):
    """Code with the interface of the author's, whose update takes 20 ms."""
    folder = tmp_path / "dreamerv2"
    (folder / "common").mkdir(parents=True)
    (folder / "agent.py").write_text(AUTHOR_AGENT)
    (folder / "common" / "__init__.py").write_text(AUTHOR_COMMON)
    (folder / "configs.yaml").write_text(AUTHOR_CONFIGS)
    return tmp_path


def test_the_authors_code_is_timed_in_a_process_of_its_own(checkout):
    config = make_config(["atari", "small"])
    ours = {"update_seconds": 0.01, "policy_ms": 1.0}
    theirs = timing.measure_author(timing.author_folder(checkout), config, ours)
    assert 0.02 <= theirs["author_update_seconds"] < 1
    assert theirs["author_update_ratio"] == pytest.approx(theirs["author_update_seconds"] / 0.01)
    assert theirs["author_policy_ratio"] == pytest.approx(theirs["author_policy_ms"])


def test_settings_that_the_author_does_not_know_are_named(checkout):
    folder = timing.author_folder(checkout)
    with pytest.raises(timing.AuthorCodeError, match="does not know encoder.image_net"):
        timing.measure_author(folder, make_config(["atari"], {"encoder.image_net": "mlp"}), {})


@pytest.mark.parametrize("text", ["", "defaults: [", "other: {}"])
def test_configs_of_the_author_that_are_none_are_refused_before_anything_is_timed(checkout, text):
    (checkout / "dreamerv2" / "configs.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"configs\.yaml"):
        timing.author_folder(checkout)


def test_code_that_does_not_run_is_said_with_its_last_line(checkout):
    folder = timing.author_folder(checkout)
    (folder / "agent.py").write_text("import no_such_package_here")
    with pytest.raises(timing.AuthorCodeError, match="No module named 'no_such_package_here'"):
        timing.measure_author(folder, make_config(["atari"]), {})


@pytest.mark.slow
def test_the_bench_writes_every_figure(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert bench.main(["--size", "atari+debug", "--json", str(path)]) == 0
    (result,) = json.loads(path.read_text())["results"]
    for key, _ in timing._ROWS.values():
        if not key.startswith("author_"):
            assert math.isfinite(result[key]) and result[key] > 0, key
    assert result["fraction"] == pytest.approx(result["gflops"] / result["matmul_gflops"])
    assert sum(result["step_share"].values()) == pytest.approx(1)
    assert "one update" in capsys.readouterr().out


def test_what_was_measured_is_said_before_the_next_measurement_begins(monkeypatch, capsys):
    def apart(what, *_):
        if "bfloat16" in what:
            raise MeasurementLostError(what)
        return {"update_seconds": 0.25, "policy_ms": 1.5, "frames_per_second": 640.0}

    monkeypatch.setattr(timing, "apart", apart)
    jobs = timing.make_jobs(["small"], ["32", "bfloat16"], [])
    with pytest.raises(MeasurementLostError):
        timing.measure_all(jobs, None)
    said = capsys.readouterr().out
    assert "small, precision 32: an update takes 0.250 s, a policy step 1.50 ms" in said
    assert "640 env frames/s" in said


def test_what_an_exploring_update_costs_is_a_part_of_its_own(monkeypatch):
    def once(part):
        part()
        return 1.0

    monkeypatch.setattr(timing, "_median", once)
    monkeypatch.setattr(tf, "function", lambda part, autograph: part)  # which takes seconds
    settings = {"dataset__length": 4, "disag_models": 2}
    explores = tiny.agent(expl_behavior="Plan2Explore", **settings)
    assert "exploration" in timing._parts(explores, tiny.batch(explores))
    greedy = tiny.agent()
    assert "exploration" not in timing._parts(greedy, tiny.batch(greedy))


def test_noise_makes_no_part_negative(monkeypatch):
    times = iter(range(9, 0, -1))  # every time is shorter than the one before
    monkeypatch.setattr(timing, "_median", lambda part: float(next(times)))
    agent = tiny.agent()
    assert min(timing._parts(agent, tiny.batch(agent)).values()) == 0


def test_a_column_without_parts_stands_beside_one_with_parts():
    """XLA compiles an update as one; the block `night` has it, `small` has not."""
    figures = {key: 1.0 for key, _ in timing._ROWS.values()} | {"precision": "32"}
    figures |= {"bound_share": 0.9, "bound_by": "updates"}
    whole = figures | {"size": "night", "parts_seconds": {}}
    apart = figures | {"size": "small", "parts_seconds": {"imagination": 0.25}}
    (row,) = [line for line in timing.report([whole, apart]).splitlines() if "imagination" in line]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["- imagination [s]", "", "0.250"]


def test_the_rate_counts_the_steps_of_all_environments_after_the_warm_up(monkeypatch):
    """On a clock that every call of the policy moves by half a second."""
    calls, envs = [], []

    def make_envs(config, mode, seeds):
        envs.extend(Scripted(6) for _ in seeds)
        assert config.envs == len(set(seeds)) == 3 and mode == "train"
        return envs

    def policy(obs, state, mode):
        calls.append(len(obs["is_first"]))
        action = np.eye(envs[0].act_space.shape[0], dtype=np.float32)[[0] * len(obs["is_first"])]
        return {"action": tf.constant(action)}, state

    monkeypatch.setattr(environments, "configured_envs", make_envs)
    monkeypatch.setattr(factory, "make_agent", lambda *given: SimpleNamespace(policy=policy))
    monkeypatch.setattr(playing.time, "perf_counter", lambda: len(calls) / 2)
    flat = make_config(["atari", "debug"]).flat
    assert playing.steps_per_second(flat, 3, seconds=5) == 6  # three rows every half a second
    assert calls == [3] * (playing.WARM_UP + 10)
    text = playing.report(
        [{"size": "full", "precision": "32", "steps_per_second": {1: 12.34, 4: 45.0}}]
    )
    assert (
        "| N = 1 | N = 4 |" in text and "| full, precision 32             | 12.3  | 45    |" in text
    )


@pytest.mark.slow
def test_what_sharing_an_update_costs_is_measured_in_processes_that_share_it():
    turns = sharing.measure_sharing(make_config(["vector", "debug"]), 2, turns=2)
    assert len(turns) == 2 and all(0 < turn.alone < 10 and 0 < turn.shared < 20 for turn in turns)


def test_the_table_of_sharing_says_how_much_more_it_costs():
    turns = [sharing.Turn(8.0, 9.0), sharing.Turn(8.0, 7.6)]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in sharing.report(turns, "full", 2).splitlines()[-2:]
    ]
    assert rows == [["full, turn 1", "8", "9", "12.5%"], ["full, turn 2", "8", "7.6", "-5.0%"]]
