"""Whole games in which one variable of the latent always has the same class: what is lost?

The class is the one that the variable has most often. It replaces what is drawn at every step, in
what the policy sees and in what the memory goes on from.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from common.envs.base import Env
from common.nn.draws import Draws, Modes
from common.report.stats import bootstrap_mean, holm, p_value
from dreamerv2.latent.model import LatentModel
from dreamerv2.play.episodes import episode_seed

AT_ONCE = 128  # games side by side, in environments of this process


class Fixed(NamedTuple):
    """Returns of games, `[games]` each; the same game number has the same seed everywhere."""

    free: np.ndarray  # nothing was fixed
    all: np.ndarray  # every variable was
    one: np.ndarray  # [K, games]
    classes: np.ndarray  # int [K], the class that each was fixed to
    usual: np.ndarray  # [K], the share of rows in which the variable has it anyway
    cut: int  # games, of all, that were left before their end


def measure(
    model: LatentModel,
    make_env: Callable[[int], Env],
    counts: np.ndarray,
    games: int,
    steps: int,
    seed: int,
    show: Callable[[str], None],
    at_once: int = AT_ONCE,
) -> Fixed:
    """Plays `games` greedy games, of `steps` agent steps at most, for every variable.

    counts: int `[K, C]`, how often each cell is on when nothing is fixed. at_once: games that are
    played side by side, each in an environment of its own.
    """
    variables = model.variables
    masks = np.concatenate([np.zeros((1, variables)), np.ones((1, variables)), np.eye(variables)])
    masks = np.repeat(masks > 0, games, 0)
    seeds = np.tile([episode_seed(seed, game) for game in range(games)], variables + 2)
    classes = counts.argmax(1)
    returns, cut = [], 0
    for start in range(0, len(masks), at_once):
        chunk = slice(start, start + at_once)
        played, over = play(model, make_env, seeds[chunk], masks[chunk], classes, steps, start)
        returns.append(played)
        cut += int(np.sum(~over))
        show(f"fix: {min(len(masks), start + at_once)} of {len(masks)} games")
    free, every, *one = np.concatenate(returns).reshape(variables + 2, games)
    usual = counts.max(1) / counts.sum(1)
    return Fixed(free, every, np.array(one), classes, usual, cut)


def play(
    model: LatentModel,
    make_env: Callable[[int], Env],
    seeds: Sequence[int] | np.ndarray,
    masks: np.ndarray,
    classes: np.ndarray,
    steps: int,
    number: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `[games]` of games side by side, and which of them came to their end.

    Args:
        masks: bool `[games, K]`, which variables are fixed in each.
        classes: int `[K]`, to what.
        number: of this call; others draw other latents.
    """
    agent = model.agent
    step = _policy_step(model, masks, classes)
    keys = [*agent.wm.encoder.keys, "is_first"]
    returns, over = np.zeros(len(seeds)), np.zeros(len(seeds), bool)
    state = agent.initial_policy_state(len(seeds))
    with contextlib.ExitStack() as stack:
        envs = [stack.enter_context(contextlib.closing(make_env(int(seed)))) for seed in seeds]
        observations = [env.reset() for env in envs]
        for index in range(steps):
            batch = {key: np.stack([obs[key] for obs in observations]) for key in keys}
            action, state = step(batch, state, tf.constant([number, index], tf.int64))
            for game in np.flatnonzero(~over):
                observations[game] = obs = envs[game].step(np.asarray(action[game]))
                returns[game] += obs["reward"]
                over[game] = obs["is_last"]
            if over.all():
                break
    return returns, over


def _policy_step(model: LatentModel, masks: np.ndarray, classes: np.ndarray) -> Callable:
    """`Agent.policy_step` in mode `eval`, with the latent changed before the policy sees it."""
    agent = model.agent
    fixed = tf.one_hot(np.broadcast_to(classes, masks.shape), model.classes)
    where = tf.constant(masks[..., None])

    def step(obs: Mapping[str, tf.Tensor], state, key):
        (latent, action), draws = state, Draws(key)
        embed = agent.wm.encoder(agent.wm.normalize(obs))
        drawn = Modes() if agent.config.eval_state_mean else draws
        latent = agent.wm.rssm.obs_step(latent, action, embed, obs["is_first"], drawn)
        stoch = latent["stoch"]
        latent = {**latent, "stoch": tf.where(where, tf.cast(fixed, stoch.dtype), stoch)}
        action = agent.behavior.actor(agent.wm.feat(latent), draws).mode()
        return action, (latent, action)

    return tf.function(step) if agent.config.jit else step


def summarize(found: Fixed, seed: int) -> dict:
    """The numbers of `report.json`; intervals of 95 %, losses over games of equal seeds."""
    mean_low, mean_high = bootstrap_mean(found.free, seed=seed)
    losses = [bootstrap_mean(found.free - returns, seed=seed) for returns in found.one]
    chances = [p_value(found.free - returns) for returns in found.one]
    known = [chance for chance in chances if chance is not None]
    return {
        "games": len(found.free),
        "games_cut": found.cut,
        "free": {"mean": float(found.free.mean()), "interval": [float(mean_low), float(mean_high)]},
        "all_fixed_mean": float(found.all.mean()),
        "classes": found.classes.tolist(),
        "usual_fraction": found.usual.round(4).tolist(),
        "loss": (found.free - found.one).mean(1).round(4).tolist(),
        "loss_interval": [[float(low), float(high)] for low, high in losses],
        # Of as many variables some lose points by chance; None for too few games.
        "p_adjusted": holm(known) if known else [None] * len(chances),
    }
