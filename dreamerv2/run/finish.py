"""The end of a run: what it says, and how a run that has ended is known."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.checkpoint import CheckpointError, Checkpoints, load_meta
from common.config import Config
from common.log.progress import duration
from dreamerv2.run import blocks


def finished(config: Config) -> str | None:
    """What a run in `config.logdir` has come to, if `config.steps` are done and evaluated.

    Reads no more than the meta of the latest checkpoint. One that is damaged is left to whoever
    resumes the run and can say what to do.
    """
    latest = Checkpoints(Path(config.logdir).expanduser() / "checkpoints", keep=1).latest()
    if latest is None:
        return None
    try:
        meta = load_meta(latest)
        ended = meta["agent_steps"] >= config.steps and is_evaluated(meta)
        return "\n".join([summary(meta, config), *_ignored(meta, config)]) if ended else None
    except (CheckpointError, LookupError, TypeError, AttributeError, ValueError):
        return None


def _ignored(meta: Mapping[str, Any], config: Config) -> list[str]:
    """What a command asks for that the finished run was not made with, a line each."""
    changes = blocks.config_changes(meta.get("config", {}), config.nested())
    return [
        f"  the run is done, so this changes nothing: {change}"
        for change in changes
        if not change.startswith("steps: ") and ": absent -> " not in change
    ]


def is_evaluated(meta: Mapping[str, Any]) -> bool:
    """Whether the agent of a checkpoint was evaluated; those of old versions do not say."""
    evaluation = meta.get("run", {}).get("evaluation")
    return bool(evaluation) and evaluation["agent_steps"] == meta["agent_steps"]


def summary(meta: Mapping[str, Any], config: Config) -> str:
    """`Done: ...` in one line: how far, how long, how good, and what to do next."""
    parts = [f"Done: {meta['agent_steps']:,} agent steps, {meta['updates']:,} updates"]
    run = meta.get("run", {})
    if "logger" in run:
        parts[0] += f", {duration(run['logger']['seconds'])}"
    evaluation = run.get("evaluation")
    if evaluation and evaluation["returns"]:
        returns = evaluation["returns"]
        kind = "episode" if len(returns) == 1 else "episodes"
        parts.append(f"last evaluation {np.mean(returns):.4g} ({len(returns)} {kind})")
    logdir = shlex.quote(str(config.logdir))
    made = " --env MODULE:FUNCTION" if config.env.startswith(blocks.OBJECT) else ""
    parts.append(f"to watch it: python -m dreamerv2.render --logdir {logdir}{made}")
    parts.append(f"to go on: --steps {2 * max(meta['agent_steps'], config.steps)}")
    return "; ".join(parts)
