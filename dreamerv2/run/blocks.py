"""Named blocks of configuration, and the command line that combines them.

Each file `NAME.yaml` in the directory of `configs_dir()` is a block: `defaults` has every key, the
others change some. A configuration is the defaults, then blocks in the order given, then flags.
"""

import pathlib
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from common import VERSION
from common import config as cfg
from common.nn.schedule import ACCEPTED, ends
from dreamerv2.run import usage

DEFAULT_BLOCKS = ("atari",)
# What `env` begins with in a run whose environment was given as an object; its class follows.
OBJECT = "object "
OWN = "own_"  # begins the task of such a run, and of one with `env`


def _scheduled(low: float, high: float) -> cfg.Kind:
    """A number within the bounds, or a schedule that stays within them."""

    def check(value):
        if not all(low <= end <= high for end in ends(value)):
            raise ValueError

    schedule = cfg.checked(check, f"a schedule {ACCEPTED} that stays within them")
    return cfg.either(cfg.number(low, high), schedule)


# Functions of TensorFlow that map each number to one, apart from none and mish.
ACTIVATIONS = (
    *("none", "mish", "elu", "relu", "relu6", "leaky_relu", "selu", "gelu", "silu", "swish"),
    *("tanh", "sigmoid", "softplus", "softsign"),
)
_PRECISIONS = (32, 16, "bfloat16")

# What the type of the default does not say; the first pattern that matches a key counts.
_KINDS = {
    "task": cfg.string(r"[^_]+_.+", "SUITE_NAME, for example atari_breakout"),
    "env": cfg.string(
        rf"|[\w.]+:[\w.]+|{OBJECT}[\w.<>]+", "MODULE:FUNCTION, which makes an environment"
    ),
    "seed": cfg.integer(0, 2**31 - 1),
    "(prefill|pretrain|max_bad_episodes|train_steps|eval_eps|time_limit)": cfg.integer(0, 1e12),
    "save_every": cfg.number(0, 1e9),
    "action_repeat": cfg.integer(1, 1000),
    "envs": cfg.integer(1, 1024),
    "(steps|.*_every|keep_checkpoints|video_frames)": cfg.integer(1, 1e12),
    "slow_target_update": cfg.integer(1, 1e12),
    "imag_horizon": cfg.integer(2, 1000),
    "log_keys_video": cfg.sequence(cfg.string()),
    "log_keys_(sum|mean|max|success)": cfg.regex(),
    "render_size": cfg.sequence(cfg.integer(1, 1024), length=2),
    "atari_backend": cfg.choice("ale", "atari_py"),
    "dmc_camera": cfg.integer(-1, 100),
    r"replay\.(capacity|maxlen)": cfg.integer(0, 1e12),
    r"replay\.memory_gib": cfg.number(0, 1e6),
    r"(replay|dataset)\.(minlen|batch|length)": cfg.integer(1, 1e6),
    "precision": cfg.choice(*_PRECISIONS, "tf32"),
    r"precision_overrides\..*": cfg.choice("default", *_PRECISIONS),
    "devices": cfg.either(cfg.choice("all"), cfg.integer(1, 1024)),
    "loss_scale": cfg.either(cfg.choice("dynamic", "none"), cfg.number(1e-6, 1e30)),
    "clip_rewards": cfg.choice("identity", "sign", "tanh"),
    "expl_(intr|extr)_scale": cfg.number(-1e6, 1e6),
    "(expl|eval)_noise": cfg.number(0, 1),
    "expl_behavior": cfg.name("greedy", "Random", "Plan2Explore", "ModelLoss"),
    "(expl_until|disag_offset)": cfg.integer(0, 1e12),
    "disag_target": cfg.choice("stoch", "deter", "embed", "feat"),
    "disag_models": cfg.integer(2, 100),
    "features": cfg.choice("full", "discrete"),
    "grad_heads": cfg.sequence(cfg.choice("decoder", "reward", "discount")),
    r"rssm\.discrete": cfg.either(cfg.choice(False), cfg.integer(1, 1e5)),
    r"rssm\.std_act": cfg.choice("softplus", "sigmoid", "sigmoid2"),
    r"rssm\.ensemble": cfg.integer(1, 100),
    r"rssm\.(hidden|deter|stoch)": cfg.integer(1, 1e5),
    r".*\.min_std": cfg.number(0, 100),
    r".*\.norm": cfg.choice("none", "layer"),
    r".*\.(mlp|cnn)_keys": cfg.regex(),
    r".*\.mlp_layers": cfg.sequence(cfg.integer(1, 1e5)),
    r".*\.cnn_kernels": cfg.sequence(cfg.integer(1, 1e5), least=1),
    r".*\.layers": cfg.integer(0, 100),
    r".*\.(cnn_depth|units)": cfg.integer(1, 1e5),
    r"(reward_head|discount_head)\.dist": cfg.choice("mse", "normal", "binary"),
    r"(critic|expl_head)\.dist": cfg.choice("mse", "normal"),  # values are not in [0, 1]
    r"actor\.dist": cfg.choice("auto", "onehot", "trunc_normal", "normal", "tanh_normal"),
    r"(encoder|decoder)\.image_net": cfg.choice("cnn", "mlp"),
    r"(encoder|decoder)\.image_scales": cfg.integer(1, 8),
    r"decoder\.image_dist": cfg.choice("mse", "binary", "contrast"),
    r"kl\.free": cfg.number(0, 1e6),
    r"(kl\.balance|discount|discount_lambda|slow_target_fraction)": cfg.number(0, 1),
    r"(expl_)?reward_norm\.momentum": cfg.number(0, 1),
    r"(expl_)?reward_norm\.(scale|eps)": cfg.number(1e-12, 1e9),
    r".*_opt\.opt": cfg.choice("adam", "nadam", "adamax", "sgd", "momentum"),
    r".*_opt\.(lr|wd)": cfg.number(0, 1),
    r".*_opt\.eps": cfg.number(1e-12, 1),
    r".*_opt\.clip": cfg.number(1e-6, 1e9),
    r".*\.act": cfg.choice(*ACTIVATIONS),
    "actor_grad": cfg.choice("auto", "reinforce", "dynamics", "both"),
    "actor_grad_mix": _scheduled(0, 1),
    "actor_ent": _scheduled(-1e6, 1e6),
}
_OPEN_MAPS = {"loss_scales": _scheduled(0, 1e9)}


class Arguments(NamedTuple):
    """What a command line asks for: the resolved values, and the blocks that they come from.

    No blocks: the values come from the run that is in the logdir.
    """

    config: cfg.Config
    blocks: tuple[str, ...]


def configs_dir() -> pathlib.Path:
    """Where the blocks are: inside the installed package, or beside it in a checkout."""
    package = pathlib.Path(__file__).resolve().parents[1]
    for directory in (package / "configs", package.parent / "configs"):
        if (directory / "defaults.yaml").is_file():
            return directory
    raise FileNotFoundError(f"{package} has no configs/defaults.yaml, neither inside nor beside it")


def block_names() -> list[str]:
    """Names of all blocks, `defaults` included."""
    return sorted(path.stem for path in configs_dir().glob("*.yaml"))


def load_block(name: str) -> dict[str, Any]:
    """The changes that a block makes, as written; ConfigError for an unknown name."""
    names = block_names()
    if name not in names:
        close = cfg.nearest(name, names) or f"; there are {', '.join(names)}"
        raise cfg.ConfigError(f"unknown block {name}{close}")
    return cfg.load_yaml(configs_dir() / f"{name}.yaml")


def defaults() -> cfg.Config:
    """The block `defaults`, which knows what every key accepts."""
    return cfg.Config(load_block("defaults"), _KINDS, _OPEN_MAPS)


def config_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`KEY: OLD -> NEW` for each key that differs between two nested configurations."""
    old, new = cfg.flatten(saved), cfg.flatten(now)
    keys = [key for key in {**old, **new} if key != "logdir" and old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}" for key in keys]


def changed(config: cfg.Config) -> dict[str, Any]:
    """What differs from the defaults, by dotted key, and `task` and `seed` in any case."""
    usual = defaults().flat
    return {
        key: value
        for key, value in config.flat.items()
        if key != "logdir" and (value != usual.get(key) or key in ("task", "seed"))
    }


def make_config(blocks: Sequence[str], overrides: Mapping[str, Any] | None = None) -> cfg.Config:
    """The defaults, changed by blocks in the order given, then by `overrides`."""
    config = defaults()
    for name in blocks:
        config = config.update(load_block(name))
    return config.update(overrides or {})


def load_config(path: str | pathlib.Path) -> cfg.Config:
    """A saved `config.yaml`, checked against today's keys and types; ConfigError names it."""
    values = cfg.load_yaml(path)
    try:
        return defaults().update(values)
    except cfg.ConfigError as error:
        raise cfg.ConfigError(f"{path}: {error}") from error


def parse_args(argv: Sequence[str], command: str = "train") -> Arguments:
    """The configuration that `--configs NAME ... --KEY VALUE ...` asks for.

    Without `--configs`, a run that is in the logdir goes on with its saved configuration, which no
    block may name (an imported one). `--help` prints all keys and `--version` the release; both
    exit. Raises ConfigError for anything that is not accepted, and when `--logdir` is missing.
    """
    if "--help" in argv or "-h" in argv:
        usage.show(help_text(command))
        raise SystemExit(0)
    if "--version" in argv:
        sys.stdout.write(f"{VERSION}\n")
        raise SystemExit(0)
    flags = cfg.split_flags(argv)
    if ("configs", []) in flags:
        raise cfg.ConfigError("--configs has no value; write --configs NAME ...")
    blocks = tuple(word for name, words in flags if name == "configs" for word in words)
    flags = [flag for flag in flags if flag[0] != "configs"]
    config = make_config(blocks or DEFAULT_BLOCKS)
    _check_names(config, [name for name, _ in flags])
    config = config.update_flags(flags)
    if not config.logdir:
        raise cfg.ConfigError("--logdir is missing; write --logdir DIR")
    names = {name for name, _ in flags}
    if {"env", "task"} <= names:
        raise cfg.ConfigError("--env and --task exclude each other: both name what to train on")
    try:
        saved = pathlib.Path(config.logdir).expanduser() / "config.yaml"
    except RuntimeError:
        raise cfg.ConfigError(f"logdir: {config.logdir}, but there is no such user") from None
    if not blocks and saved.is_file():
        return Arguments(_named(load_config(saved).update_flags(flags), names), blocks)
    return Arguments(_named(config, names), blocks or DEFAULT_BLOCKS)


def _named(config: cfg.Config, flags: Collection[str]) -> cfg.Config:
    """`--env` gives the task its name, and `--task` takes the place of an environment before."""
    if "task" in flags:
        return config.update({"env": ""})
    if "env" in flags and config.env:
        return with_env(config, config.env)
    return config


def with_env(config: cfg.Config, env: str) -> cfg.Config:
    """The configuration for an environment of one's own, `MODULE:FUNCTION`."""
    return config.update({"env": env, "task": OWN + env.replace(":", ".")})


def help_text(command: str = "train") -> str:
    """Usage, blocks, and every key: value in the default blocks, meaning, what is accepted."""
    config = make_config(DEFAULT_BLOCKS)
    return usage.help_text(command, config, DEFAULT_BLOCKS, configs_dir())


def key_meanings() -> dict[str, str]:
    """Dotted key -> the comment at the end of its line in the block `defaults`."""
    return usage.key_meanings(configs_dir())


def _check_names(config: cfg.Config, flags: Collection[str]) -> None:
    """ConfigError for a flag that another library has under another name."""
    for name in flags:
        known = name in config.flat or any(key.startswith(name + ".") for key in config.flat)
        other = None if known else usage.alias(name)
        if other:
            raise cfg.ConfigError(f"unknown key {name}; did you mean {other}?")
