"""What is logged of each episode that a run has played."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from common.config import Config
from common.data.replay import Replay
from common.log.logger import Logger
from common.log.progress import Progress
from dreamerv2.run.monitor import Successes, crafter_score


class EpisodeLog:
    """Logs return, length, what the keys `log_keys_*` name, and a clip of an evaluation.

    replays: by mode, `train` and `eval`.
    cut_after: agent steps after which evaluation episodes are cut though no `time_limit` asks for
    it; 0: they are not.

    returns: of the evaluation at hand.
    """

    def __init__(
        self,
        config: Config,
        logger: Logger,
        replays: Mapping[str, Replay],
        progress: Progress,
        cut_after: int,
    ):
        self.returns: list[float] = []
        self._config, self._logger, self._progress = config, logger, progress
        self._replays = replays
        self._cut_after = cut_after
        self._successes = {mode: Successes() for mode in replays}

    def add(self, mode: str, episode: Mapping[str, np.ndarray]) -> None:
        """episode: [T, ...] by key; its first row is that of the reset."""
        score = float(episode["reward"].astype(np.float64).sum())
        steps = len(episode["reward"]) - 1
        self._logger.add({"return": score, "length": steps}, prefix=mode)
        self._log_keys(mode, episode)
        self._log_successes(mode, episode)
        self._logger.add(self._replays[mode].stats, prefix=mode)
        if mode == "eval":
            self.returns.append(score)
            if len(self.returns) == 1:
                self._log_clips(episode)
            if 0 < self._cut_after <= steps:
                self._progress.show(
                    f"WARNING: the evaluation episode was cut after {self._cut_after:,} agent "
                    "steps (--time_limit sets another limit)"
                )
        self._logger.write()
        self._progress.episode(mode, score)

    def _log_keys(self, mode: str, episode: Mapping[str, np.ndarray]) -> None:
        config, scalar = self._config, self._logger.scalar
        for key, value in episode.items():
            if re.match(config.log_keys_sum, key):
                scalar(f"sum_{mode}_{key}", value.sum())
            if re.match(config.log_keys_mean, key):
                scalar(f"mean_{mode}_{key}", value.mean())
            if re.match(config.log_keys_max, key):
                scalar(f"max_{mode}_{key}", value.max(0).mean())

    def _log_successes(self, mode: str, episode: Mapping[str, np.ndarray]) -> None:
        pattern = self._config.log_keys_success
        done = {key: value.max() > 0 for key, value in episode.items() if re.match(pattern, key)}
        if done:
            rates = self._successes[mode].add(done)
            self._logger.add({f"success_{mode}_{key}": rate for key, rate in rates.items()})
            self._logger.scalar(f"score_{mode}", crafter_score(list(rates.values())))
            unlocked = sum(rate > 0 for rate in rates.values())
            self._logger.scalar(f"unlocked_{mode}", unlocked)

    def _log_clips(self, episode: Mapping[str, np.ndarray]) -> None:
        for key in self._config.log_keys_video:
            if key in episode and episode[key].ndim == 4:
                clip = episode[key][: self._config.video_frames]
                self._logger.video(f"eval_policy_{key}", clip)

    def state(self) -> dict[str, Any]:
        """The successes so far, as JSON."""
        return {mode: found.state() for mode, found in self._successes.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """See `state`."""
        for mode, found in state.items():
            self._successes[mode].load_state(found)
