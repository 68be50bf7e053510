"""Checkpoints of untrained agents, for tests of what works on a finished run."""

from pathlib import Path

import tiny

from common.checkpoint import Checkpoints
from dreamerv2.agent.agent import Agent
from dreamerv2.run import snapshot
from dreamerv2.run.environments import configured_env

BREAKOUT = {
    "task": "atari_breakout",
    "action_repeat": 4,
    "time_limit": 30,
    r"(encoder|decoder)\.mlp_keys": "$^",
}


def save(logdir: Path, agent_steps: int = 100, **overrides) -> Agent:
    """A checkpoint in `logdir` of an agent for the task (Breakout where nothing else is said)."""
    config = tiny.config(**(overrides if "task" in overrides else BREAKOUT | overrides))
    env = configured_env(config, "train", 0)
    agent = Agent(config, env.obs_space, env.act_space)
    meta = {
        "agent_steps": agent_steps,
        "updates": 0,
        "config": config.nested(),
        "spaces": snapshot.describe_spaces(env.obs_space, env.act_space),
        "action_names": env.action_names,
    }
    arrays = snapshot.under("agent", agent.state_dict())
    Checkpoints(logdir / "checkpoints", keep=5).save(agent_steps, arrays, meta)
    env.close()
    return agent
