"""Trained agents from their checkpoints; nothing else of a run is needed."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium
import numpy as np

from common import checkpoint
from common.config import Config, ConfigError
from common.data.spaces import is_discrete
from common.device import use_tensor_float_32
from common.envs.base import Env
from common.envs.wrappers import describe
from dreamerv2.run import blocks, shipped, snapshot
from dreamerv2.run.collector import ENDLESS

if TYPE_CHECKING:
    from dreamerv2.agent.agent import Agent


class Saved(NamedTuple):
    """A checkpoint of a run, read and checked."""

    path: Path
    config: Config
    agent_steps: int
    obs_space: dict[str, gymnasium.spaces.Box]
    act_space: gymnasium.spaces.Box
    action_names: tuple[str, ...] | None
    variables: dict[str, np.ndarray]
    meta: dict[str, Any]
    make_env: Callable[[int], Env] | None = None  # by seed; None: the environment of the task

    @property
    def env_frames(self) -> int:
        return self.agent_steps * self.config.action_repeat

    @property
    def max_steps(self) -> int:
        """Agent steps after which an episode is taken for endless."""
        return self.config.time_limit or ENDLESS

    def agent(self) -> "Agent":
        """The agent; ValueError when what was saved does not fit its own configuration."""
        use_tensor_float_32(self.config.precision)  # imports TensorFlow, which takes seconds
        from dreamerv2.agent.agent import Agent

        agent = Agent(self.config, self.obs_space, self.act_space)
        variables = self.variables
        if self.meta.get("acting_only"):
            # What only training needs stays as it is in a new agent.
            rest = agent.state_dict()
            variables = {k: v for k, v in rest.items() if k not in shipped.acting(rest)} | variables
        try:
            agent.load_state_dict(variables)
        except ValueError as error:
            raise checkpoint.CheckpointError(f"{self.path}: {error}") from error
        agent.agent_steps = self.agent_steps
        return agent

    def env(self, seed: int, mode: str = "eval") -> Env:
        """A new environment of the agent's task, as for evaluation or, with `train`, training.

        Raises ValueError when the task cannot be made, or is not what the agent was trained on.
        """
        from dreamerv2.run.environments import configured_env

        make = self.make_env or functools.partial(configured_env, self.config, mode)
        env = make(seed)
        problem = difference(self.obs_space, self.act_space, env)
        if problem:
            env.close()
            raise ValueError(
                f"{self.config.env or f'task {self.config.task}'} is not what this agent was "
                f"trained on: {problem}"
            )
        return env

    def with_env(self, env: str | None) -> "Saved":
        """The same agent, to play in an environment of one's own, `MODULE:FUNCTION`."""
        return self._replace(config=blocks.with_env(self.config, env)) if env else self


def load(logdir: str | Path, agent_steps: int | None = None) -> "Agent":
    """The agent of a run's latest checkpoint, or of the one at `agent_steps`.

    `logdir` may also be an exported agent: its file, `NAME.npz`, or the name of one that comes with
    the project, such as `minatar`. The agent acts (`act`) and dreams (`dream`); that of a run can
    be trained further. Raises ValueError when there is no such checkpoint, or it is damaged.
    """
    return read(logdir, agent_steps).agent()


def read(logdir: str | Path, agent_steps: int | None = None) -> Saved:
    """The latest checkpoint in `logdir`, or that of `agent_steps`; ValueError as `load`."""
    return read_file(_find(Path(logdir).expanduser(), agent_steps))


def folder(logdir: Path) -> Path:
    """Where a command puts what it makes: in the run, or in a folder beside the agent's file."""
    return logdir.with_suffix("") if logdir.is_file() else logdir


def read_file(path: Path) -> Saved:
    """A checkpoint by its path; ValueError as `load`."""
    arrays, meta = checkpoint.load(path)
    snapshot.check(path, arrays, meta)
    variables = snapshot.below("agent", arrays)
    try:
        config = blocks.defaults().update(meta["config"])
    except ConfigError as error:
        raise checkpoint.CheckpointError(f"{path}: its configuration: {error}") from error
    try:
        obs_space, act_space = snapshot.restore_spaces(meta["spaces"])
        names = tuple(map(str, meta.get("action_names") or ())) or None
        if names and is_discrete(act_space) and len(names) != act_space.shape[0]:
            raise ValueError(f"{len(names)} names of {act_space.shape[0]} actions")
    except (*checkpoint.DAMAGE, TypeError, IndexError, AttributeError, AssertionError) as error:
        raise checkpoint.CheckpointError(f"{path}: its spaces are damaged ({error})") from error
    return Saved(path, config, meta["agent_steps"], obs_space, act_space, names, variables, meta)


def of_agent(agent: "Agent", make_env: Callable[[int], Env]) -> Saved:
    """An agent that is there already, to play in the environments of `make_env(seed)`."""
    act_space = agent.act_space
    names, variables = None, dict[str, np.ndarray]()
    steps = agent.agent_steps
    config, obs_space = agent.config, agent.obs_space
    return Saved(Path(), config, steps, obs_space, act_space, names, variables, {}, make_env)


def _find(logdir: Path, agent_steps: int | None) -> Path:
    """The file of a run's checkpoint, or of an agent that was exported or is shipped."""
    directory = logdir / "checkpoints"
    if logdir.suffix == ".npz" and logdir.is_file():
        named: Path | None = logdir
    else:
        named = None if directory.is_dir() else shipped.find(str(logdir))
    if named is None:
        try:
            return checkpoint.Checkpoints(directory, keep=1).path(agent_steps)
        except checkpoint.CheckpointError as error:
            if directory.is_dir() or not shipped.names():
                raise
            known = ", ".join(shipped.names())
            message = f"{error}, and no agent of that name comes with the project ({known})"
            raise checkpoint.CheckpointError(message) from None
    if agent_steps is not None:
        raise checkpoint.CheckpointError(
            f"checkpoint {agent_steps}: {logdir} is one agent; only a run has several checkpoints"
        )
    return named


def difference(obs_space: Mapping[str, Any], act_space: Any, env: Env) -> str | None:
    """In which of its spaces an environment is another one than expected; None for no such."""
    for key, space in obs_space.items():
        expected = describe(space)
        found = describe(env.obs_space[key]) if key in env.obs_space else "nothing"
        if found != expected:
            return f"observation {key!r} was {expected}, and is {found}"
    expected, found = (
        f"{'one-hot' if is_discrete(s) else 'continuous'} {list(s.shape)}"
        for s in (act_space, env.act_space)
    )
    return None if found == expected else f"the action was {expected}, and is {found}"
