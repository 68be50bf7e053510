"""Train an agent: `python -m dreamerv2.train --logdir DIR [--configs NAME ...] [--KEY VALUE ...]`.

The same command again resumes the run in DIR. Exit codes: 0 when `--steps` are done, 1 when the run
broke (a number that is not finite), 2 for a mistake in what was asked for, 128 + number of the
signal (130 for Ctrl-C) when it was stopped, which saves first.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config import Config
from common.envs import make_env
from common.envs.base import Env
from common.logger import GIFOutput, JSONLOutput, Logger, TensorBoardOutput, TerminalOutput
from common.replay import Replay, machine_memory
from dreamerv2 import configs
from dreamerv2.cli import MISTAKES, one_line_errors
from dreamerv2.monitor import NonFiniteError
from dreamerv2.runner import RunError, Runner

# The evaluation's replay holds a tenth of the training's steps, and gets as much of the memory.
EVAL_SHARE = 1 / 10

# TensorFlow takes seconds to import: below, that waits until the quick checks have passed.


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    with one_line_errors(*MISTAKES):
        config = configs.parse_args(argv).config
        runner = make_runner(config, lambda mode, seed: configured_env(config, mode, seed))
    with one_line_errors(RunError, OSError):  # a full disk, for one
        try:
            return runner.run()
        except NonFiniteError as error:
            sys.stderr.write(f"error: {error}\n")
            return 1


def make_runner(config: Config, env_factory: Callable[[str, int], Env | None]) -> Runner:
    """A run in `config.logdir` on the environments of `env_factory(mode, seed)`."""
    return Runner(
        config,
        make_env=env_factory,
        make_agent=lambda obs_space, act_space: make_agent(config, obs_space, act_space),
        make_replay=lambda mode, seed, agent: make_replay(config, mode, seed, agent),
        make_logger=lambda show: make_logger(config, show),
    )


def configured_env(config: Config, mode: str, seed: int) -> Env:
    """The environment that the configuration names; `mode` is `train` or `eval`."""
    return make_env(
        config.task,
        seed=seed,
        mode=mode,
        time_limit=config.time_limit,
        action_repeat=config.action_repeat,
        render_size=config.render_size,
        atari_grayscale=config.atari_grayscale,
        atari_full_actions=config.atari_full_actions,
        atari_backend=config.atari_backend,
        minatar_render=config.minatar_render,
    )


def make_agent(config: Config, obs_space: Mapping, act_space: Any) -> Any:
    """The agent on the device that there is; says which, with versions."""
    from common.device import setup_device

    print(setup_device(config.precision), flush=True)
    import tensorflow as tf

    from dreamerv2.agent import Agent

    tf.random.set_seed(config.seed)
    return Agent(config, obs_space, act_space)


def make_replay(config: Config, mode: str, seed: int, agent: Any) -> Replay:
    """`train_episodes/` or `eval_episodes/` of the logdir; the second only serves reports.

    Batches hold what the agent reads; other keys, such as the emulator's RAM, stay on disk.
    """
    directory = Path(config.logdir).expanduser() / f"{mode}_episodes"
    gib = config.replay.memory_gib or machine_memory() / 2 / 2**30
    if mode == "train":
        settings = {**config.replay, "memory_gib": gib * (1 - EVAL_SHARE)}
    else:
        length = config.dataset.length
        settings = {
            "capacity": config.replay.capacity * EVAL_SHARE,
            "minlen": length,
            "maxlen": length,
            "memory_gib": gib * EVAL_SHARE,
        }
    return Replay(directory, seed=seed, keys=[*agent.wm.input_keys, "action"], **settings)


def make_logger(config: Config, show: Callable[[str], None]) -> Logger:
    """Terminal, `metrics.jsonl`, `videos/` and TensorBoard's event files in the logdir."""
    logdir = Path(config.logdir).expanduser()
    outputs = [
        TerminalOutput(show),
        JSONLOutput(logdir),
        GIFOutput(logdir / "videos"),
        TensorBoardOutput(logdir),
    ]
    return Logger(outputs, config.action_repeat)


if __name__ == "__main__":
    sys.exit(main())
