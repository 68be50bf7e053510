"""One of many runs: where it goes, and the command that makes it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.config import Config, ConfigError
from common.data.replay import machine_memory
from dreamerv2.jobs import record
from dreamerv2.run import blocks

# What may differ when a command makes a run go on: how far, and what is kept where.
MAY_CHANGE = (
    *("steps", "replay.memory_gib", "fall_back", "save_every", "keep_checkpoints"),
    *("max_bad_episodes", "video_frames", "wandb"),
)


class Job(NamedTuple):
    """One run to make."""

    logdir: Path
    command: tuple[str, ...]  # the interpreter first; the logdir is a word of its own
    config: Config

    @property
    def name(self) -> str:
        return self.logdir.name

    def read(self) -> record.Run:
        """The run as far as it has come."""
        return record.read_run(self.logdir, self.config)

    @property
    def total_frames(self) -> int:
        """How long the run is to be, env frames."""
        return self.config.steps * self.config.action_repeat

    def progress(self) -> record.Progress:
        """How far it has come, read quickly."""
        return record.progress(self.logdir, self.total_frames)

    @property
    def finished(self) -> bool:
        """Whether it has made the steps that are asked for now."""
        return self.read().finished


def make_job(logdir: Path, flags: Sequence[str], limit: int = 1) -> Job:
    """The job of one run, checked as train checks it.

    flags: those of train, without `--logdir`. limit: runs at the same time on this machine, which
      share the memory that one run would take for its replay.

    Raises:
        ConfigError: a flag that train does not accept, or a run of other settings in the logdir.
    """
    words = [*flags, "--logdir", str(logdir)]
    config = blocks.parse_args(words).config
    if limit > 1 and not config.replay.memory_gib:
        words += memory_share(limit)
        config = blocks.parse_args(words).config
    job = Job(logdir, (sys.executable, "-u", "-m", "dreamerv2.train", *words), config)
    check_same(job)
    return job


def memory_share(runs: int) -> list[str]:
    """The flag that gives a run its part of what this machine has for replays."""
    return ["--replay.memory_gib", f"{machine_memory() / 2 / runs / 2**30:.2f}"]


def check_same(job: Job) -> None:
    """ConfigError where the logdir has a run of other settings; `MAY_CHANGE` are none."""
    saved = job.read().config
    same = {key: saved[key] for key in MAY_CHANGE}
    planned = job.config.update(same)
    changes = blocks.config_changes(saved.nested(), planned.nested())
    if changes:
        raise ConfigError(
            f"{job.logdir} holds a run with other settings ({'; '.join(changes[:3])}); "
            "give the same flags, or another --logdir"
        )
