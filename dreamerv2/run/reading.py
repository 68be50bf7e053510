"""Which part of the agent reads which observation, in a few lines for the start of a run."""

import re
from collections.abc import Mapping
from textwrap import shorten
from typing import Any

from common.config import Config
from common.envs.wrappers import describe

ROW = ("reward", "is_first", "is_last", "is_terminal")
LOGGED = "log_"  # prefix of the observations that are stored and logged, and nothing else


def who_reads(config: Config, obs_space: Mapping[str, Any], agent: Any) -> str:
    """A line per observation: key, type and shape, who reads it, and the pattern that keeps it
    from being read. Those that are only logged share one line."""
    logged = [key for key in obs_space if key.startswith(LOGGED)]
    observed = {key: space for key, space in obs_space.items() if key not in (*ROW, *logged)}
    width = max(map(len, observed), default=0)
    kinds = {key: describe(space) for key, space in observed.items()}
    kind_width = max(map(len, kinds.values()), default=0)
    lines = ["Observations:"]
    for key, space in observed.items():
        parts = {"encoder": agent.wm.encoder, "decoder": agent.wm.decoder}
        readers = [name for name, part in parts.items() if key in part.keys]
        text = " and ".join(readers) or "nobody"
        reasons = [_reason(config, key, space, name) for name in parts if name not in readers]
        reasons = list(dict.fromkeys(filter(None, reasons)))
        text += f" ({'; '.join(reasons)})" if reasons else ""
        lines.append(f"  {key:{width}}  {kinds[key]:{kind_width}}  {text}")
    if logged:
        lines.append(f"  and {len(logged)} that are only logged: {shorten(', '.join(logged), 60)}")
    return "\n".join(lines)


def _reason(config: Config, key: str, space: Any, part: str) -> str:
    """Why a part of the agent does not read a key."""
    kind = {1: "mlp_keys", 3: "cnn_keys"}.get(len(space.shape))
    if kind is None:
        return "neither a vector [N] nor an image [H, W, C]"
    pattern = config[part][kind]
    return "" if re.match(pattern, key) else f"{part}.{kind} {pattern} excludes it"
