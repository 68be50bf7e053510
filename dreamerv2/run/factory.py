"""Builds what a run is made of, from a configuration: environment, agent, replay and logger."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.config import Config, dump_yaml
from common.data.replay import Replay, machine_memory
from common.device import import_tensorflow, setup_device
from common.envs import Settings, make_env, make_envs
from common.envs.base import Env
from common.log.logger import (
    GIFOutput,
    JSONLOutput,
    Logger,
    Output,
    TerminalOutput,
    Tolerant,
)
from dreamerv2.run import blocks, own
from dreamerv2.run.check import check
from dreamerv2.run.metric_groups import metric_group
from dreamerv2.run.reading import who_reads
from dreamerv2.run.runner import Runner

# What the terminal shows, in this order; everything is in metrics.jsonl.
TERMINAL_METRICS = (
    "train_return",
    "train_length",
    "eval_return",
    "eval_length",
    "model_loss",
    "image_loss",
    "kl_loss",
    "actor_ent",
    "critic",
    "updates",
    "fps",
)

# The evaluation's replay holds a tenth of the training's steps, and gets as much of the memory.
EVAL_SHARE = 1 / 10

# TensorFlow takes seconds to import: below, that waits until the quick checks have passed.


def make_runner(
    config: Config, env_factory: Callable[[str, Sequence[int]], Sequence[Env]]
) -> Runner:
    """A run in `config.logdir` on the environments of `env_factory(mode, seeds)`."""
    return Runner(
        config,
        make_envs=env_factory,
        make_agent=lambda obs_space, act_space: make_agent(config, obs_space, act_space),
        make_replay=lambda mode, seed, agent: make_replay(config, mode, seed, agent),
        make_logger=lambda show: make_logger(config, show),
    )


def configured_env(config: Config, mode: str, seed: int) -> Env:
    """The environment that the configuration names; `mode` is `train` or `eval`."""
    return make_env(named_env(config), seed=seed, mode=mode, **env_settings(config))


def configured_envs(config: Config, mode: str, seeds: Sequence[int]) -> list[Env]:
    """One per seed; where there are several, each works in a process of its own."""
    return prepared_envs(config, named_env(config), mode, seeds)


def prepared_envs(config: Config, env: Any, mode: str, seeds: Sequence[int]) -> list[Env]:
    """An environment, by the name of its task or as an object, as often as there are seeds."""
    return make_envs(env, seeds, mode=mode, **env_settings(config))


def named_env(config: Config) -> Any:
    """What `common.envs.make_env` takes first: a new object of the user's own, or a task's name."""
    return own.make(config.env) if config.env else config.task


def env_settings(config: Config) -> dict[str, Any]:
    """What `common.envs.make_env` takes besides that, seed and mode."""
    names = ["time_limit", *(field.name for field in dataclasses.fields(Settings))]
    return {name: config[name] for name in names}


def make_agent(config: Config, obs_space: Mapping, act_space: Any) -> Any:
    """The agent on the device that there is; says which, with versions."""
    check(config, act_space)
    print(setup_device(config.precision), flush=True)
    tf = import_tensorflow()
    from dreamerv2.agent.agent import Agent

    tf.random.set_seed(config.seed)
    agent = Agent(config, obs_space, act_space)
    print(who_reads(config, obs_space, agent), flush=True)
    return agent


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
            "minlen": min(length, config.replay.minlen),
            "maxlen": length,
            "memory_gib": gib * EVAL_SHARE,
        }
    return Replay(directory, seed=seed, keys=[*agent.wm.input_keys, "action"], **settings)


def make_logger(config: Config, show: Callable[[str], None]) -> Logger:
    """Terminal, `metrics.jsonl`, `videos/`, TensorBoard's event files, and wandb if asked for.

    Files that cannot be written are lost with a warning; a terminal that is gone is an OSError.
    """
    logdir = Path(config.logdir).expanduser()
    outputs: list[Output] = [
        TerminalOutput(show, TERMINAL_METRICS),
        Tolerant("metrics.jsonl", lambda: JSONLOutput(logdir), show),
        Tolerant("videos/", lambda: GIFOutput(logdir / "videos"), show),
        Tolerant("TensorBoard's event file", lambda: _tensorboard(config, logdir), show),
    ]
    if config.wandb:
        from common.log.weights_and_biases import WandbOutput

        # Made at once: a package that is missing is said before the run begins.
        cloud = WandbOutput(config.wandb, logdir, metric_group, config.nested())
        outputs.append(Tolerant("Weights & Biases", lambda: cloud, show))
    return Logger(outputs, config.action_repeat)


def _tensorboard(config: Config, logdir: Path) -> Output:
    from common.log.tensorboard import TensorBoardOutput

    return TensorBoardOutput(
        logdir,
        group=metric_group,
        texts={"configuration": f"```yaml\n{dump_yaml(config.nested())}```"},
        hparams=blocks.changed(config),
    )
