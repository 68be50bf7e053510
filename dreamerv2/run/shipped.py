"""Exported agents, and those that come with the project: what is needed to act and to dream.

Each is `NAME.npz`, a checkpoint without what only training needs (moments, slow critic, replay),
and `NAME.md`, the card that says how it was made and what it cannot do.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common import checkpoint

# Variables of the agent that acting, dreaming and films read, by the start of their names.
ACTING = ("wm/", "behavior/actor/", "behavior/critic/", "expl/disag")
# In the names of running statistics of pixels.
STATISTICS = re.compile(r"/(pixels|bounds)_")


def agents_dir() -> Path | None:
    """Where the agents are: inside the installed package, or in `videos/` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    places = (package / "agents", package.parent / "videos" / "agents")
    return next((place for place in places if any(place.glob("*.npz"))), None)


def names() -> list[str]:
    """Names of the agents that come with the project."""
    directory = agents_dir()
    return sorted(path.stem for path in directory.glob("*.npz")) if directory else []


def find(name: str) -> Path | None:
    """The file of the agent called `name`, or None."""
    directory = agents_dir()
    return directory / f"{name}.npz" if directory and name in names() else None


def acting(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of an agent's variables that acting and dreaming read."""
    return {name: value for name, value in variables.items() if name.startswith(ACTING)}


def write(
    path: Path, variables: Mapping[str, np.ndarray], meta: Mapping[str, Any], half: bool = False
) -> None:
    """Writes an agent's variables and the description of its checkpoint, without the rest.

    half: float16 instead of float32: half the size, rounded weights. Running statistics of pixels
      stay as they are: they hold large counts, and differences of numbers that are nearly equal.
    """
    arrays = acting(variables)
    if half:
        arrays = {
            name: value if STATISTICS.search(name) else value.astype(np.float16)
            for name, value in arrays.items()
        }
    names = ("agent_steps", "updates", "config", "spaces", "action_names")
    kept = {name: meta.get(name) for name in names}
    # Where the run was is nobody else's business.
    own = {"logdir": path.stem, "start_from": Path(meta["config"].get("start_from", "")).name}
    kept["config"] = {**meta["config"], **own}
    arrays = {f"agent/{name}": value for name, value in arrays.items()}
    checkpoint.save(path, arrays, {**kept, "acting_only": True})


def card(path: Path, meta: Mapping[str, Any], run: Mapping[str, Any], evaluation: Mapping) -> str:
    """The card of an agent as Markdown.

    Args:
        path: of its file.
        meta: the description in its checkpoint.
        run: what else is known of its training: `cpu_seconds`, `note`; both may be missing.
        evaluation: what `evaluate --json` wrote; empty if there was none.
    """
    name, config = path.stem, meta["config"]
    frames = meta["agent_steps"] * config["action_repeat"]
    lines = [f"# {name}", "", f"An agent for `{config['task']}`. Acting and dreaming only.", ""]
    lines += [
        f"- trained for {meta['agent_steps']:,} agent steps ({frames:,} env frames) and "
        f"{meta['updates']:,} updates, seed {config['seed']}"
    ]
    if "cpu_seconds" in run:
        lines.append(f"- CPU hours of its training: {run['cpu_seconds'] / 3600:.1f}")
    for mode in ("greedy", "sampled", "random"):
        if mode in evaluation:
            result = evaluation[mode]
            count = len(result["returns"])
            text = f"mean return {result['mean']:.4g} over {count} episode{'s' * (count > 1)}"
            if result["interval"]:
                low, high = result["interval"]
                text += f" (95 % interval {low:.4g} to {high:.4g})"
            lines.append(f"- {mode} actions: {text}")
    if run.get("note"):
        lines += ["", run["note"]]
    logdir = name if path.resolve().parent == agents_dir() else path.name
    film = f"python -m dreamerv2.render --logdir {logdir} --out {name}.gif"
    lines += ["", "```", film, "```", ""]
    return "\n".join(lines)
