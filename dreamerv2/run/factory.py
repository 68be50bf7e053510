"""Builds what a run is made of, from a configuration: agent, replay and logger."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.cluster import count_devices, exchange, from_environment, make_strategy
from common.config import Config, dump_yaml
from common.data.replay import Replay, machine_memory
from common.device import import_tensorflow, on_gpu, setup_device
from common.envs.base import Env
from common.log.logger import (
    GIFOutput,
    JSONLOutput,
    Logger,
    Output,
    TerminalOutput,
    Tolerant,
)
from dreamerv2.run import blocks, starts
from dreamerv2.run.check import check, check_split
from dreamerv2.run.metric_groups import metric_group
from dreamerv2.run.reading import who_reads
from dreamerv2.run.runner import Runner
from dreamerv2.run.team import Alone, Team, make_team

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

XLA_NOTE = (
    "Note: --xla true brought an update to a third of its time on the GPU that was measured. The "
    "first update then takes one to two minutes (docs/performance.md)."
)

# TensorFlow takes seconds to import: below, that waits until the quick checks have passed.


def make_runner(
    config: Config, env_factory: Callable[[str, Sequence[int]], Sequence[Env]]
) -> Runner:
    """A run in `config.logdir` on the environments of `env_factory(mode, seeds)`."""
    team = make_team(from_environment()) if config.workers else Alone()
    runner = Runner(
        config,
        make_envs=env_factory,
        make_agent=lambda obs_space, act_space: make_agent(config, obs_space, act_space, team),
        make_replay=lambda mode, seed, agent: make_replay(config, mode, seed, agent, team),
        make_logger=lambda show: make_logger(config, show, team),
        team=team,
    )
    if team.leads:
        try:
            starts.note(Path(config.logdir).expanduser(), runner.step)
        except OSError as error:
            print(f"WARNING: {starts.FILE} was not written ({error})", flush=True)
    return runner


def make_agent(
    config: Config, obs_space: Mapping, act_space: Any, team: Alone | None = None
) -> Any:
    """The agent on the devices that there are; says which, with versions."""
    team = team or Alone()
    check(config, act_space, obs_space, team.size)
    print(setup_device(config.precision), flush=True)
    tf = import_tensorflow()
    kind, count = count_devices(config.devices)
    check_split(config, count, team.size)
    strategy = make_strategy(kind, count, team.cluster, show=lambda text: print(text, flush=True))
    from dreamerv2.agent.agent import Agent
    from dreamerv2.agent.parallel import ParallelAgent

    tf.random.set_seed(config.seed)
    if strategy is None:
        if on_gpu() and config.jit and not config.xla:
            print(XLA_NOTE, flush=True)
        agent = Agent(config, obs_space, act_space)
    else:
        agent = ParallelAgent(config, obs_space, act_space, strategy, team.index)
        shares = count * team.size
        each = config.dataset.batch // shares
        print(f"An update of {shares} {kind} devices, {each} sequences on each", flush=True)
    if isinstance(team, Team):
        team.exchange = exchange(strategy, team.cluster)
    print(who_reads(config, obs_space, agent), flush=True)
    return agent


def make_replay(
    config: Config, mode: str, seed: int, agent: Any, team: Alone | None = None
) -> Replay:
    """`train_episodes/` or `eval_episodes/` of the logdir; the second only serves reports.

    Batches hold what the agent reads; other keys, such as the emulator's RAM, stay on disk. Each
    worker of a team has its share of the capacity, in a folder of its own.
    """
    team = team or Alone()
    directory = team.folder(Path(config.logdir).expanduser()) / f"{mode}_episodes"
    capacity = config.replay.capacity / team.size
    gib = config.replay.memory_gib or machine_memory() / 2 / 2**30
    if mode == "train":
        memory = {"memory_gib": gib * (1 - EVAL_SHARE)}
        settings = {**config.replay, "capacity": capacity, **memory}
    else:
        length = config.dataset.length
        settings = {
            "capacity": capacity * EVAL_SHARE,
            "minlen": min(length, config.replay.minlen),
            "maxlen": length,
            "memory_gib": gib * EVAL_SHARE,
        }
    keys = [*agent.wm.input_keys, "action"]
    spaces = {**agent.obs_space, "action": agent.act_space}
    return Replay(directory, seed=seed, keys=keys, spaces=spaces, **settings)


def make_logger(config: Config, show: Callable[[str], None], team: Alone | None = None) -> Logger:
    """Terminal, `metrics.jsonl`, `videos/`, TensorBoard's event files, and wandb if asked for.

    Files that cannot be written are lost with a warning; a terminal that is gone is an OSError.
    Of a team, worker 0 alone writes.
    """
    if team is not None and not team.leads:
        return Logger([], config.action_repeat)
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
