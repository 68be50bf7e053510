"""The agent computes what the reference computed, and the command that says so tells the truth."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.config import ConfigError, flatten, load_yaml
from common.nn.draws import Modes
from dreamerv2 import parity as command
from dreamerv2.agent.agent import Agent
from dreamerv2.reference import parity
from dreamerv2.reference.names import (
    OFF,
    UNUSED,
    config_from_reference,
    reference_variables,
    spaces_from_json,
)
from dreamerv2.reference.parity import Golden, ParityError, relative_error, table
from dreamerv2.run.blocks import load_block

GOLDEN = Path(__file__).parent / "golden"


def path(name):
    return str(GOLDEN / f"{name}.npz")


@pytest.fixture
def eager():
    """No tracing, which takes longer than all the rest at these sizes."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def check(name, capsys):
    """Every quantity of the file agrees."""
    assert command.main([path(name)]) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert f"{name}.npz, precision 32" in out and "agrees with the reference" in out
    rows = {line.split()[0]: int(line.split()[1]) for line in out.splitlines()[2:-2]}
    with np.load(path(name)) as file:
        expected = [key for key in file.files if key.startswith("expect/")]
    assert sum(rows.values()) == len(expected), "every quantity is in some row"
    groups = {"wm/loss", "policy/action", "train/grad", "train/after", "openl/image"}
    if name in ("explore", "modelloss"):
        groups |= {"train/expl_imagine", "train/expl_target", "explore_after/action"}
    assert groups <= rows.keys()


def test_the_agent_computes_what_the_reference_computed(capsys):
    check("atari", capsys)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("name", ["dmc", "crafter", "explore", "modelloss"])
def test_other_variants_compute_what_the_reference_computed(name, capsys):
    check(name, capsys)


# Small files, so that a run of the command takes a second

SPACES = {
    "obs": {
        "vector": [[3], "float32"],
        "reward": [[], "float32"],
        "is_first": [[], "bool"],
        "is_last": [[], "bool"],
        "is_terminal": [[], "bool"],
    },
    "act": {"shape": [4], "discrete": True},
}


def made_by_hand() -> dict[str, np.ndarray]:
    """A file of a tiny agent that expects nothing yet."""
    config = tiny.config(rssm__norm="layer")
    flat = {k: list(v) if isinstance(v, tuple) else v for k, v in config.flat.items()}
    flat = {k: v for k, v in flat.items() if not k.startswith("precision_overrides")}
    agent = Agent(config, *spaces_from_json(SPACES))
    variables = reference_variables(agent)
    return {
        "config": np.array(json.dumps(flat)),
        "spaces": np.array(json.dumps(SPACES)),
        "variable_order": np.array(json.dumps(["step", *variables])),
        "init/step": np.int64(0),
        **{f"init/{name}": variable.numpy() for name, variable in variables.items()},
        **{
            f"batch/{i}/{key}": value
            for i in range(3)
            for key, value in tiny.batch(agent, seed=i).items()
        },
    }


def with_expectations(arrays, directory, names):
    """`arrays` with what the agent computes of the groups in `names`; it agrees by construction."""
    file = directory / "expectations.npz"
    np.savez(file, **arrays, **{f"expect/{name}": np.zeros(()) for name in names})
    values = dict(parity.computed(Golden(str(file))))
    return arrays | {f"expect/{name}": np.asarray(value) for name, value in values.items()}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    names = ["wm/loss", "policy/1/action"]
    return with_expectations(made_by_hand(), tmp_path_factory.mktemp("made"), names)


@pytest.fixture
def write(tmp_path, arrays, eager):
    """Writes the file with changes (None: left out) and returns its path."""

    def write(**changes):
        changed = arrays | {key.replace("__", "/"): value for key, value in changes.items()}
        file = tmp_path / f"made{len(list(tmp_path.iterdir()))}.npz"
        np.savez(file, **{key: value for key, value in changed.items() if value is not None})
        return str(file)

    return write


def config_with(arrays, **changes):
    flat = json.loads(str(arrays["config"])) | {k.replace("__", "."): v for k, v in changes.items()}
    return np.array(json.dumps(flat))


def refusal(file, capsys, *flags):
    with pytest.raises(SystemExit, match="2"):
        command.main([file, *flags])
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1, message
    return message


def test_exit_0_when_all_agree(write, capsys):
    assert command.main([write(), write()]) == 0
    assert capsys.readouterr().out.count("agrees with the reference") == 2


@pytest.mark.parametrize("tolerance", ["nan", "-1", "inf"])
def test_a_tolerance_that_is_none_is_refused(tolerance, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["nothing.npz", "--tolerance", tolerance])
    assert "--tolerance: got " in capsys.readouterr().err


def test_exit_1_when_one_differs_by_more_than_the_tolerance(write, arrays, capsys):
    loss = arrays["expect/wm/loss"]
    file = write(expect__wm__loss=loss * 1.01)
    assert command.main([file]) == 1
    out = capsys.readouterr().out
    assert "DIFFERS from the reference: 9.9e-03 at worst, tolerance 0.001" in out
    marked = [line for line in out.splitlines() if "too large" in line]
    assert len(marked) == 1 and marked[0].startswith("wm/loss")
    assert command.main([file, "--tolerance", "0.02"]) == 0
    assert command.main([write(), file]) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_never_agree(write, value):
    assert command.main([write(expect__wm__loss=np.float32(value))]) == 1


@pytest.mark.parametrize(
    "name", ["wm/brightness", "wm/like/image", "openl/image", "policy/x/action", "extra/loss"]
)
def test_a_quantity_that_is_not_compared_is_an_error(write, capsys, name):
    message = refusal(write(**{f"expect/{name}": np.float32(1)}), capsys)
    assert f"1 quantities are not compared: expect/{name}" in message


def test_a_quantity_of_another_shape_is_an_error(write, capsys):
    message = refusal(write(expect__wm__kl=np.zeros((2, 3))), capsys)
    assert "expect/wm/kl: shape (2, 4) where the file has (2, 3)" in message


def test_a_file_that_expects_nothing_is_an_error(write, arrays, capsys):
    nothing = {key.replace("/", "__"): None for key in arrays if key.startswith("expect/")}
    assert "expects nothing" in refusal(write(**nothing), capsys)


@pytest.mark.parametrize("key", ["config", "spaces", "variable_order", "init/step"])
def test_what_a_file_lacks_is_named(write, capsys, key):
    assert f"has no {key}" in refusal(write(**{key: None}), capsys)


def test_a_variable_that_is_missing_or_misshapen_or_out_of_order_is_named(write, arrays, capsys):
    name = "init/rssm/gru/dense/kernel"
    assert "rssm/gru/dense/kernel is missing" in refusal(write(**{name: None}), capsys)
    message = refusal(write(**{name: np.zeros((3, 3))}), capsys)
    assert "rssm/gru/dense/kernel has shape (3, 3), expected (16, 24)" in message
    order = json.loads(str(arrays["variable_order"]))
    order[5], order[6] = order[6], order[5]
    message = refusal(write(variable_order=np.array(json.dumps(order))), capsys)
    assert f"variable_order has {order[5]} where the agent has {order[6]}" in message
    message = refusal(write(variable_order=np.array(json.dumps(order[:-1]))), capsys)
    assert "variable_order has" in message


@pytest.mark.parametrize("key", ["batch/0/reward", "batch/0/action"])
def test_a_batch_that_lacks_a_key_is_named(write, capsys, key):
    assert f"{key} is missing" in refusal(write(**{key: None}), capsys)


def test_a_file_that_is_damaged_is_an_error(write, tmp_path, capsys):
    data = Path(write()).read_bytes()
    damaged = tmp_path / "damaged.npz"
    for content in (b"", b"text", data[:100], data[: len(data) // 2], data[:-10]):
        damaged.write_bytes(content)
        assert "damaged.npz cannot be read" in refusal(str(damaged), capsys)
    np.save(tmp_path / "damaged.npy", np.zeros(3))
    assert "cannot be read" in refusal(str(tmp_path / "damaged.npy"), capsys)
    assert "cannot be read" in refusal(str(tmp_path / "absent.npz"), capsys)
    assert "cannot be read" in refusal(str(tmp_path), capsys)


def test_what_is_not_json_is_said(write, capsys):
    assert "config is not JSON" in refusal(write(config=np.array("{")), capsys)
    assert "config is not a dict" in refusal(write(config=np.array("[]")), capsys)
    assert "variable_order is not a list" in refusal(write(variable_order=np.array("5")), capsys)
    for spaces in ({}, {"obs": {}, "act": {"shape": [], "discrete": True}}, {"obs": []}):
        damaged = np.array(json.dumps(spaces))
        assert "spaces cannot be understood" in refusal(write(spaces=damaged), capsys)


# Configurations of the reference


@pytest.mark.parametrize("key", OFF)
def test_a_feature_that_does_not_exist_here_is_refused_by_name(write, arrays, capsys, key):
    default = OFF[key]
    assert key not in config_from_reference({key: default})
    other = (not default) if isinstance(default, bool) else "other"
    message = refusal(write(config=config_with(arrays, **{key: other})), capsys)
    assert message.startswith(f"error: {key}: got {other!r}")


def test_an_unknown_key_is_refused_with_the_nearest(arrays, write, capsys):
    assert "rssm.depth" in refusal(write(config=config_with(arrays, rssm__depth=3)), capsys)


def test_a_run_of_the_reference_has_a_configuration_of_ours():
    flat = flatten(load_yaml(GOLDEN / "reference_run" / "config.yaml"))
    config = config_from_reference(flat)
    assert config.rssm.deter == 32 and config.loss_scales["proprio"] == 1
    ignored = {key for key in flat if key not in config.flat}
    assert ignored <= {*OFF, *UNUSED}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"slow_target": False},
        {"pred_discount": False, "grad_heads": ["decoder"]},
        {"rssm__ensemble": 11, "rssm__discrete": False},
        {"act_space": tiny.ACTION, r".*\.norm": "layer"},
        {"expl_behavior": "Plan2Explore", "disag_models": 12},
        {"expl_behavior": "ModelLoss", "slow_target": False},
        {"expl_behavior": "Random"},
    ],
)
def test_every_variable_has_one_place_in_the_order_of_the_reference(settings):
    agent = tiny.agent({"image": tiny.RGB, "vector": tiny.VECTOR}, **settings)
    found = reference_variables(agent)
    explorer = agent.expl.named_variables() if agent.expl else {}
    networks = [*agent.wm.variables, *agent.behavior.variables]
    networks += [variable for name, variable in explorer.items() if "_opt/" not in name]
    assert sorted(map(id, found.values())) == sorted(map(id, networks))
    exploring = [name.startswith("expl/") for name in found]
    assert exploring == sorted(exploring, reverse=True), "what explores comes first"
    found = {name: v for name, v in found.items() if not name.startswith("expl/")}
    heads = [name.split("/")[0] for name in found]
    order = list(dict.fromkeys(heads))
    if agent.config.slow_target:
        assert order[:4] == ["slow_critic", "actor", "critic", "reward_norm"]
        assert list(found)[0] == "slow_critic/updates"
    else:
        assert order[:3] == ["critic", "actor", "reward_norm"]
    expected = ["encoder", "decoder", "discount", "reward", "rssm"]
    assert [name for name in order if name in expected] == [n for n in expected if n in order]
    members = [name.split("/")[1] for name in found if name.startswith("rssm/img_dist")]
    assert members == sorted(members), "as text: member 10 comes before 2"


def test_what_the_reference_does_not_read_may_have_any_value_and_no_other_key_may_be_new():
    assert config_from_reference({"slow_baseline": 7})
    with pytest.raises(ConfigError, match="kl.balanc"):
        config_from_reference({"kl.balanc": 0.5})


def test_a_scale_of_the_key_proprio_is_heeded():
    config = config_from_reference({"loss_scales.proprio": 3.0})
    assert config.loss_scales["proprio"] == 3
    spaces = {"obs": {"proprio": [[2], "float32"]}, "act": {"shape": [2], "discrete": False}}
    obs_space, act_space = spaces_from_json(spaces)
    assert act_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    small = tiny.config().update({"loss_scales.proprio": 3.0})
    row = {k: v for k, v in tiny.agent().obs_space.items() if k != "vector"}
    agent = Agent(small, {**obs_space, **row}, act_space)
    result = agent.wm.loss(agent.wm.preprocess(tiny.tensors(tiny.batch(agent))), None, Modes())
    parts = {k: float(v) for k, v in result.metrics.items() if k.endswith("_loss")}
    total = sum(parts.values()) + 2 * parts["proprio_loss"]
    np.testing.assert_allclose(result.loss, total, rtol=1e-5)


def test_the_released_blocks_are_accepted_in_the_references_form():
    for name in ("atari", "debug"):
        config = tiny.defaults().update(load_block(name))
        assert config_from_reference(dict(config.flat)).flat == config.flat


# Precision


@pytest.mark.parametrize(
    "flags",
    [
        ["--precision", "16", "--loss_scale", "64"],
        ["--precision", "bfloat16"],
        ["--precision_overrides.rssm", "bfloat16"],
    ],
)
def test_other_precisions_are_for_information(write, capsys, flags):
    assert command.main([write(), *flags]) == 0
    out = capsys.readouterr().out
    assert "for information" in out and "agrees" not in out and "too large" not in out
    worst = float(out.rsplit("for information: ", 1)[1].split()[0])
    assert 1e-5 < worst < 1


def test_precision_of_the_file_itself_is_not_used(write, arrays):
    assert command.main([write(config=config_with(arrays, precision=16))]) == 0


def test_an_unknown_precision_is_refused(write, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main([write(), "--precision", "8"])
    capsys.readouterr()
    assert "precision_overrides" in refusal(write(), capsys, "--precision_overrides.rssm", "8")


# Parts


def test_relative_errors():
    assert relative_error([3.0, 4.0], [3.0, 4.0]) == 0
    np.testing.assert_allclose(relative_error([3.0, 4.5], [3.0, 4.0]), 0.1)
    assert relative_error([0.25], [0.0]) == 0.25, "absolute where the reference is zero"
    assert relative_error([np.nan], [1.0]) == relative_error([1.0], [np.inf]) == float("inf")
    with pytest.raises(ParityError, match="shape"):
        relative_error([1.0], [1.0, 1.0])


def test_the_table_shows_the_worst_of_each_group():
    differences = [
        parity.Difference("train/0/grad/a/kernel", 1e-5),
        parity.Difference("train/2/grad/b/kernel", 2e-2),
        parity.Difference("wm/loss", 0.0),
    ]
    lines = table(differences, 1e-3).splitlines()[1:]
    assert [line.split() for line in lines] == [
        ["train/grad", "2", "2.0e-02", "train/2/grad/b/kernel", "<--", "too", "large"],
        ["wm/loss", "1", "0.0e+00", "wm/loss"],
    ]
    assert "too large" not in table(differences, None)


def test_variables_after_training_are_judged_by_their_change(tmp_path, eager, capsys):
    arrays = with_expectations(made_by_hand(), tmp_path, ["train/1/target"])
    name = "actor/dense0/kernel"
    initial, after = arrays[f"init/{name}"], arrays[f"expect/train/1/after/{name}"]
    arrays[f"expect/train/1/after/{name}"] = initial + 2 * (after - initial)
    np.savez(tmp_path / "made.npz", **arrays)
    assert command.main([str(tmp_path / "made.npz")]) == 1
    assert f"5.0e-01  train/1/after/{name}  <-- too large" in capsys.readouterr().out
    assert relative_error(2 * after - initial, after) < 1e-3, "too small to be seen otherwise"
