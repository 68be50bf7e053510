"""Plays episodes with a trained agent and keeps what its model thought at every step."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from common.envs.base import Env
from common.report.tables import score
from dreamerv2.latent.model import LatentModel, Latents
from dreamerv2.play.episodes import AgentPolicy, Row, episode_seed, play


class Recording(NamedTuple):
    """The observations of several episodes, one after the other, a row each."""

    latents: Latents  # posteriors, as drawn while playing
    most_likely: np.ndarray  # int32 [N, K], the classes that the posteriors favour
    prior_classes: np.ndarray  # int32 [N, K], drawn from the prior of each row
    prior_log_probs: np.ndarray  # float32 [N, K, C]
    images: np.ndarray | None  # uint8 [N, H, W, channels], None where nothing is decoded as image
    ram: np.ndarray | None  # uint8 [N, 128], None where the environment has none
    variables: dict[str, np.ndarray]  # float [N] each, what the game itself knows
    episode: np.ndarray  # int [N], 0, 1, ...
    returns: list[float]  # per episode, as far as it was played
    cut: int  # episodes that were left before their end


def collect(
    model: LatentModel,
    make_env: Callable[[int], Env],
    episodes: int,
    steps: int,
    seed: int,
    show: Callable[[str], None],
) -> Recording:
    """Plays `episodes` episodes, greedily, of at most `steps / episodes` rows each.

    Cutting all alike keeps one long game from being the whole recording. make_env(seed): an
    environment for one episode.
    """
    policy = AgentPolicy(model.agent, "eval")
    played, returns, cut = [], [], 0
    for index in range(episodes):
        number = episode_seed(seed, index)
        env = make_env(number)
        rows = itertools.islice(play(env, policy.episode(number), steps), max(1, steps // episodes))
        played.append(_columns(rows, model, env))
        env.close()
        returns.append(float(played[-1].pop("reward").sum()))
        cut += not played[-1].pop("is_last")[-1]
        length = len(played[-1]["classes"])
        show(f"episode {index + 1} of {episodes}: {length} rows, return {score(returns[-1])}")
    lengths = [len(columns["classes"]) for columns in played]
    arrays = {key: np.concatenate([columns[key] for columns in played]) for key in played[0]}
    latents = Latents(arrays["classes"], arrays["deter"])
    episode = np.repeat(np.arange(episodes), lengths)
    is_first = np.diff(episode, prepend=-1) > 0
    before = np.maximum(0, np.arange(len(episode)) - 1)  # not read where a row is a first one
    prior = model.prior(latents.take(before), arrays["action"][before], is_first, seed)
    return Recording(
        latents,
        arrays["most_likely"],
        *prior,
        arrays.get("image"),
        arrays.get("ram"),
        {k.split("/")[1]: v for k, v in arrays.items() if k.startswith("variable/")},
        episode,
        returns,
        cut,
    )


def _columns(rows: Iterable[Row], model: LatentModel, env: Env) -> dict[str, np.ndarray]:
    """One episode as `[rows, ...]` per key; `action` is what the policy does at the row.

    Variables of the game are under `variable/NAME`; `env` is at the row that `rows` gave last.
    """
    columns = defaultdict(list)
    for obs, action, (latent, _) in rows:
        columns["classes"].append(np.argmax(latent["stoch"][0], -1).astype(np.int32))
        columns["most_likely"].append(np.argmax(latent["logit"][0], -1).astype(np.int32))
        columns["deter"].append(np.asarray(latent["deter"][0], np.float32))
        columns["action"].append(action)
        columns["reward"].append(float(obs["reward"]))
        columns["is_last"].append(bool(obs["is_last"]))
        if model.image_key:
            columns["image"].append(np.array(model.frame(obs)))
        if "ram" in obs:
            columns["ram"].append(np.array(obs["ram"]))
        for name, value in env.variables().items():
            columns[f"variable/{name}"].append(float(value))
    return {key: np.stack(column) for key, column in columns.items()}
