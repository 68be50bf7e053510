"""Returns of a trained agent over many episodes, beside random play and published scores."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from common.data.driver import Policy, random_policy
from common.device import import_tensorflow
from common.envs.base import Env
from common.report.stats import bootstrap_mean
from common.report.tables import score
from dreamerv2.play.scores import published
from dreamerv2.run import restore
from dreamerv2.run.restore import Saved

# TensorFlow takes seconds to import: below, that waits until the quick checks have passed.

MODES = {"eval": ["eval"], "train": ["train"], "both": ["eval", "train"]}
RESAMPLES = 10_000

MakePolicy = Callable[[int, Env], Policy]  # for the seed of an episode and its environment


class Result(NamedTuple):
    """Episodes played with one policy."""

    returns: list[float]
    lengths: list[int]  # agent steps
    cut: list[int]  # numbers of the episodes that did not end, from 0

    def summary(self, seed: int) -> dict[str, Any]:
        """Returns, lengths and statistics of the returns, as JSON takes them.

        `std` is that of the episodes themselves (not of an estimate from them); `interval` is the
        95% bootstrap interval of the mean, from resampled episodes, and None for a single one.
        """
        low, high = bootstrap_mean(self.returns, resamples=RESAMPLES, seed=seed)
        several = len(self.returns) > 1
        return {
            **self._asdict(),
            "mean": float(np.mean(self.returns)),
            "std": float(np.std(self.returns)),
            "median": float(np.median(self.returns)),
            "interval": [float(low), float(high)] if several else None,
        }


def evaluate(
    make_env: Callable[[int], Env],
    make_policy: MakePolicy,
    episodes: int,
    seed: int = 0,
    max_steps: int = restore.ENDLESS,
    show: Callable[[str], Any] = print,
    cut: bool = False,
) -> Result:
    """Play episodes, each in an environment of its own, so that its seed decides all of it.

    make_env(seed), make_policy(seed, env): for one episode. max_steps: agent steps; an episode that
    is longer raises `EndlessEpisodeError`, or counts as far as it went where `cut` is on. show:
    gets a line per episode.
    """
    from dreamerv2.play.episodes import EndlessEpisodeError, episode_seed, play

    result = Result([], [], [])
    for index in range(episodes):
        number = episode_seed(seed, index)
        env = make_env(number)
        rewards = []
        try:
            for row in play(env, make_policy(number, env), max_steps):
                rewards.append(float(row.obs["reward"]))
        except EndlessEpisodeError:
            if not cut:
                raise
            result.cut.append(index)
        finally:
            env.close()
        result.returns.append(sum(rewards))
        result.lengths.append(len(rewards) - 1)
        show(f"  episode {index + 1:>3}  return {sum(rewards):g}  length {len(rewards) - 1:,}")
    return result


def policies(saved: Saved, mode: str, random: bool) -> dict[str, MakePolicy]:
    """What to play with, by the name that people read.

    mode: a key of `MODES`. random: the random policy as well.
    """
    import_tensorflow()
    from dreamerv2.play.episodes import MODE_NAMES, AgentPolicy, load_agent

    agent = load_agent(saved)
    players = {MODE_NAMES[name]: AgentPolicy(agent, name) for name in MODES[mode]}
    found: dict[str, MakePolicy] = {name: _once(player) for name, player in players.items()}
    if random:
        found["random"] = lambda seed, env: random_policy(env.act_space, seed)
    return found


def _once(player: Any) -> MakePolicy:
    return lambda seed, env: player.episode(seed)


def evaluate_all(
    saved: Saved, policies: Mapping[str, MakePolicy], episodes: int, seed: int, max_steps: int
) -> dict[str, Any]:
    """Plays `episodes` with each policy, prints what they reach, and returns all numbers."""
    config = saved.config
    print(
        f"{saved.path}: {config.task} after {saved.env_frames:,} env frames "
        f"({saved.agent_steps:,} agent steps), seed {seed}"
    )
    report: dict[str, Any] = {
        "task": config.task,
        "checkpoint": str(saved.path),
        "agent_steps": saved.agent_steps,
        "env_frames": saved.env_frames,
        "seed": seed,
    }
    for name, policy in policies.items():
        _say(f"{name} actions" if name != "random" else "random policy")
        result = evaluate(saved.env, policy, episodes, seed, max_steps, _say)
        report[name] = summary = result.summary(seed)
        print(f"  {_sentence(summary)}")
    scores = published(config.task, saved.env_frames)
    if scores:
        print("published for this game")
        for found in scores:
            print(f"  {found.name:25} {found.value:>6g}  {found.protocol}")
    report["published"] = [found._asdict() for found in scores]
    return report


def _sentence(summary: Mapping[str, Any]) -> str:
    """Mean, interval and spread; of a single episode the mean is all that there is."""
    mean = f"mean {score(summary['mean'])}"
    if summary["interval"] is None:
        return mean
    low, high = summary["interval"]
    spread = f"std {score(summary['std'])}, median {score(summary['median'])}"
    return f"{mean} (95% interval {score(low)} to {score(high)}), {spread}"


def _say(line: str) -> None:
    print(line, flush=True)
