"""The named blocks, and the command line that combines them."""

import ast
import pathlib
import re
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from common.config import Config, ConfigError
from common.data.spaces import OneHot
from dreamerv2.run import blocks, check, usage

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCKS = [name for name in blocks.block_names() if name != "defaults"]


def test_the_blocks_that_the_documentation_names_exist():
    assert {"atari", "atari_paper", "playground", "small", "debug", "discretized"} <= set(BLOCKS)


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_changes_known_keys_to_accepted_values(name):
    assert blocks.make_config([name]) != blocks.defaults()
    assert blocks.make_config(["atari", name])


@pytest.mark.parametrize("name", ["atari_paper", "playground"])
def test_a_block_that_is_complete_in_itself_needs_no_other(name):
    assert blocks.make_config([name]) == blocks.make_config(["atari", name])


def test_the_released_atari_configuration():
    config = blocks.make_config(["atari"])
    assert config.task == "atari_breakout"
    assert (config.rssm.deter, config.rssm.hidden) == (600, 600)
    assert (config.rssm.stoch, config.rssm.discrete) == (32, 32)
    assert (config.dataset.batch, config.dataset.length, config.imag_horizon) == (16, 50, 15)
    assert (config.time_limit, config.action_repeat, config.train_every) == (27_000, 4, 16)
    assert (config.steps, config.prefill, config.eval_every) == (50_000_000, 50_000, 250_000)
    assert (config.model_opt.lr, config.actor_opt.lr, config.critic_opt.lr) == (2e-4, 4e-5, 1e-4)
    assert (config.discount, config.actor_ent, config.precision) == (0.999, 1e-3, 32)
    assert dict(config.loss_scales) == {"kl": 0.1, "reward": 1.0, "discount": 5.0}
    assert config.encoder.cnn_depth == config.decoder.cnn_depth == 48
    assert config.encoder.cnn_keys == config.decoder.cnn_keys == "image"
    assert not config.atari_full_actions


def test_what_the_paper_does_differently_from_the_release():
    released, paper = (blocks.make_config([name]).flat for name in ("atari", "atari_paper"))
    assert {key: paper[key] for key in paper if paper[key] != released[key]} == {
        "dataset.batch": 50,
        "train_every": 4,
        "discount": 0.995,
        "atari_full_actions": True,
        "actor_grad": "reinforce",
    }


def test_what_the_playground_does_differently_from_the_release():
    released, other = (blocks.make_config([name]).flat for name in ("atari", "playground"))
    assert {key: other[key] for key in other if other[key] != released[key]} == {
        "dataset.batch": 50,
        "atari_full_actions": True,
        "precision": 16,
        "actor_grad": "both",
        "actor_grad_mix": "linear(0.1,0,2.5e6)",
        "actor_ent": "linear(3e-3,3e-4,2.5e6)",
    }


def test_small_networks():
    config = blocks.make_config(["atari", "small"])
    assert config.encoder.cnn_depth == config.decoder.cnn_depth == 16
    assert config.rssm.deter == config.rssm.hidden == 256
    for head in (config.reward_head, config.discount_head, config.actor, config.critic):
        assert (head.layers, head.units) == (4, 128)


def test_debug_shrinks_every_width_length_and_interval():
    config, debug = (
        blocks.make_config(["atari"]).flat,
        blocks.make_config(["atari", "debug"]).flat,
    )
    pattern = (
        r".*(steps|prefill|_every|time_limit|video_frames|capacity|len|batch|length|horizon"
        r"|target_update|hidden|deter|stoch|discrete|cnn_depth|mlp_layers|layers|units)"
    )
    kept = ("train_steps", "save_every")
    keys = [key for key in config if re.fullmatch(pattern, key) and key not in kept]
    assert len(keys) >= 30
    assert [key for key in keys if not debug[key] < config[key]] == []


def _reads() -> tuple[set[str], set[str]]:
    """Names by which the code could read a key, and patterns of those that it puts together.

    Attributes, strings, parameters and keywords; `f"{name}_head"` gives a pattern.
    """
    names, patterns = set(), set()
    for path in [*ROOT.glob("common/**/*.py"), *ROOT.glob("dreamerv2/**/*.py")]:
        if path == ROOT / "dreamerv2" / "configs.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names |= {node.value, node.value.rpartition(".")[2]}
            elif isinstance(node, ast.arg | ast.keyword):
                names.add(node.arg)
            elif isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                parts = [part if isinstance(part, str) else r"\w+" for part in parts]
                if re.fullmatch(r"(\\w\+)?_\w+|\w+_(\\w\+)?", "".join(parts)):
                    patterns.add("".join(parts))
    return names, patterns


def _unread(keys) -> list[str]:
    names, patterns = _reads()
    parts = {part for key in keys for part in key.split(".")} - names
    return sorted(p for p in parts if not any(re.fullmatch(pattern, p) for pattern in patterns))


def test_every_key_is_read_by_something():
    assert _unread(blocks.defaults().flat) == []
    assert _unread(["rssm.no_such_key", "no_such_key"]) == ["no_such_key"]


def test_every_pattern_of_accepted_values_matches_a_key():
    keys = list(blocks.defaults().flat)
    unused = [name for name in blocks._KINDS if not any(re.fullmatch(name, k) for k in keys)]
    assert unused == []


def test_every_key_has_one_line_of_meaning_that_help_prints():
    meanings = blocks.key_meanings()
    assert list(meanings) == list(blocks.defaults().flat)
    assert [key for key, meaning in meanings.items() if len(meaning) < 5 or "\n" in meaning] == []
    text = " ".join(blocks.help_text().split())
    assert all(f"--{key}" in text and meaning in text for key, meaning in meanings.items())
    assert "--rssm.deter 600 " in text
    assert "a list of 2 values, each a whole number" in text


def test_help_fits_80_columns_and_has_every_block_and_section_once():
    lines = blocks.help_text().splitlines()
    # A pattern of many words has no place to break.
    assert [line for line in lines if len(line) > 80 and not line.startswith("  --")] == []
    for name in blocks.block_names():
        found = [line for line in lines if line.split() and line.split()[0] == name]
        assert len(found) == (name != "defaults"), name
    headings = ["Run", "Environment", "Replay", "Compute", "Agent", "World model"]
    places = [lines.index(heading) for heading in [*headings, "Actor and critic"]]
    assert places == sorted(places)
    assert lines.index("Environment") < lines.index("  --action_repeat 4") < places[2]


@pytest.mark.parametrize(
    "name, hint",
    [("batch_size", "dataset.batch"), ("learning-rate", "model_opt.lr"), ("env-id", "task")],
)
def test_a_name_of_another_library_gets_a_hint(name, hint):
    with pytest.raises(ConfigError, match=f"unknown key {name}; did you mean {hint}"):
        blocks.parse_args(["--logdir", "a", f"--{name}", "4"])


def test_every_hint_names_keys_that_exist():
    config = blocks.defaults()
    for name, text in usage.ALIASES.items():
        assert name not in config.flat
        words = re.findall(r"[\w.]+", text.partition(";")[0])
        keys = [word for word in words if word not in ("or", "configs")]
        assert [key for key in keys if key not in config.flat] == [], name


def test_the_command_line():
    argv = ["--logdir", "runs/a", "--configs", "atari", "small", "--rssm.deter", "9"]
    config, names = blocks.parse_args([*argv, "--precision=16", r"--.*\.units", "7"])
    assert names == ("atari", "small")
    assert (config.logdir, config.rssm.deter, config.precision) == ("runs/a", 9, 16)
    assert config.rssm.hidden == 256
    assert config.actor.units == config.critic.units == 7


def test_flags_win_wherever_they_stand():
    config, _ = blocks.parse_args(["--steps", "5", "--logdir", "a", "--configs", "debug"])
    assert config.steps == 5


def test_without_blocks_atari_is_used():
    config, names = blocks.parse_args(["--logdir", "a"])
    assert names == ("atari",)
    assert config == blocks.make_config(["atari"], {"logdir": "a"})


def test_precision_overrides_as_one_inline_map():
    text = "{image_likelihood: 16, layernorm: 16, rssm/gru: bfloat16}"
    config, _ = blocks.parse_args(["--logdir", "a", "--precision_overrides", text])
    overrides = dict(config.precision_overrides)
    assert overrides["image_likelihood"] == overrides["layernorm"] == 16
    assert (overrides["rssm/gru"], overrides["encoder"]) == ("bfloat16", "default")


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--configs atary", r"unknown block atary; did you mean atari"),
        ("--configs zzz", r"unknown block zzz; there are atari, "),
        ("--rssm.detr 5", r"unknown key rssm.detr; did you mean rssm.deter"),
        ("--precision 8", r"precision: 8 is not accepted; expected 32 or 16 or bfloat16"),
        ("--precision float16", r"precision: 'float16' is not accepted"),
        ("--precision_overrides.gru 16", r"unknown key .*; did you mean .*rssm/gru"),
        ("--precision_overrides.actor 8", r"expected default or 32 or 16 or bfloat16"),
        ("--rssm.discrete 0", r"expected False or a whole number"),
        ("--rssm.norm batch", r"expected none or layer"),
        ("--actor_ent cosine(1,2)", r"actor_ent: .* expected a number from -1e6 to 1e6 or a sch"),
        ("--actor_ent linear(1,2,0)", r"actor_ent: .* expected a number from -1e6 to 1e6 or a sch"),
        ("--actor_grad_mix linear(1,2)", r"actor_grad_mix: .* expected a number"),
        ("--loss_scale static", r"expected dynamic or none or a number"),
        ("--clip_rewards clip", r"expected identity or sign or tanh"),
        ("--grad_heads decoder critic", r"expected a list of values, each decoder or"),
        ("--render_size 64", r"expected a list of 2 values"),
        ("--model_opt.opt lion", r"expected adam or nadam"),
        ("--atari_backend gym", r"expected ale or atari_py"),
        ("--train_every 0", r"expected a whole number from 1 to 1e12"),
        ("--task breakout", r"expected SUITE_NAME, for example atari_breakout"),
        ("--expl_behavior curious", r"expl_behavior: .* expected greedy or Random or"),
        ("--disag_models 1", r"disag_models: .* from 2 to 100"),
        ("breakout", r"'breakout' is not accepted; expected"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_is_accepted(flags, message):
    with pytest.raises(ConfigError, match=message) as error:
        blocks.parse_args(
            ["--logdir", "a", *([] if flags[0] == "-" else ["--steps"]), *flags.split()]
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value", ["linear(0.1,0,2.5e6)", "warmup(1000, 3e-4)", "exp(1, .1, 5)", "horizon(10,1000,1e6)"]
)
def test_schedules_that_are_accepted_are_understood(value):
    config = blocks.make_config([], {"actor_ent": value, "actor_grad_mix": value})
    assert config.actor_ent == config.actor_grad_mix == value


@pytest.mark.parametrize(
    "key, value",
    [
        ("loss_scales.kl", "linear(-1,1,100)"),
        ("loss_scales.kl", "warmup(100,1e10)"),
        ("actor_grad_mix", "exp(1,1.1,5)"),
        ("actor_ent", "horizon(0,10,100)"),
        ("loss_scales.kl", "horizon(0.5,10,100)"),
    ],
)
def test_a_schedule_stays_within_the_bounds_of_its_key(key, value):
    with pytest.raises(ConfigError, match=rf"{key}: .* is not accepted; .* within them"):
        blocks.make_config([], {key: value})


def test_the_logdir_is_required():
    with pytest.raises(ConfigError, match="--logdir is missing"):
        blocks.parse_args(["--configs", "atari"])


def test_a_saved_configuration_is_checked_when_it_is_loaded(tmp_path):
    config = blocks.make_config(["playground", "debug"], {"loss_scales.position": 2})
    config.save(tmp_path / "config.yaml")
    assert blocks.load_config(tmp_path / "config.yaml") == config
    assert Config.load(tmp_path / "config.yaml") == config
    (tmp_path / "config.yaml").write_text("steps: ten\n")
    with pytest.raises(ConfigError, match="steps: 'ten' is not accepted"):
        blocks.load_config(tmp_path / "config.yaml")


def test_help_needs_no_tensorflow_and_blocks_are_found_from_any_directory(tmp_path):
    code = (
        "import sys; from dreamerv2.run import blocks\n"
        "try: blocks.parse_args(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'tensorflow' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == blocks.help_text()


def test_every_bound_stands_beside_the_comment_of_its_key():
    kinds = blocks.defaults()
    stated = dict.fromkeys(kinds.flat, "")
    section = ""
    for line in (blocks.configs_dir() / "defaults.yaml").read_text().splitlines():
        match = re.match(r"( *)([\w/]+):[^#]*(?:#.*?)?(?:\{(.*)\})?$", line)
        if match:
            indent, name, bounds = match.groups()
            section = section if indent else ""
            key = f"{section}.{name}" if section else name
            if key in stated:
                stated[key] = bounds or ""
            else:
                section = name
    assert stated == {key: kinds.kind(key).bounds for key in kinds.flat}
    assert stated["rssm.deter"] == "1 .. 100000" and stated["steps"] == "1 .. 1e12"


def test_every_number_has_bounds():
    config = blocks.defaults()
    numbers = [k for k, v in config.flat.items() if type(v) in (int, float) and k != "precision"]
    assert [key for key in numbers if not config.kind(key).bounds] == []
    assert len(numbers) > 50


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            "--actor_ent linear(1,2,0)",
            "actor_ent: .* from -1e6 to 1e6 or a schedule",
        ),
        ("--model_opt.clip .inf", "model_opt.clip: inf is not accepted"),
        ("--model_opt.clip 0", "model_opt.clip: 0 is not accepted"),
        ("--replay.memory_gib .inf", "replay.memory_gib: inf is not accepted"),
        ("--rssm.stoch 1000000000000", "rssm.stoch: .* from 1 to 100000"),
        ("--rssm.act while_loop", "rssm.act: 'while_loop' is not accepted; expected none or mish"),
        ("--reward_norm.scale -1", "reward_norm.scale: -1 is not accepted"),
        ("--actor.min_std .inf", "actor.min_std: inf is not accepted"),
        ("--kl.free .nan", "kl.free: nan is not accepted"),
        ("--configs", "--configs has no value"),
        ("--critic.dist binary", "critic.dist: 'binary' is not accepted; expected mse or normal"),
        ("--encoder.cnn_kernels []", "encoder.cnn_kernels: .* a list of at least 1 values"),
        ("--seed 9223372036854775808", "seed: .* from 0 to 2147483647"),
        (f"--seed 1{'0' * 400}", r"seed: 1000.*\.\.\..* from 0 to 2147483647"),
        ("--rssm &a{act:&a}", "rssm"),
        ("--logdir ~no-such-user/x", "logdir: ~no-such-user/x, but there is no such user"),
    ],
)
def test_nonsense_is_one_line_before_anything_is_built(flags, message):
    with pytest.raises(ConfigError, match=message) as error:
        blocks.parse_args(["--logdir", "a", *flags.split()])
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("key", ["walker/pos", "agent position", "a:b", "robot.pos", "a.b c"])
def test_the_loss_of_an_observation_of_any_name_can_be_scaled(key):
    config = blocks.parse_args(["--logdir", "a", f"--loss_scales.{key}", "7"]).config
    assert config.loss_scales[key] == 7
    again = blocks.defaults().update(config.nested())  # as it is saved
    assert again.loss_scales[key] == 7


def test_a_yaml_file_that_refers_to_itself_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("rssm: &a\n  act: *a\n")
    with pytest.raises(ConfigError, match="nested more than 20 deep"):
        blocks.load_config(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor.dist": "trunc_normal"}, "actor.dist: trunc_normal does not fit the discrete"),
        ({"reward_head.dist": "binary", "actor_grad": "both"}, "reward_head.dist: binary does not"),
        ({"time_limit": 20}, "time_limit: 20 cuts every episode below replay.minlen 50"),
        ({"replay.maxlen": 20}, "replay.maxlen: 20 is below replay.minlen 50"),
        ({"rssm.stoch": 100_000, "rssm.discrete": 1000}, r"rssm: layers of stoch .* [\d,]+ GiB"),
        ({"actor.units": 100_000}, r"actor: layers of layers 4, units 100000 take [\d,]+ GiB"),
        ({"critic.units": 10**5, "critic.layers": 100}, r"critic: layers of .* take [\d,]+ GiB"),
        ({"encoder.mlp_layers": [10**5] * 3}, r"encoder: .*mlp_layers \(100000, .* [\d,]+ GiB"),
        ({"decoder.cnn_depth": 100_000}, r"decoder: .*cnn_depth 100000 take [\d,]+ GiB"),
        ({"dataset.batch": 10**6, "dataset.length": 10**6}, "dataset: an update on batch 1000000"),
        # The images alone would fit; what is imagined from them does not.
        ({"dataset.batch": 50_000}, r"batch 50000 of length 50 takes [\d,]+ GiB or more"),
        ({"decoder.image_weights": True}, "decoder.image_weights: true needs encoder.image_stats"),
        ({"encoder.image_scales": 2}, "encoder.image_scales: 2 needs encoder.image_net mlp"),
        ({"xla": True, "jit": False}, "xla: true needs jit true"),
    ],
)
def test_values_that_cannot_work_together_are_found_before_anything_is_built(changes, message):
    obs_space = {"image": gymnasium.spaces.Box(0, 255, (64, 64, 1), np.uint8)}
    check.check(blocks.make_config(["atari"]), OneHot(4), obs_space)
    with pytest.raises(ConfigError, match=message):
        check.check(blocks.make_config(["atari"], changes), OneHot(4), obs_space)


def test_what_the_agent_does_not_read_takes_no_memory_and_workers_share_a_batch(monkeypatch):
    box = gymnasium.spaces.Box(-1, 1, (10**6,), np.float32)
    spaces = {"vector": gymnasium.spaces.Box(-1, 1, (3,), np.float32), "log_a": box, "other": box}
    monkeypatch.setattr(check, "machine_memory", lambda: 2**30)
    config = blocks.make_config(["vector"], {r"(encoder|decoder)\.mlp_keys": "vector"})
    check.check(config, OneHot(2), spaces)
    config = config.update({r"(encoder|decoder)\.mlp_keys": "vector|other"})
    with pytest.raises(ConfigError, match="dataset: an update on batch"):
        check.check(config, OneHot(2), spaces)
    check.check(config, OneHot(2), spaces, workers=16)


def test_a_batch_of_half_precision_may_be_nearly_twice_as_large(monkeypatch):
    obs_space = {"image": gymnasium.spaces.Box(0, 255, (64, 64, 1), np.uint8)}
    single = 50_000 * 50 * (4096 + 4 * (2 * 4096 + 15 * (600 + 32 * 32)))
    monkeypatch.setattr(check, "machine_memory", lambda: 0.6 * single)
    for precision in (16, "bfloat16"):
        changes = {"dataset.batch": 50_000, "precision": precision}
        check.check(blocks.make_config(["atari"], changes), OneHot(4), obs_space)
    for precision in (32, "tf32"):
        changes = {"dataset.batch": 50_000, "precision": precision}
        with pytest.raises(ConfigError, match="dataset: an update on batch 50000"):
            check.check(blocks.make_config(["atari"], changes), OneHot(4), obs_space)


def test_the_activations_are_functions_of_tensorflow_that_keep_shapes():
    from common.nn import layers

    for name in blocks.ACTIVATIONS:
        assert layers.activation(name)(np.linspace(-3, 3, 7, dtype=np.float32)).shape == (7,)
