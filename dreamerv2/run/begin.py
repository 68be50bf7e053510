"""A new run that begins with the networks of a trained agent: `--start_from DIR`."""

from collections.abc import Mapping
from typing import Any

from common.config import ConfigError
from dreamerv2.run import restore, shipped

OPTIONAL = "expl/"  # networks that only exploring needs; an agent that does not explore has none


def take_networks(agent: Any, source: str) -> str:
    """Gives a new agent the networks of another one, and says which.

    Moments, loss scales and counters stay those of a new agent, and networks stay new that the
    other agent lacks. The slow critic becomes a copy of the critic with the first update.

    source: a logdir, the file of an exported agent, or the name of one that comes with the project.

    Raises:
        ConfigError: there is no such agent, or a network of it does not fit; nothing is changed.
    """
    try:
        saved = restore.read(source)
        new = agent.state_dict()
        found = shipped.acting(saved.variables)
        taken = {k: v for k, v in found.items() if k in new or not k.startswith(OPTIONAL)}
        networks = set(map(network, taken))
        rest = {k: v for k, v in new.items() if network(k) not in networks}
        agent.load_state_dict({**rest, **taken})
    except ValueError as error:
        raise ConfigError(f"start_from: {source}: {error}") from error
    text = f"Begins with networks of {source}, agent step {saved.agent_steps:,}: {_names(taken)}"
    others = _names(shipped.acting(rest))
    return text + (f"; new: {others}" if others else "")


def check_resumed(now: str, saved: Mapping[str, Any]) -> None:
    """ConfigError where a run that has begun is asked to start from an agent.

    saved: the configuration that it has begun with.
    """
    if now and now != saved.get("start_from", ""):
        raise ConfigError(f"start_from: {now}: this run has begun already; take another logdir")


def network(name: str) -> str:
    """The network that a variable is part of, such as `wm/encoder`."""
    return "/".join(name.split("/")[:2])


def _names(variables: Mapping[str, Any]) -> str:
    """Networks in their order, without the parts that they belong to."""
    return ", ".join(dict.fromkeys(network(name).rpartition("/")[2] for name in variables))
