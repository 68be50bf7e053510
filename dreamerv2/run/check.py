"""What keys must be to each other and to the environment, checked before anything is built."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.config import Config, ConfigError
from common.data.replay import machine_memory, row_bytes
from common.data.spaces import is_discrete, matching_keys

FLOAT32 = 4  # bytes
# Parameters, gradients and the two moments of Adam.
BYTES_PER_PARAMETER = 4 * FLOAT32


def check(config: Config, act_space: Any, obs_space: Mapping[str, Any], workers: int = 1) -> None:
    """ConfigError for values that cannot work together; the message names the keys.

    workers: machines that share each batch.
    """
    _check_unread(config)
    _check_lengths(config)
    _check_actor(config, act_space)
    _check_reward_head(config, act_space)
    _check_memory(config, act_space, obs_space, workers)


def check_split(config: Config, devices: int, workers: int) -> None:
    """ConfigError for a batch of which not every device can have the same share."""
    batch, shares = config.dataset.batch, devices * workers
    if batch % shares:
        found = f"{workers} workers" if workers > 1 else f"{devices} devices"
        each = f" with {devices} devices each" if workers > 1 and devices > 1 else ""
        raise ConfigError(
            f"dataset.batch: {batch} cannot be split over {found}{each}; expected a multiple of "
            f"{shares}"
        )


def _check_unread(config: Config) -> None:
    """Keys that nobody would read without another one."""
    if config.decoder.image_weights and not config.encoder.image_stats:
        raise ConfigError("decoder.image_weights: true needs encoder.image_stats true")
    for name in ("encoder", "decoder"):
        if config[name].image_scales > 1 and config[name].image_net != "mlp":
            raise ConfigError(
                f"{name}.image_scales: {config[name].image_scales} needs {name}.image_net mlp"
            )
    if config.xla and not config.jit:
        raise ConfigError("xla: true needs jit true")


def _check_lengths(config: Config) -> None:
    shortest, limit, longest = config.replay.minlen, config.time_limit, config.replay.maxlen
    if 0 < limit < shortest:
        raise ConfigError(
            f"time_limit: {limit} cuts every episode below replay.minlen {shortest}, and none "
            "would be kept; raise the one or lower the other"
        )
    if 0 < longest < shortest:
        raise ConfigError(
            f"replay.maxlen: {longest} is below replay.minlen {shortest}; raise the one or lower "
            "the other"
        )


def _check_actor(config: Config, act_space: Any) -> None:
    discrete = is_discrete(act_space)
    fitting = ("auto", "onehot") if discrete else ("auto", "trunc_normal", "normal", "tanh_normal")
    if config.actor.dist not in fitting:
        kind = "discrete" if discrete else "continuous"
        raise ConfigError(
            f"actor.dist: {config.actor.dist} does not fit the {kind} actions of this "
            f"environment; expected {' or '.join(fitting)}"
        )


def _check_reward_head(config: Config, act_space: Any) -> None:
    """The mode of a Bernoulli is 0 or 1, and has no gradient."""
    grad = config.actor_grad
    dynamics = grad in ("dynamics", "both") or grad == "auto" and not is_discrete(act_space)
    if config.reward_head.dist == "binary" and dynamics:
        raise ConfigError(
            f"reward_head.dist: binary does not go with actor_grad {grad}, which needs the "
            "gradient of the predicted reward; expected mse or normal"
        )


def _check_memory(
    config: Config, act_space: Any, obs_space: Mapping[str, Any], workers: int
) -> None:
    """A width too many costs most where layers grow with the square of it."""
    there = machine_memory()
    sizes = _parameters(config, act_space)
    needed = sum(sizes.values()) * BYTES_PER_PARAMETER
    if needed > there:
        largest = max(sizes, key=sizes.__getitem__)
        raise ConfigError(
            f"{largest}: layers of {_widths(config[largest])} take {_gib(needed)} GiB with "
            f"gradients and moments; this machine has {_gib(there)} GiB"
        )
    rows = config.dataset.batch // workers * config.dataset.length
    needed = rows * _row_bytes(config, obs_space)
    if needed > there:
        raise ConfigError(
            f"dataset: an update on batch {config.dataset.batch} of length {config.dataset.length} "
            f"takes {_gib(needed)} GiB or more; this machine has {_gib(there)} GiB"
        )


def _row_bytes(config: Config, obs_space: Mapping[str, Any]) -> int:
    """What an update holds at least for each row of the batch.

    The observations that the agent reads, as they are stored and as what is computed in, those that
    it predicts as predictions, and the states that are imagined from it.
    """
    number = FLOAT32 if config.precision in (32, "tf32") else FLOAT32 // 2
    read, predicted = (
        matching_keys(obs_space, config[name].mlp_keys, 1)
        | matching_keys(obs_space, config[name].cnn_keys, 3)
        for name in ("encoder", "decoder")
    )
    stored = sum(row_bytes(obs_space[key]) for key in read | predicted)
    observed = sum(map(math.prod, (*read.values(), *predicted.values())))
    state = config.rssm.deter + config.rssm.stoch * (config.rssm.discrete or 1)
    return stored + number * (observed + config.imag_horizon * state)


def _parameters(config: Config, act_space: Any) -> dict[str, int]:
    """About how many numbers each part of the agent learns, by the key of its section.

    Layers on top of the state count for the RSSM, whose widths they grow with.
    """
    rssm, encoder, decoder = config.rssm, config.encoder, config.decoder
    heads = ["reward_head", "discount_head", "actor", "critic"]
    heads += ["expl_head"] if config.expl_behavior != "greedy" else []
    latent = rssm.stoch * (rssm.discrete or 1)
    above = 32 * decoder.cnn_depth + sum(decoder.mlp_layers[:1])
    above += sum(config[name].units for name in heads)
    return {
        "rssm": (latent + act_space.shape[0]) * rssm.hidden
        + 3 * (rssm.hidden + rssm.deter) * rssm.deter
        + (1 + rssm.ensemble) * (rssm.deter + 2 * latent) * rssm.hidden
        + (latent + rssm.deter) * above,
        "encoder": _layers(encoder.mlp_layers) + _convolutions(encoder),
        "decoder": _layers(decoder.mlp_layers) + _convolutions(decoder),
        **{name: max(0, config[name].layers - 1) * config[name].units ** 2 for name in heads},
    }


def _layers(widths: Sequence[int]) -> int:
    """Weights of dense layers, one after the other."""
    return sum(one * other for one, other in itertools.pairwise(widths))


def _convolutions(net: Config) -> int:
    """Weights of convolutions, each with twice the channels of the one before, or half as many."""
    kernels = net.cnn_kernels
    channels = [3, *(net.cnn_depth * 2**i for i in range(len(kernels)))]
    return sum(k**2 * c * d for k, c, d in zip(kernels, channels, channels[1:], strict=False))


def _widths(section: Config) -> str:
    """The widths in a section: `deter 1024, hidden 1024`."""
    names = ("stoch", "discrete", "deter", "hidden", "layers", "units", "mlp_layers", "cnn_depth")
    return ", ".join(f"{name} {section[name]}" for name in names if name in section)


def _gib(size: float) -> str:
    return f"{size / 2**30:,.0f}"
