"""Runs of the reference become ours, compute what they did, and nothing else gets in."""

import io
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tiny

from common import checkpoint
from common.config import Config
from common.data.replay import Replay
from common.data.spaces import OneHot
from common.nn.draws import Modes
from dreamerv2 import import_reference
from dreamerv2.agent.agent import Agent
from dreamerv2.reference import imports
from dreamerv2.reference.imports import ImportRunError, import_run, read_spaces, read_variables
from dreamerv2.reference.names import reference_variables
from dreamerv2.reference.parity import relative_error
from dreamerv2.run import blocks, restore, snapshot

GOLDEN = Path(__file__).parent / "golden"
RUN = GOLDEN / "reference_run"
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("imported") / "run"
    assert import_reference.main([str(RUN), "--logdir", str(directory)]) == 0
    return directory


@pytest.fixture(scope="module")
def saved(logdir):
    return checkpoint.load(checkpoint.Checkpoints(logdir / "checkpoints", 1).path())


@pytest.fixture(scope="module")
def agent(saved):
    """Built from the checkpoint alone, as the commands do."""
    arrays, meta = saved
    config = blocks.defaults().update({**meta["config"], "jit": False})
    agent = Agent(config, *snapshot.restore_spaces(meta["spaces"]))
    agent.load_state_dict(snapshot.below("agent", arrays))
    return agent


@pytest.fixture(scope="module")
def expected():
    with np.load(RUN / "expect.npz") as file:
        return {key: file[key] for key in file.files}


def episode(directory: str, name: str) -> dict[str, np.ndarray]:
    with np.load(RUN / directory / name) as file:
        return {key: file[key] for key in file.files}


def test_the_imported_agent_acts_as_the_reference(agent, expected):
    rows = episode("eval_episodes", str(expected["policy_file"]))
    step = tf.function(lambda obs, state: agent.policy_step(obs, state, "eval", Modes()))
    state, logits, actions = agent.initial_policy_state(1), [], []
    for t in range(len(expected["policy/action"])):
        obs = {key: tf.constant(rows[key][t : t + 1]) for key in ("image", "is_first")}
        outputs, state = step(obs, state)
        logits.append(state[0]["logit"][0])
        actions.append(outputs["action"][0])
    assert relative_error(logits, expected["policy/logit"]) < TOLERANCE
    assert relative_error(actions, expected["policy/action"]) < TOLERANCE


def test_the_imported_world_model_has_the_losses_of_the_reference(agent, expected):
    names = json.loads(str(expected["batch_files"]))
    episodes = [episode("train_episodes", name) for name in names]
    keys = [*agent.wm.input_keys, "action"]
    batch = {key: tf.constant(np.stack([e[key][:10] for e in episodes])) for key in keys}
    result = agent.wm.loss(agent.wm.preprocess(batch), None, Modes())
    assert relative_error(result.loss, expected["loss"]) < TOLERANCE
    metrics = [key for key in expected if key.startswith("metric/")]
    assert len(metrics) == 7
    for key in metrics:
        ours = result.metrics[key.removeprefix("metric/")]
        assert relative_error(ours, expected[key]) < TOLERANCE, key


def test_the_run_goes_on_at_the_step_of_the_reference(saved, agent, expected):
    meta = saved[1]
    assert meta["agent_steps"] == expected["step"] == 619
    assert meta["updates"] == agent.updates == agent.behavior.slow_updates == 41
    assert agent.act_space == OneHot(4)
    assert agent.obs_space["image"].shape == (64, 64, 1)


def test_config_episodes_and_metrics_come_along(logdir):
    config = blocks.parse_args(["--logdir", str(logdir), "--steps", "700"]).config
    assert (config.rssm.deter, config.actor.units, config.time_limit) == (32, 24, 150)
    assert (config.steps, config.logdir) == (700, str(logdir))
    assert blocks.parse_args(["--logdir", str(logdir), "--configs", "atari"]).blocks == ("atari",)
    replay = Replay(logdir / "train_episodes", **config.replay)
    assert replay.stats["loaded_episodes"] == 4
    assert next(replay.batches(2, 10))["image"].shape == (2, 10, 64, 64, 1)
    assert len(list((logdir / "eval_episodes").iterdir())) == 3
    assert (logdir / "metrics.jsonl").read_bytes() == (RUN / "metrics.jsonl").read_bytes()


def test_the_imported_agent_learns_on(agent):
    replay = Replay(RUN / "train_episodes", 0, minlen=5, maxlen=5)
    before = agent.wm.rssm.gru.dense.kernel.numpy()
    _, metrics = agent.train(next(replay.batches(2, 5)))
    assert all(np.isfinite(value) for value in metrics.values())
    assert (agent.wm.rssm.gru.dense.kernel.numpy() != before).any()


# The pickle


class Evil:
    """Unpickled without care, it leaves a file behind."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_a_command_is_refused(tmp_path, protocol):
    witness = tmp_path / "witness"
    evil = pickle.dumps([Evil(os.system, f"touch {witness}")], protocol)
    (tmp_path / "variables.pkl").write_bytes(evil)
    with pytest.raises(ImportRunError, match="system, but only NumPy arrays"):
        read_variables(tmp_path / "variables.pkl")
    assert not witness.exists()
    pickle.loads(evil)
    assert witness.exists(), "this pickle would have done nothing"


@pytest.mark.parametrize(
    "function",
    [eval, exec, open, getattr, __import__, np.load, np.fromfile, np.memmap, io.open_code],
)
def test_a_pickle_that_calls_any_other_function_is_refused(tmp_path, function):
    path = tmp_path / "variables.pkl"
    path.write_bytes(pickle.dumps([Evil(function, "1")]))
    with pytest.raises(ImportRunError, match="is refused"):
        read_variables(path)


def test_a_dotted_name_does_not_reach_past_what_is_admitted(tmp_path):
    path = tmp_path / "variables.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    with pytest.raises(ImportRunError, match=r"numpy.ndarray.tofile"):
        read_variables(path)


@pytest.mark.parametrize(
    "values, match",
    [
        ([np.zeros(2), "text"], "element 1 is not an array of numbers"),
        ([np.array([None])], "element 0 is not an array of numbers"),
        ([np.array(["text"])], "element 0"),
        ([[np.zeros(2)]], "element 0"),
        ({"a": np.zeros(2)}, "holds a dict"),
        (5, "holds a int"),
    ],
)
def test_what_is_no_sequence_of_numeric_arrays_is_refused(tmp_path, values, match):
    path = tmp_path / "variables.pkl"
    path.write_bytes(pickle.dumps(values))
    with pytest.raises(ImportRunError, match=match):
        read_variables(path)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_arrays_of_old_and_new_numpy_are_read(tmp_path, module):
    values = [np.int32(7), np.arange(6.0).reshape(2, 3)]
    data = pickle.dumps(values, protocol=3)
    current = np.zeros(0).__reduce__()[0].__module__.encode()
    assert current in data
    (tmp_path / "variables.pkl").write_bytes(data.replace(current, module))
    found = read_variables(tmp_path / "variables.pkl")
    np.testing.assert_equal(found, values)


@pytest.mark.parametrize("share", [0, 0.3, 0.999])
def test_a_truncated_pickle_is_refused(tmp_path, share):
    data = (RUN / "variables.pkl").read_bytes()
    (tmp_path / "variables.pkl").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ImportRunError, match="is refused"):
        read_variables(tmp_path / "variables.pkl")


# What does not fit


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(RUN, tmp_path / "source")
    (tmp_path / "source" / "variables.pkl").chmod(0o644)
    return tmp_path / "source"


def change_variables(run: Path, change) -> None:
    values = read_variables(run / "variables.pkl")
    (run / "variables.pkl").write_bytes(pickle.dumps(change(values)))


def swap(values, i, j):
    values[i], values[j] = values[j], values[i]
    return values


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda v: swap(v, 2, 4), r"slow_critic/dense0/kernel has shape \[24, 24\], expected"),
        (lambda v: [*v[:2], v[2].T, *v[3:]], r"kernel has shape \[24, 96\], expected \[96, 24\]"),
        (lambda v: swap(v, 1, 3), r"slow_critic/updates has shape \[24\], expected \[\]"),
        (lambda v: v[1:], r"slow_critic/updates has shape \[96, 24\]"),
        (lambda v: v[:-1], "84 values, none for rssm/obs_out/bias"),
        (lambda v: [*v, v[-1]], "86 values, but the last variable is number 85"),
        (lambda v: [v[2], *v[1:]], r"of shape \(96, 24\), not an agent step"),
        (lambda v: [-v[0], *v[1:]], r"the first value is -\d+, not an agent step"),
        (lambda v: [*v[:3], v[3].astype(int), *v[4:]], "slow_critic/dense0/bias is int64"),
        (lambda v: [*v[:-1], v[-1] * np.nan], "rssm/obs_out/bias is not finite"),
    ],
)
def test_a_variable_that_does_not_fit_is_named(copy, tmp_path, change, match, capsys):
    change_variables(copy, change)
    with pytest.raises(SystemExit, match="2"):
        import_reference.main([str(copy), "--logdir", str(tmp_path / "run")])
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert re.search(match, message), message
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("missing", ["config.yaml", "variables.pkl", "train_episodes"])
def test_a_directory_without_what_is_needed_is_refused(copy, tmp_path, missing):
    (copy / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(ImportRunError, match=f"it has no {missing}"):
        import_run(copy, tmp_path / "run")


def test_a_feature_that_does_not_exist_here_is_refused_by_name(copy, tmp_path):
    path = copy / "config.yaml"
    path.chmod(0o644)
    text = path.read_text()
    assert "envs_parallel: none" in text
    path.write_text(text.replace("envs_parallel: none", "envs_parallel: process"))
    with pytest.raises(ValueError, match="envs_parallel: got 'process', but this feature"):
        import_run(copy, tmp_path / "run")


@pytest.mark.parametrize("content", ["config.yaml", "checkpoints", "anything"])
def test_a_logdir_that_holds_something_is_refused_and_left_alone(tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / content).write_text("mine")
    with pytest.raises(ImportRunError, match="is not empty"):
        import_run(RUN, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == [content]
    assert (tmp_path / "run" / content).read_text() == "mine"


def test_an_import_that_fails_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(checkpoint.Checkpoints, "save", full)
    with pytest.raises(OSError, match="disk full"):
        import_run(RUN, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not any((tmp_path / "run").iterdir())


def test_a_folder_where_one_stands_and_a_link_to_one_can_be_filled(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    import_run(RUN, tmp_path / "link")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"checkpoints", "config.yaml", "train_episodes", "eval_episodes"}
    assert not [name for name in names if name.startswith(".")]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    import_run(RUN.resolve(), Path("."))
    assert {path.name for path in Path().iterdir()} == names


def test_the_logdir_appears_whole_in_the_last_step(tmp_path, monkeypatch):
    logdir, replace = tmp_path / "run", os.replace

    def last(source, target):
        if target == logdir:
            assert not logdir.exists()
            names = {path.name for path in source.iterdir()}
            assert names >= {"checkpoints", "config.yaml", "train_episodes", "eval_episodes"}
            raise OSError("interrupted")
        replace(source, target)

    monkeypatch.setattr(os, "replace", last)
    with pytest.raises(OSError, match="interrupted"):
        import_run(RUN, logdir)
    assert not any(tmp_path.iterdir())


# Parts


def write_episode(directory: Path, **arrays) -> None:
    directory.mkdir(exist_ok=True)
    np.savez(directory / "20200101T000000-0-1.npz", **arrays)


def test_the_kind_of_action_is_read_from_the_episodes(tmp_path):
    onehot = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32)
    write_episode(
        tmp_path, action=onehot, speed=np.zeros((3, 5)), image=np.zeros((3, 4, 4, 1), "u1")
    )
    obs_space, act_space = read_spaces(tmp_path)
    assert act_space == OneHot(3)
    assert list(obs_space) == ["speed", "image"]
    assert (obs_space["speed"].shape, obs_space["speed"].dtype) == ((5,), np.float32)
    assert (obs_space["image"].shape, obs_space["image"].high.max()) == ((4, 4, 1), 255)
    write_episode(tmp_path, action=onehot * 0.5)
    assert read_spaces(tmp_path)[1] == gymnasium.spaces.Box(-1, 1, (3,), np.float32)


def test_an_episode_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ImportRunError, match="holds no episode"):
        read_spaces(tmp_path)
    action = np.zeros((3, 2))
    for arrays in (
        {},
        {"action": np.zeros(3)},
        {"action": action, "seed": np.zeros(())},
        {"action": action, "note": np.array(["a", "b", "c"])},
    ):
        write_episode(tmp_path, reward=np.zeros(3), **arrays)
        with pytest.raises(ImportRunError, match="20200101T000000-0-1.npz cannot be read"):
            read_spaces(tmp_path)


@pytest.mark.parametrize("slow_target", [True, False])
def test_each_value_reaches_the_variable_in_its_place(slow_target):
    agent = tiny.agent(slow_target=slow_target)
    variables = reference_variables(agent)
    rng = np.random.default_rng(0)
    values = [np.int32(12)]
    for variable in variables.values():
        value = rng.integers(5, 9) if not variable.dtype.is_floating else rng.random(variable.shape)
        values.append(np.asarray(value).astype(variable.dtype.as_numpy_dtype))
    assert imports.restore(agent, values) == 12
    for (name, variable), value in zip(variables.items(), values[1:], strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, name)


def test_without_a_slow_critic_updates_are_counted_from_the_configuration():
    config: Config = tiny.config(prefill=100, pretrain=3, train_every=5, train_steps=2)
    assert imports._updates(config, 90, {}) == 3
    assert imports._updates(config, 112, {}) == 3 + 2 * 2


# Exploration


@pytest.mark.parametrize("name", ["explore", "modelloss"])
def test_a_run_that_explores_is_taken_over_with_all_it_has(name, tmp_path):
    source = tmp_path / "theirs"
    (source / "train_episodes").mkdir(parents=True)
    with np.load(GOLDEN / f"{name}.npz") as golden:
        order = json.loads(str(golden["variable_order"]))
        values = [golden[f"init/{key}"] for key in order]
        keys = [key for key in golden.files if key.startswith("batch/0/")]
        episode = {key.removeprefix("batch/0/"): golden[key][0] for key in keys}
        config = json.loads(str(golden["config"]))
    (source / "config.yaml").write_text(json.dumps(config))
    (source / "variables.pkl").write_bytes(pickle.dumps(values))
    np.savez(source / "train_episodes" / "20260101T000000-a-9.npz", **episode)
    import_run(source, tmp_path / "ours")
    agent = restore.read(tmp_path / "ours").agent()
    for key, variable in reference_variables(agent).items():
        np.testing.assert_array_equal(variable, dict(zip(order, values, strict=True))[key], key)
    head = "expl/disag2/out/out/bias" if name == "explore" else "expl/head/out/out/bias"
    assert head in order
