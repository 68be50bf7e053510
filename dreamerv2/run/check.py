"""What keys must be to each other and to the environment, checked before anything is built."""

from typing import Any

from common.config import Config, ConfigError
from common.data.replay import machine_memory
from common.data.spaces import is_discrete

# Parameters, gradients and the two moments of Adam, float32.
BYTES_PER_PARAMETER = 4 * 4


def check(config: Config, act_space: Any) -> None:
    """ConfigError for values that cannot work together; the message names the keys."""
    _check_lengths(config)
    _check_actor(config, act_space)
    _check_memory(config, act_space)


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


def _check_memory(config: Config, act_space: Any) -> None:
    """The RSSM is where a width too many costs most: its layers grow with products of widths."""
    rssm = config.rssm
    latent = rssm.stoch * (rssm.discrete or 1)
    parameters = (
        (latent + act_space.shape[0]) * rssm.hidden
        + 3 * (rssm.hidden + rssm.deter) * rssm.deter
        + (1 + rssm.ensemble) * (rssm.deter + 2 * latent) * rssm.hidden
    )
    needed, there = parameters * BYTES_PER_PARAMETER, machine_memory()
    if needed > there:
        raise ConfigError(
            f"rssm: layers of stoch {rssm.stoch}, discrete {rssm.discrete}, deter {rssm.deter}, "
            f"hidden {rssm.hidden} take {needed / 2**30:,.0f} GiB with gradients and moments; "
            f"this machine has {there / 2**30:,.0f} GiB"
        )
