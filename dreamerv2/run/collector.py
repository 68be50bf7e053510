"""Plays the environments of a run: fills replay, counts steps, puts broken episodes aside."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from common.config import Config
from common.data.driver import Driver, Policy, stored_dtype
from common.data.replay import Replay
from common.data.rows import BadRowError, RowCheck
from common.envs.base import Env
from common.envs.wrappers import TimeLimit
from common.log.logger import Logger
from common.log.progress import Stopwatch
from dreamerv2.run.episodes import EpisodeLog
from dreamerv2.run.errors import RunBrokenError

# An evaluation episode is cut here where there is no time_limit; any Atari game ends before, at its
# usual limit of 108,000 frames [agent steps].
ENDLESS = 27_000


class Collector:
    """The environments of a run, played by random actions or by its agent.

    envs, eval_envs: for training and for evaluation; none: no evaluation.
    replays: by mode, `train` and `eval`.
    logger: counts the agent steps of training.
    show(text): prints a line.
    save(): saves the run, before broken episodes end it; returns what can be said of that.

    steps: agent steps of training since they were last set to 0.
    explored: whether the behaviour that explores chose the last action of training.
    """

    def __init__(
        self,
        config: Config,
        envs: Sequence[Env],
        eval_envs: Sequence[Env],
        agent: Any,
        replays: Mapping[str, Replay],
        *,
        episodes: EpisodeLog,
        logger: Logger,
        stopwatch: Stopwatch,
        show: Callable[[str], None],
        save: Callable[[], str],
    ):
        self.steps = 0
        self.explored = False
        self._config, self._agent, self._replays = config, agent, replays
        self._episodes, self._logger, self._stopwatch = episodes, logger, stopwatch
        self._show, self._save = show, save
        self._bad_episodes = 0
        self._lengths = [0] * len(envs)  # of the training episodes under way [agent steps]
        self._driver = self._make_driver("train", [TimedEnv(env, stopwatch) for env in envs], envs)
        # An agent that keeps an endless episode alive would keep the run from going on.
        limited = [TimeLimit(env, config.time_limit or ENDLESS) for env in eval_envs]
        self._eval_driver = self._make_driver("eval", limited, limited) if limited else None

    @property
    def evaluates(self) -> bool:
        """Whether there is an environment for evaluation."""
        return self._eval_driver is not None

    def play(self, policy: Policy) -> None:
        """One step of `policy` in each environment of training."""
        self._driver(policy, steps=1)

    def train(self) -> None:
        """One step of the agent in each environment of training."""
        self._driver(self._train_policy, steps=1)

    def evaluate(self) -> None:
        """One step of the agent's most likely action in the environment of evaluation."""
        assert self._eval_driver is not None
        self._eval_driver(self._eval_policy, steps=1)

    def reset(self, mode: str) -> None:
        """Forgets the episodes of `train` or `eval` that are under way; the next step begins
        others."""
        driver = self._driver if mode == "train" else self._eval_driver
        assert driver is not None
        driver.reset()

    def _make_driver(self, mode: str, played: Sequence[Any], envs: Sequence[Env]) -> Driver:
        precisions = (v for k, v in self._config.flat.items() if k.startswith("precision"))
        half = 16 in precisions  # of all, or of a module
        check = RowCheck(envs[0].obs_space, stored_dtype, half, self._show)
        driver = Driver(played, check)
        driver.on_bad_episode(functools.partial(self._drop_episode, mode))
        if mode == "train":
            driver.on_step(self._count_step)
            driver.on_reset(self._begin_count)
        driver.on_step(self._replays[mode].add_step)
        driver.on_reset(self._replays[mode].add_step)
        driver.on_episode(functools.partial(self._episodes.add, mode))
        return driver

    def _count_step(self, row: Mapping[str, Any], env: int) -> None:
        self._logger.agent_steps += 1
        self.steps += 1
        self._lengths[env] += 1
        if self._lengths[env] == ENDLESS and not self._config.time_limit:
            self._show(
                f"WARNING: a training episode has not ended for {ENDLESS:,} agent steps; "
                "--time_limit N ends episodes after N of them"
            )

    def _begin_count(self, row: Mapping[str, Any], env: int) -> None:
        self._lengths[env] = 0

    def _drop_episode(
        self, mode: str, error: BadRowError, rows: Sequence[Mapping], env: int
    ) -> None:
        """An episode with a bad row is put aside; too many of them end the run."""
        path = self._replays[mode].put_aside(rows, str(error), env)
        self._bad_episodes += 1
        most = self._config.max_bad_episodes
        text = f"a {mode} episode was dropped at its step {len(rows)}: {error}"
        if self._bad_episodes > most:
            raise RunBrokenError(
                f"{text}; the environment is broken: {self._bad_episodes} episodes like this, "
                f"more than max_bad_episodes {most}; {self._save()}; mend it, and the same "
                "command goes on"
            )
        count = f"{self._bad_episodes} of at most {most} (max_bad_episodes)"
        self._show(f"WARNING: {text}; its rows are in {path}; {count}")

    def _train_policy(self, obs, state) -> tuple[np.ndarray, Any]:
        with self._stopwatch("policy"):
            return self._actions(obs, state, "explore" if self._explores() else "train")

    def _explores(self) -> bool:
        """Whether the behaviour that explores acts; says when it stops."""
        config, agent_steps = self._config, self._logger.agent_steps
        now = explores(config, agent_steps)
        if self.explored and not now:
            self._show(
                f"Agent step {agent_steps:,}: {config.expl_behavior} has explored for expl_until "
                f"({config.expl_until:,}) env frames; from here on the behaviour of the task acts."
            )
        self.explored = now
        return now

    def _eval_policy(self, obs, state) -> tuple[np.ndarray, Any]:
        return self._actions(obs, state, "eval")

    def _actions(self, obs, state, mode: str) -> tuple[np.ndarray, Any]:
        outputs, state = self._agent.policy(obs, state, mode)
        return np.asarray(outputs["action"]), state


def explores(config: Config, agent_steps: int) -> bool:
    """Whether the behaviour that explores acts at this agent step of training."""
    if config.expl_behavior == "greedy":
        return False
    return not config.expl_until or agent_steps < config.expl_until // config.action_repeat


class TimedEnv:
    """The part of an environment that a driver uses, with its time taken."""

    def __init__(self, env: Env, stopwatch: Stopwatch):
        self.act_space = env.act_space
        self._env, self._stopwatch = env, stopwatch

    def send(self, action: np.ndarray | None) -> None:
        with self._stopwatch("env"):
            self._env.send(action)

    def receive(self) -> dict[str, np.ndarray]:
        with self._stopwatch("env"):
            return self._env.receive()
