"""A run of the author's implementation as one of ours.

A run of his has `config.yaml`, `variables.pkl`, `train_episodes/`, and perhaps `metrics.jsonl` and
`eval_episodes/`.
"""

import os
import pickle
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np

from common.checkpoint import DAMAGE, Checkpoints
from common.config import Config, flatten, load_yaml
from common.data.spaces import OneHot
from common.device import import_tensorflow
from dreamerv2.run import snapshot

# TensorFlow takes seconds to import: below, that waits until it is needed.

# The two functions with which NumPy pickles arrays and scalars, under every name they have had.
_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_SCALAR = np.float32(0).__reduce__()[0]
_ADMITTED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _SCALAR,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "scalar"): _SCALAR,
}
MOST_STEPS = 2**53
# What a pickle that is damaged, or made up, can make the unpickler raise besides.
_DAMAGE = (
    *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError),
    *(MemoryError, OverflowError, TypeError, ValueError),
)


class ImportRunError(ValueError):
    """A directory that cannot be imported; the message says why."""


class Imported(NamedTuple):
    """What an import found."""

    agent_steps: int
    updates: int
    config: Config


class _Unpickler(pickle.Unpickler):
    """Builds NumPy arrays, NumPy scalars and plain containers, and nothing else."""

    def find_class(self, module: str, name: str):
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, but only NumPy arrays are admitted"
            ) from None


def read_variables(path: str | Path) -> list[np.ndarray]:
    """The arrays in a `variables.pkl`, in their order; nothing in the file is executed.

    Raises:
        ImportRunError: the file asks for anything but numeric NumPy arrays, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            values = _Unpickler(file).load()
    except _DAMAGE as error:
        raise ImportRunError(f"{path} is refused: {error}") from error
    if not isinstance(values, list | tuple):
        raise ImportRunError(f"{path} holds a {type(values).__name__}, expected a list of arrays")
    for i, value in enumerate(values):
        if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "fiu":
            raise ImportRunError(f"{path}: element {i} is not an array of numbers")
    return [np.asarray(value) for value in values]


def read_spaces(
    directory: str | Path,
) -> tuple[dict[str, gymnasium.spaces.Box], gymnasium.spaces.Box]:
    """Observation and action space, as the oldest episode in a directory shows them.

    Actions count as discrete when every one but the zero of the first row is one-hot.

    Raises:
        ImportRunError: there is no episode, or it cannot be read.
    """
    paths = sorted(Path(directory).glob("*.npz"))
    if not paths:
        raise ImportRunError(f"{directory} holds no episode, which would tell the spaces")
    try:
        with np.load(paths[0], allow_pickle=False) as file:
            episode = {key: file[key] for key in file.files}
        action = episode.pop("action")
        if action.ndim != 2 or not all(value.ndim for value in episode.values()):
            raise ValueError("expected rows of each key, and of an action that is a vector")
        obs_space = {key: _space(value) for key, value in episode.items()}
    except DAMAGE as error:
        raise ImportRunError(f"{paths[0]} cannot be read: {error}") from error
    size = action.shape[-1]
    ones = (action[1:] == 1).sum(-1) == 1
    zeros = (action[1:] == 0).sum(-1) == size - 1
    one_hot = len(ones) and (ones & zeros).all()
    act_space = OneHot(size) if one_hot else gymnasium.spaces.Box(-1.0, 1.0, (size,), np.float32)
    return obs_space, act_space


def _space(rows: np.ndarray) -> gymnasium.spaces.Box:
    shape = rows.shape[1:]
    if rows.dtype in (np.uint8, np.bool_):
        return gymnasium.spaces.Box(0, 255 if rows.dtype == np.uint8 else 1, shape, rows.dtype)
    if rows.dtype.kind == "f":
        return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
    limits = np.iinfo(rows.dtype)
    return gymnasium.spaces.Box(limits.min, limits.max, shape, rows.dtype)


def restore(agent, values: Sequence[np.ndarray]) -> int:
    """Puts the reference's variables into `agent`, checked name by name; returns the agent step.

    Adam's moments stay zero: the reference does not save them.

    Raises:
        ImportRunError: names the first variable that does not fit; the agent is unchanged then.
    """
    from dreamerv2.reference.names import reference_variables

    variables = reference_variables(agent)
    named = dict(zip(["step", *variables], values, strict=False))
    agent_step = _agent_step(values[0]) if values else 0
    for name, variable in variables.items():
        if name not in named:
            raise ImportRunError(f"{len(values)} values, none for {name} and what follows it")
        found, expected = named[name], variable.shape.as_list()
        if list(found.shape) != expected:
            raise ImportRunError(f"{name} has shape {list(found.shape)}, expected {expected}")
        if (found.dtype.kind == "f") != variable.dtype.is_floating:
            raise ImportRunError(f"{name} is {found.dtype}, expected {variable.dtype.name}")
        if not np.isfinite(found).all():
            raise ImportRunError(f"{name} is not finite")
    if len(values) > len(named):
        raise ImportRunError(f"{len(values)} values, but the last variable is number {len(named)}")
    for name, variable in variables.items():
        variable.assign(named[name].astype(variable.dtype.as_numpy_dtype))
    return agent_step


def _agent_step(value: np.ndarray) -> int:
    """What the first of the values says; ImportRunError where it is something else."""
    if value.shape or value.dtype.kind not in "iu" or not 0 <= value < MOST_STEPS:
        found = f"of shape {value.shape}" if value.shape else value
        raise ImportRunError(f"the first value is {found}, not an agent step")
    return int(value)


def _updates(config: Config, agent_steps: int, variables: Mapping) -> int:
    """How many updates the run has made; the reference counts them where it has a slow critic."""
    if "slow_critic/updates" in variables:
        return int(variables["slow_critic/updates"])
    rounds = max(0, agent_steps - config.prefill) // config.train_every
    return config.pretrain + rounds * config.train_steps


def import_run(source: str | Path, logdir: str | Path) -> Imported:
    """Writes the run in `source` to `logdir` as one of ours, all of it or nothing.

    Raises:
        ImportRunError, ConfigError: what is wrong with `source`, or `logdir` holds something.
    """
    import_tensorflow()
    from dreamerv2.agent.agent import Agent
    from dreamerv2.reference.names import config_from_reference, reference_variables

    source, logdir = Path(source).expanduser(), Path(logdir).expanduser()
    if logdir.exists() and (not logdir.is_dir() or any(logdir.iterdir())):
        raise ImportRunError(f"logdir {logdir} is not empty; name a new directory")
    for name in ("config.yaml", "variables.pkl", "train_episodes"):
        if not (source / name).exists():
            raise ImportRunError(f"{source} is not a run of the reference: it has no {name}")
    config = config_from_reference(flatten(load_yaml(source / "config.yaml")))
    config = config.update({"logdir": str(logdir)})
    values = read_variables(source / "variables.pkl")
    agent = Agent(config, *read_spaces(source / "train_episodes"))
    try:
        agent_steps = restore(agent, values)
    except ImportRunError as error:
        raise ImportRunError(f"{source / 'variables.pkl'}: {error}") from None
    agent.updates.assign(_updates(config, agent_steps, reference_variables(agent)))
    found = Imported(agent_steps, int(agent.updates), config)
    _write(source, logdir, agent, found)
    return found


def _write(source: Path, logdir: Path, agent, found: Imported) -> None:
    """Fills a directory beside `logdir`, which then takes its place.

    A directory that is there already cannot always be replaced (a mount, a link, where one stands):
    that is filled in one beside its content, the checkpoint last.
    """
    there = logdir.exists()
    logdir.parent.mkdir(parents=True, exist_ok=True)
    place = logdir if there else logdir.parent
    with tempfile.TemporaryDirectory(dir=place, prefix=f".{logdir.name}-") as temporary:
        run = Path(temporary) / "run"
        run.mkdir()
        for name in ("train_episodes", "eval_episodes"):
            (run / name).mkdir()
            for path in sorted((source / name).glob("*.npz")):
                shutil.copyfile(path, run / name / path.name)
        if (source / "metrics.jsonl").exists():
            shutil.copyfile(source / "metrics.jsonl", run / "metrics.jsonl")
        found.config.save(run / "config.yaml")
        meta = snapshot.agent_meta(
            *(found.agent_steps, found.updates, found.config),
            *(agent.obs_space, agent.act_space, None),
        )
        arrays = snapshot.under("agent", agent.state_dict())
        Checkpoints(run / "checkpoints", keep=1).save(found.agent_steps, arrays, meta)
        if not there:
            os.replace(run, logdir)
            return
        for path in sorted(run.iterdir(), key=lambda path: path.name == "checkpoints"):
            os.replace(path, logdir / path.name)
