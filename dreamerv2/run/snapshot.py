"""Everything of a run that has state, as arrays and JSON for one checkpoint file."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.checkpoint import CheckpointError, Checkpoints
from common.config import Config
from common.data.spaces import space_from_json, space_to_json
from dreamerv2.run.errors import RunError

# `.npz` has no type for these; float32 holds each of their values exactly.
_WIDENED = ("bfloat16",)


def under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """`arrays` with `prefix/` before each name."""
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def below(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `arrays` whose name starts with `prefix/`, without it."""
    start = prefix + "/"
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def pack_tensors(tensors: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors as arrays that a checkpoint can hold, and the dtype of each."""
    arrays = {name: np.asarray(value) for name, value in tensors.items()}
    dtypes = {name: str(value.dtype) for name, value in arrays.items()}
    widened = {k: v.astype(np.float32) for k, v in arrays.items() if dtypes[k] in _WIDENED}
    return arrays | widened, dtypes


def unpack_tensors(
    arrays: Mapping[str, np.ndarray], dtypes: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """What was given to `pack_tensors`, as arrays."""
    return {name: value.astype(np.dtype(dtypes[name])) for name, value in arrays.items()}


def finite(tensors: Mapping[str, Any] | None) -> bool:
    """Whether all numbers in the tensors are finite, those of half precisions too."""
    arrays, _ = pack_tensors(tensors or {})
    return all(bool(np.isfinite(v).all()) for v in arrays.values() if v.dtype.kind == "f")


def seed_generators(seed: int) -> None:
    """Seed the global generators of Python and NumPy."""
    random.seed(seed)
    np.random.seed(seed)


def random_state() -> dict[str, Any]:
    """State of the global generators of Python and NumPy, which environments may use."""
    kind, keys, *rest = np.random.get_state()
    numbers = np.asarray(keys).tolist()
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, numbers, *rest],
    }


def load_random_state(state: Mapping[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))


def describe_spaces(obs_space: Mapping[str, Any], act_space: Any) -> dict[str, Any]:
    """The spaces as JSON, so that an agent can be built without its environment."""
    return {
        "obs": {key: space_to_json(space) for key, space in obs_space.items()},
        "act": space_to_json(act_space),
    }


def restore_spaces(data: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """(obs_space, act_space) of `describe_spaces`."""
    obs_space = {key: space_from_json(space) for key, space in data["obs"].items()}
    return obs_space, space_from_json(data["act"])


def agent_meta(
    agent_steps: int,
    updates: int,
    config: Config,
    obs_space: Mapping[str, Any],
    act_space: Any,
    action_names: Sequence[str] | None,
) -> dict[str, Any]:
    """What a checkpoint says of its agent, as JSON: enough to build it, and how far it came."""
    return {
        "agent_steps": agent_steps,
        "updates": updates,
        "config": config.nested(),
        "spaces": describe_spaces(obs_space, act_space),
        "action_names": action_names,
    }


def check(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """CheckpointError unless this is the checkpoint of an agent, without a NaN in what it learned.

    path: for the message.
    """
    types = {"config": Mapping, "spaces": Mapping, "agent_steps": int, "updates": int}
    bad = [key for key, kind in types.items() if not isinstance(meta.get(key), kind)]
    variables = below("agent", arrays)
    if bad or not variables:
        name = (bad or ["agent"])[0]
        raise CheckpointError(f"{path}: not a checkpoint of a run: it has no {name}")
    if not 0 <= meta["agent_steps"] < 2**53:
        raise CheckpointError(f"{path}: agent_steps {meta['agent_steps']} is no number of steps")
    for name, value in variables.items():
        if value.dtype.kind not in "biuf":
            raise CheckpointError(f"{path}: the agent is broken: {name} is {value.dtype}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise CheckpointError(f"{path}: the agent is broken: {name} is not finite")


def read_latest(
    checkpoints: Checkpoints, fall_back: bool
) -> tuple[dict[str, np.ndarray], dict[str, Any], list[tuple[Path, str]]]:
    """Arrays and meta of the latest checkpoint, both empty where there is none yet.

    fall_back: take the latest that is whole. Third come path and trouble of those that are not.
    Raises `RunError` where none is whole, or the latest is not and `fall_back` is off.
    """
    damaged: list[tuple[Path, str]] = []
    found = checkpoints.all()
    while found:
        path = found.pop()
        try:
            arrays, meta = checkpoints.load(path)
            check(path, arrays, meta)
            return arrays, meta, damaged
        except CheckpointError as error:
            if not found:
                raise RunError(f"{error}; move it away to start with its episodes") from error
            if not fall_back:
                raise RunError(
                    f"{error}; move it away to resume from {found[-1]}, or add --fall_back True"
                ) from error
            damaged.append((path, str(error)))
    return {}, {}, damaged
