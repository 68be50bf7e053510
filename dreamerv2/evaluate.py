"""Play episodes with a trained agent: `python -m dreamerv2.evaluate --logdir DIR`.

Needs only the checkpoint. Exit codes: 0, or 2 for a mistake in what was asked for, an episode that
does not end included.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.commands import MISTAKES, Parser, at_least, one_line_errors
from common.data.driver import Policy, random_policy
from common.envs.base import Env
from common.files import write_atomically
from dreamerv2.play.scores import published
from dreamerv2.run import restore
from dreamerv2.run.restore import Saved

MODES = {"eval": ["eval"], "train": ["train"], "both": ["eval", "train"]}
RESAMPLES = 10_000


class Result(NamedTuple):
    """Episodes played with one policy."""

    returns: list[float]
    lengths: list[int]  # agent steps

    def summary(self, seed: int) -> dict[str, Any]:
        """Returns, lengths and statistics of the returns, as JSON takes them.

        `std` is that of the episodes themselves (not of an estimate from them); `interval` is the
        95% bootstrap interval of the mean, from resampled episodes.
        """
        low, high = bootstrap_mean(self.returns, seed)
        return {
            **self._asdict(),
            "mean": float(np.mean(self.returns)),
            "std": float(np.std(self.returns)),
            "median": float(np.median(self.returns)),
            "interval": [low, high],
        }


def bootstrap_mean(values: Sequence[float], seed: int) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of the mean of `values` drawn anew with replacement."""
    draws = np.random.default_rng(seed).choice(values, (RESAMPLES, len(values)))
    low, high = np.percentile(draws.mean(1), [2.5, 97.5])
    return float(low), float(high)


def evaluate(
    make_env: Callable[[int], Env],
    make_policy: Callable[[int, Env], Policy],
    episodes: int,
    seed: int = 0,
    max_steps: int = restore.ENDLESS,
    show: Callable[[str], Any] = print,
) -> Result:
    """Play episodes, each in an environment of its own, so that its seed decides all of it.

    make_env(seed), make_policy(seed, env): for one episode. max_steps: agent steps; an episode that
    is longer raises `EndlessEpisodeError`. show: gets a line per episode.
    """
    from dreamerv2.play.episodes import episode_seed, play

    result = Result([], [])
    for index in range(episodes):
        number = episode_seed(seed, index)
        env = make_env(number)
        try:
            rows = play(env, make_policy(number, env), max_steps)
            rewards = [float(row.obs["reward"]) for row in rows]
        finally:
            env.close()
        result.returns.append(sum(rewards))
        result.lengths.append(len(rewards) - 1)
        show(f"  episode {index + 1:>3}  return {sum(rewards):g}  length {len(rewards) - 1:,}")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = _parser().parse_args(argv)
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
        saved = restore.read(args.logdir, args.checkpoint)
        saved.env(args.seed).close()
        policies = _policies(saved, args)
    from dreamerv2.play.episodes import EndlessEpisodeError

    with one_line_errors(EndlessEpisodeError, OSError):
        report = _run(saved, args, policies)
        if args.json:
            with write_atomically(args.json) as file:
                file.write(json.dumps(report, indent=2).encode() + b"\n")
    return 0


def _parser() -> Parser:
    parser = Parser("evaluate", "Play episodes with a trained agent.")
    parser.add_argument("--episodes", type=at_least(1), default=10, help="per policy")
    parser.add_argument(
        "--mode",
        choices=list(MODES),
        default="both",
        help="eval: the most likely actions; train: sampled ones; both: one after the other",
    )
    parser.add_argument("--random", action="store_true", help="play the random policy as well")
    parser.add_argument(
        "--max-steps",
        type=at_least(1),
        help="an episode of more agent steps is an error; None: the run's time_limit or 27000",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    return parser


def _policies(saved: Saved, args: Any) -> dict[str, Callable[[int, Env], Policy]]:
    """What to play with, by the name that people read."""
    from dreamerv2.play.episodes import MODE_NAMES, AgentPolicy, load_agent

    agent = load_agent(saved)
    players = {MODE_NAMES[mode]: AgentPolicy(agent, mode) for mode in MODES[args.mode]}
    policies = {name: lambda seed, env, p=p: p.episode(seed) for name, p in players.items()}
    if args.random:
        policies["random"] = lambda seed, env: random_policy(env.act_space, seed)
    return policies


def _run(saved: Saved, args: Any, policies: dict[str, Callable]) -> dict[str, Any]:
    config = saved.config
    print(
        f"{saved.path}: {config.task} after {saved.env_frames:,} env frames "
        f"({saved.agent_steps:,} agent steps), seed {args.seed}"
    )
    report: dict[str, Any] = {
        "task": config.task,
        "checkpoint": str(saved.path),
        "agent_steps": saved.agent_steps,
        "env_frames": saved.env_frames,
        "seed": args.seed,
    }
    for name, policy in policies.items():
        print(f"{name} actions" if name != "random" else "random policy", flush=True)
        result = evaluate(
            saved.env,
            policy,
            args.episodes,
            args.seed,
            args.max_steps or saved.max_steps,
            lambda line: print(line, flush=True),
        )
        report[name] = summary = result.summary(args.seed)
        low, high = summary["interval"]
        print(
            f"  mean {summary['mean']:.4g} (95% interval {low:.4g} to {high:.4g}), "
            f"std {summary['std']:.4g}, median {summary['median']:.4g}"
        )
    scores = published(config.task, saved.env_frames)
    if scores:
        print("published for this game")
        for score in scores:
            print(f"  {score.name:25} {score.value:>6g}  {score.protocol}")
    report["published"] = [score._asdict() for score in scores]
    return report


if __name__ == "__main__":
    sys.exit(main())
