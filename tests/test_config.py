"""The configuration: dotted keys, types, patterns, flags, and messages that help."""

import copy

import pytest

from common import config as configs
from common.config import Config, ConfigError

DEFAULTS = {
    "task": "atari_breakout",
    "steps": 1_000_000,
    "discount": 0.99,
    "jit": True,
    "mix": 0.1,
    "rssm": {"deter": 600, "discrete": 32, "act": "elu"},
    "encoder": {"kernels": [4, 4, 4, 4], "keys": "image"},
    "loss_scales": {"kl": 1.0, "reward": 1.0},
    "actor": {"units": 400},
    "critic": {"units": 400},
}


@pytest.fixture
def config():
    kinds = {
        "mix": configs.either(configs.number(0, 1), configs.string(r"linear\(.*\)", "a schedule")),
        r"rssm\.discrete": configs.either(configs.choice(False), configs.integer(2)),
        r".*\.keys": configs.regex(),
    }
    return Config(DEFAULTS, kinds, {"loss_scales": configs.number(0)})


def test_values_are_reached_by_attribute_by_dotted_key_and_step_by_step(config):
    assert config.rssm.deter == config["rssm.deter"] == config["rssm"]["deter"] == 600
    assert config.flat["rssm.deter"] == 600
    assert config.encoder.kernels == (4, 4, 4, 4)
    assert list(config)[:2] == ["task", "steps"]
    assert len(config) == 10
    assert "rssm.deter" in config and "rssm.nope" not in config
    assert config.get("nope", 5) == 5
    assert dict(config.rssm) == {"deter": 600, "discrete": 32, "act": "elu"}


def test_dotted_and_nested_mappings_give_equal_configs():
    assert Config({"a.b": 1, "a.c": 2}) == Config({"a": {"b": 1, "c": 2}})
    assert Config({"a": 1}) != Config({"a": 2})


def test_nothing_changes_a_config_in_place(config):
    with pytest.raises(TypeError, match="cannot be changed"):
        config.steps = 5
    with pytest.raises(TypeError, match="cannot be changed"):
        del config.steps
    with pytest.raises(TypeError):
        config["steps"] = 5
    config.flat["steps"] = 5
    config.nested()["encoder"]["kernels"].append(7)
    changed = config.update({"steps": 5})
    assert (config.steps, changed.steps) == (1_000_000, 5)
    assert config.encoder.kernels == (4, 4, 4, 4)
    assert copy.deepcopy(config) == config


@pytest.mark.parametrize(
    "key, value, stored",
    [
        ("steps", 1e6, 1_000_000),
        ("discount", 1, 1.0),
        ("jit", False, False),
        ("encoder.kernels", [5, 6.0], (5, 6)),
        ("encoder.kernels", [], ()),
        ("mix", "linear(0.1,0,2.5e6)", "linear(0.1,0,2.5e6)"),
        ("mix", 1, 1.0),
        ("rssm.discrete", False, False),
        ("rssm.discrete", 8.0, 8),
    ],
)
def test_values_get_the_type_of_the_default(config, key, value, stored):
    result = config.update({key: value})[key]
    assert result == stored and type(result) is type(stored)


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("steps", 1.5, "a whole number"),
        ("steps", "3", "a whole number"),
        ("steps", True, "a whole number"),
        ("steps", float("inf"), "a whole number"),
        ("discount", float("nan"), "a number"),
        ("discount", None, "a number"),
        ("jit", 1, "True or False"),
        ("task", 5, "a string"),
        ("encoder.kernels", 4, "a list of values, each a whole number"),
        ("encoder.kernels", ["a"], "a list of values, each a whole number"),
        ("encoder.keys", "[", "a regular expression"),
        ("mix", 2, "a number from 0 to 1 or a schedule"),
        ("mix", "cosine(1)", "a number from 0 to 1 or a schedule"),
        ("rssm.discrete", True, "False or a whole number of at least 2"),
        ("rssm.discrete", 0, "False or a whole number of at least 2"),
        ("loss_scales.kl", -1, "a number of at least 0"),
    ],
)
def test_a_wrong_value_is_an_error_with_key_value_and_what_is_expected(
    config, key, value, expected
):
    with pytest.raises(ConfigError) as error:
        config.update({key: value})
    assert str(error.value) == f"{key}: {value!r} is not accepted; expected {expected}"


@pytest.mark.parametrize(
    "key, near",
    [
        ("step", "steps"),
        ("rssm.detr", "rssm.deter"),
        ("deter", "rssm.deter"),
        ("actor.unit", "actor.units"),
        ("loss_scale", ""),
        (r".*\.layers", ""),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_names(config, key, near):
    with pytest.raises(ConfigError, match="unknown key") as error:
        config.update({key: 1})
    assert near in str(error.value)
    with pytest.raises(KeyError, match="unknown key"):
        config[key]
    with pytest.raises(AttributeError, match="unknown key"):
        getattr(config, key)


def test_a_value_for_a_section_is_an_error_that_names_its_keys(config):
    with pytest.raises(ConfigError, match="rssm is a section .* rssm.deter, rssm.discrete"):
        config.update({"rssm": 5})
    with pytest.raises(ConfigError, match="unknown key steps.nested"):
        config.update({"steps": {"nested": 5}})


def test_only_an_open_section_takes_new_names(config):
    changed = config.update({"loss_scales": {"position": 2}})
    assert dict(changed.loss_scales) == {"kl": 1.0, "reward": 1.0, "position": 2.0}
    assert changed.loss_scales.update({"velocity": 3}).velocity == 3.0
    assert "loss_scales.position" not in config
    with pytest.raises(ConfigError, match="unknown key rssm.position"):
        config.update({"rssm": {"position": 2}})


def test_patterns_change_every_key_that_they_match_as_a_whole(config):
    changed = config.update({r".*\.units": 64, r"(actor|rssm)\.(units|deter)": 32})
    assert changed.critic.units == 64
    assert changed.flat["actor.units"] == changed.rssm.deter == 32
    with pytest.raises(ConfigError, match="unknown key"):
        config.update({"(actor|critic).unit": 64})


def test_a_pattern_that_meets_another_type_names_the_key():
    with pytest.raises(ConfigError, match="rssm.act: 3 is not accepted; expected a string"):
        Config(DEFAULTS).update({"rssm.*": 3})


def test_an_unmatched_point_is_no_wildcard():
    with pytest.raises(ConfigError, match="unknown key"):
        Config({"actor_ent": 1.0}).update({"actor.ent": 2})


def test_later_changes_win(config):
    assert config.update({".*units": 1, "actor.units": 2}).actor.units == 2
    assert config.update({"actor.units": 2, ".*units": 1}).actor.units == 1


@pytest.mark.parametrize(
    "argv, key, value",
    [
        (["--steps", "1e4"], "steps", 10_000),
        (["--steps=1e4"], "steps", 10_000),
        (["--discount", "1"], "discount", 1.0),
        (["--jit", "false"], "jit", False),
        (["--jit", "True"], "jit", True),
        (["--task", "5"], "task", "5"),
        (["--task=a=b"], "task", "a=b"),
        (["--encoder.kernels", "1", "2"], "encoder.kernels", (1, 2)),
        (["--encoder.kernels", "7"], "encoder.kernels", (7,)),
        (["--encoder.kernels", "[1, 2]"], "encoder.kernels", (1, 2)),
        (["--encoder.keys", "$^"], "encoder.keys", "$^"),
        (["--encoder.keys", "[ab]"], "encoder.keys", "[ab]"),
        (["--mix", "linear(1, 0, 2e6)"], "mix", "linear(1, 0, 2e6)"),
        (["--mix", "0.5"], "mix", 0.5),
        (["--rssm.discrete", "False"], "rssm.discrete", False),
        (["--loss_scales.position", "2"], "loss_scales.position", 2.0),
        (["--rssm", "{deter: 5, act: relu}"], "rssm.deter", 5),
        ([r"--.*\.units", "64"], "critic.units", 64),
        (["--steps", "1", "--steps", "2"], "steps", 2),
    ],
)
def test_flags(config, argv, key, value):
    result = config.update_flags(configs.split_flags(argv))[key]
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--steps"], "--steps has no value"),
        (["--steps", "ten"], "steps: 'ten' is not accepted; expected a whole number"),
        (["--steps", "1", "2"], "steps: '1 2' is not accepted; expected a whole number"),
        (["--steps", '!!int ""'], "steps: .* is not accepted; expected a whole number"),
        (["--steps", "!!bool x"], "steps: .* is not accepted; expected a whole number"),
        (["--steps", "[" * 5000], "steps: .* is not accepted; expected a whole number"),
        (["--rssm.act", "\udcff"], "rssm.act: .* is not accepted; expected a string"),
        (["--jit", "1"], "jit: 1 is not accepted; expected True or False"),
        (["--encoder.kernels", "[1"], "encoder.kernels: .* expected a list"),
        (["--stepps", "1"], "unknown key stepps; did you mean steps?"),
        (["--rssm", "5"], "rssm is a section"),
        (["--(", "5"], r"\( is not a regular expression"),
        (["steps", "5"], "'steps' belongs to no flag"),
    ],
)
def test_wrong_flags_are_errors(config, argv, message):
    with pytest.raises(ConfigError, match=message):
        config.update_flags(configs.split_flags(argv))


def test_negative_numbers_are_values_not_flags():
    assert Config({"a": 0}).update_flags(configs.split_flags(["--a", "-3"])).a == -3


def test_saved_values_load_and_no_partial_file_is_left(config, tmp_path):
    path = tmp_path / "config.yaml"
    changed = config.update({"discount": 1e-5, "encoder.keys": "$^", "mix": "linear(1,0,2)"})
    changed.save(path)
    assert "  kernels: [4, 4, 4, 4]\n" in path.read_text()
    assert Config.load(path) == changed
    assert config.update(Config.load(path)) == changed
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("text", ["a: [1", "- 1", "", "\x00", "a: !!bool x", "[" * 5000])
def test_a_file_that_is_no_configuration_is_named(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="config.yaml") as error:
        Config.load(path)
    assert "\n" not in str(error.value)


def test_a_default_without_a_type_needs_a_kind():
    with pytest.raises(ConfigError, match="a: None does not say"):
        Config({"a": None})
    assert Config({"a": 16}, {"a": configs.choice(32, 16, "bfloat16")}).update(
        {"a": "bfloat16"}
    ) == {"a": "bfloat16"}


def test_a_bad_default_is_found_at_construction():
    with pytest.raises(ConfigError, match="a: 3 is not accepted; expected 1 or 2"):
        Config({"a": 3}, {"a": configs.choice(1, 2)})


def test_a_flag_of_true_or_false_may_stand_alone():
    config = Config({"fast": False, "steps": 3})
    assert config.update_flags([("fast", [])]).fast is True
    assert config.update_flags([("fast", ["False"])]).fast is False
    with pytest.raises(ConfigError, match="--steps has no value"):
        config.update_flags([("steps", [])])
