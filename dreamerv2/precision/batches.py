"""The batches of an audit: from the episodes of the run, or from new ones that its agent plays."""

import contextlib
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from common.data.replay import Replay
from dreamerv2.agent.agent import Agent
from dreamerv2.play.episodes import AgentPolicy, episode_seed, play
from dreamerv2.run.collector import explores
from dreamerv2.run.restore import Saved

Arrays = dict[str, np.ndarray]


def from_run(logdir: Path, saved: Saved, agent: Agent, count: int) -> list[Arrays]:
    """`count` batches as training would draw them from the run's episodes; ValueError where these
    are not what the agent was trained on."""
    directory = logdir / "train_episodes"
    if not directory.is_dir():
        raise ValueError(
            f"{directory} does not exist: an audit needs the episodes of the run, or --play N"
        )
    return _draw(_replay(directory, saved, agent), saved, count)


def from_play(
    saved: Saved, agent: Agent, agent_steps: int, count: int, show: Callable[[str], None]
) -> tuple[list[Arrays], dict[str, Any]]:
    """`count` batches from new episodes, played as in training.

    The last episode is played to its end, so that there are `agent_steps` or a few more.

    Returns:
        (batches, played): `played` has `agent_steps`, `episodes` and `mean_return`.

    Raises:
        ValueError: no episode was long enough for `replay.minlen`, or one did not end.
    """
    with tempfile.TemporaryDirectory() as directory:
        replay = _replay(Path(directory), saved, agent)
        played = _play(saved, agent, agent_steps, replay, show)
        if not replay.stats["loaded_episodes"]:
            raise ValueError(
                f"--play {agent_steps}: none of {played['episodes']} episodes has "
                f"{saved.config.replay.minlen} agent steps (replay.minlen); write a larger number"
            )
        return _draw(replay, saved, count), played


def _play(saved, agent, agent_steps, replay, show):
    """Adds episodes to a replay, each a function of its seed alone."""
    mode = "explore" if explores(saved.config, saved.agent_steps) else "train"
    policy = AgentPolicy(agent, mode)
    done, returns = 0, list[float]()
    while done < agent_steps:
        seed = episode_seed(saved.config.seed, len(returns))
        rewards = []
        with contextlib.closing(saved.env(seed, "train")) as env:
            action = np.zeros(env.act_space.shape, np.float32)
            for row in play(env, policy.episode(seed), saved.max_steps):
                replay.add_step({**row.obs, "action": action})  # the action that led to this row
                action = row.action
                rewards.append(float(row.obs["reward"]))
        tenths = 10 * done // agent_steps
        done += len(rewards) - 1
        returns.append(sum(rewards))
        if 10 * done // agent_steps > tenths:
            mean = float(np.mean(returns))
            show(f"played {done:,} of {agent_steps:,} agent steps, mean return {mean:.4g}")
    return {
        "agent_steps": done,
        "episodes": len(returns),
        "mean_return": float(np.mean(returns)),
    }


def _replay(directory: Path, saved: Saved, agent: Agent) -> Replay:
    config = saved.config
    sampling = {k: config.replay[k] for k in ("minlen", "maxlen", "prioritize_ends")}
    keys = [*agent.wm.input_keys, "action"]
    spaces = {**agent.obs_space, "action": agent.act_space}
    return Replay(directory, 0, seed=config.seed, keys=keys, spaces=spaces, **sampling)


def _draw(replay: Replay, saved: Saved, count: int) -> list[Arrays]:
    return list(islice(replay.batches(**saved.config.dataset), count))
