"""A loaded agent and all that the sessions on it share."""

import contextlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.checkpoint import CheckpointError, Checkpoints
from common.data.driver import random_policy
from common.envs.base import Env
from dreamerv2.agent.agent import Agent
from dreamerv2.dream import pictures
from dreamerv2.dream.controls import Controls, controls
from dreamerv2.dream.engine import FREE, Draw, Engine
from dreamerv2.dream.episodes import Episodes
from dreamerv2.dream.pictures import Painter
from dreamerv2.play.episodes import load_agent
from dreamerv2.run.restore import Saved

LOOKED_AT = 200  # agent steps from which the scale of a vector's picture is taken


class Start(NamedTuple):
    """Where a timeline starts: at a reset of the game with a seed, or at a stored moment."""

    seed: int = 0
    episode: str | None = None
    row: int = 0


class World(NamedTuple):
    """What a page shows, whoever looks at it."""

    saved: Saved
    agent: Agent
    engine: Engine
    painter: Painter
    controls: Controls
    episodes: Episodes
    seed: int  # of the first reset, and of the draws
    game_problem: str | None  # why the game itself cannot be played, if it cannot

    def env(self, seed: int) -> Env:
        """A new environment for one session."""
        return self.saved.env(seed)

    @property
    def first_start(self) -> Start:
        """Where a page starts when nothing else is asked for."""
        return (
            Start(episode=self.episodes.listed()[0].name) if self.game_problem else Start(self.seed)
        )

    @property
    def free(self) -> np.ndarray:
        """No variable held, int32 `[variables]`."""
        return np.full(self.engine.variables, FREE, np.int32)

    def newer_checkpoint(self) -> int | None:
        """Agent steps of the run's newest checkpoint, if that is not the one that was loaded."""
        try:
            latest = Checkpoints(self.saved.path.parent, keep=1).latest()
        except (CheckpointError, OSError):
            return None
        steps = int(latest.stem) if latest else 0
        return steps if steps > self.saved.agent_steps else None


def load(saved: Saved, logdir: Path, seed: int = 0) -> World:
    """The agent with its functions compiled.

    Raises ValueError where the model predicts no observation, or where neither the game nor a
    stored episode is there to start from.
    """
    agent = load_agent(saved)
    engine = Engine(agent)
    shapes = {key: saved.obs_space[key].shape for key in (engine.key, *engine.inputs)}
    episodes = Episodes(logdir, shapes | {"action": saved.act_space.shape, "is_first": ()})
    problem = None
    try:
        env = saved.env(0)
    except (ValueError, ImportError) as error:
        if not episodes.listed():
            raise
        env, problem = None, str(error)
    try:
        painter = Painter() if engine.shows_image else _vectors(saved, engine.key, env, episodes)
    finally:
        if env is not None:
            env.close()
    act = controls(saved.act_space, saved.action_names)
    world = World(saved, agent, engine, painter, act, episodes, seed, problem)
    _compile(world)
    return world


def _vectors(saved: Saved, key: str, env: Env | None, episodes: Episodes) -> Painter:
    """MinAtar's board in its colours; other vectors on the scale of what was seen of them."""
    if saved.config.task.startswith("minatar_"):
        return Painter(board=(10, 10, saved.obs_space[key].shape[0] // 100))
    for listed in episodes.listed():
        with contextlib.suppress(ValueError):  # a damaged one, or one that has just gone
            return Painter(limits=pictures.vector_limits(episodes.read(listed.name)[key]))
    if env is None:
        raise ValueError(f"{saved.config.task}: none of the stored episodes can be read")
    return Painter(limits=pictures.vector_limits(_random_rows(env, key)))


def _random_rows(env: Env, key: str) -> np.ndarray:
    act, rows = random_policy(env.act_space, 0), []
    obs = env.reset()
    for _ in range(LOOKED_AT):
        rows.append(obs[key])
        obs = env.reset() if obs["is_last"] else env.step(act(obs, None)[0])
    return np.stack(rows)


def _compile(world: World) -> None:
    """One call of each function, so that the first visitor does not wait."""
    engine, saved = world.engine, world.saved
    action = np.zeros(saved.act_space.shape, np.float32)
    spaces = {key: saved.obs_space[key] for key in engine.inputs}
    obs: dict = {key: np.zeros(space.shape, space.dtype) for key, space in spaces.items()}
    obs["is_first"] = np.bool_(True)
    latent, _ = engine.observe(engine.initial(), action, world.free, Draw(0, 0), obs)
    engine.imagine(latent, action, world.free, Draw(0, 1))
    engine.look(latent, world.free)
