"""Every number of a golden file beside what the agent computes, all draws replaced by modes."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from common.checkpoint import DAMAGE
from common.device import setup_device
from common.nn.draws import Modes
from dreamerv2.agent.agent import Agent, Update, assign_all
from dreamerv2.reference.names import config_from_reference, reference_variables, spaces_from_json

TRAIN_STEP = 1000  # agent step of update 0
TRAIN_EVERY = 16  # agent steps between updates
NEEDED = ("config", "spaces", "variable_order", "init/step")


class ParityError(ValueError):
    """A file that cannot be compared; the message says why."""


class Difference(NamedTuple):
    """One quantity's relative error, `||ours - theirs|| / ||theirs||`."""

    name: str
    error: float

    @property
    def group(self) -> str:
        """The row of the table: `train/2/after/rssm/...` counts as `train/after`."""
        parts = [part for part in self.name.split("/") if not part.isdigit()]
        return "/".join(parts[: 2 if len(parts) > 1 else 1])


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Euclidean, over the whole array; the absolute error where the reference is zero."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        raise ParityError(f"shape {ours.shape} where the file has {theirs.shape}")
    scale, difference = float(np.linalg.norm(theirs)), float(np.linalg.norm(ours - theirs))
    error = difference / scale if scale else difference
    return error if np.isfinite(error) else float("inf")


class Golden:
    """A golden file and the agent that it describes, at the file's initial weights."""

    def __init__(self, path: str, overrides: Mapping | None = None):
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as file:
                self.arrays = {key: file[key] for key in file.files}
        except (*DAMAGE, AttributeError, TypeError) as error:
            raise ParityError(f"{path} cannot be read: {error}") from None
        for key in NEEDED:
            if key not in self.arrays:
                raise ParityError(f"{path} has no {key}")
        kinds = (dict, dict, list)
        flat, spaces, order = map(self._json, NEEDED[:3], kinds)
        config = config_from_reference(flat).update({"precision": 32, **(overrides or {})})
        try:
            obs_space, act_space = spaces_from_json(spaces)
        except (*DAMAGE, AttributeError, TypeError, IndexError, AssertionError) as error:
            raise ParityError(f"{path}: spaces cannot be understood: {error!r}") from None
        self.agent = Agent(config, obs_space, act_space)
        self.variables = reference_variables(self.agent)
        self._load(order)

    def _json(self, key, kind):
        try:
            found = json.loads(str(self.arrays[key]))
        except (ValueError, RecursionError) as error:
            raise ParityError(f"{self.path}: {key} is not JSON: {error}") from None
        if not isinstance(found, kind):
            raise ParityError(f"{self.path}: {key} is not a {kind.__name__}")
        return found

    def _load(self, order):
        initial = {k.removeprefix("init/"): v for k, v in self.arrays.items() if k[:5] == "init/"}
        initial.pop("step")
        assign_all(self.variables, initial)
        for theirs, ours in itertools.zip_longest(order, ["step", *self.variables]):
            if theirs != ours:
                raise ParityError(f"variable_order has {theirs} where the agent has {ours}")

    def batch(self, index: int) -> dict[str, tf.Tensor]:
        prefix = f"batch/{index}/"
        found = {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}
        keys = [*self.agent.wm.input_keys, "action"]
        missing = [key for key in keys if key not in found]
        if missing:
            raise ParityError(f"{prefix}{missing[0]} is missing")
        return {key: tf.constant(found[key]) for key in keys}

    def expected(self) -> dict[str, np.ndarray]:
        return {k.removeprefix("expect/"): v for k, v in self.arrays.items() if k[:7] == "expect/"}

    def times(self, group: str) -> range:
        """The indices up to the highest that is expected of `GROUP/INDEX/...`."""
        found = (re.match(rf"{group}/(\d+)/", name) for name in self.expected())
        return range(max((int(match[1]) for match in found if match), default=-1) + 1)


def computed(golden: Golden) -> Iterator[tuple[str, np.ndarray]]:
    """The groups that a golden file asks for, in an order that leaves the weights right."""
    groups = {
        "wm": _world_model,
        "openl": _open_loop,
        "policy": lambda golden: _acting(golden, "policy", "eval"),
        "train": _training,
        "explore_after": lambda golden: _acting(golden, "explore_after", "explore"),
    }
    asked = {name.split("/")[0] for name in golden.expected()}
    for name, compute in groups.items():
        if name in asked:
            yield from compute(golden)


def _world_model(golden):
    agent = golden.agent

    @tf.function(autograph=False)
    def loss(batch):
        return agent.wm.loss(agent.wm.preprocess(batch), None, Modes())

    result = loss(golden.batch(0))
    yield "wm/loss", result.loss
    for name in ("embed", "feat", "kl"):
        yield f"wm/{name}", getattr(result, name)
    for name in ("post", "prior"):
        yield from _items(f"wm/{name}", getattr(result, name))
    yield from _items("wm/like", result.likes)
    yield from _items("wm/metric", result.metrics)


def _open_loop(golden):
    agent = golden.agent
    if not agent.wm.decoder.image_keys:
        return

    @tf.function(autograph=False)
    def videos(batch):
        return agent.open_loop_videos({k: v[:6] for k, v in batch.items()}, Modes())

    for name, video in videos(golden.batch(1)).items():
        yield f"openl/{name.removeprefix('openl_')}", video[:, ::4, ::4]


def _acting(golden, group, mode):
    agent, batch = golden.agent, golden.batch(2)
    state = agent.initial_policy_state(batch["is_first"].shape[0])

    @tf.function(autograph=False)
    def step(obs, state):
        return agent.policy_step(obs, state, mode, Modes())

    for i in golden.times(group)[: batch["is_first"].shape[1]]:
        outputs, state = step({k: v[:, i] for k, v in batch.items()}, state)
        yield f"{group}/{i}/action", outputs["action"]
        yield from _items(f"{group}/{i}/latent", state[0])


def _training(golden):
    agent = golden.agent
    state = agent.wm.rssm.initial(golden.batch(0)["is_first"].shape[0])

    @tf.function(autograph=False)
    def update(batch, state, agent_steps) -> Update:
        return agent.update(batch, state, agent_steps, Modes())

    for i in golden.times("train"):
        agent_steps = TRAIN_STEP + TRAIN_EVERY * i
        result = update(golden.batch(i), state, tf.constant(agent_steps, tf.int64))
        state = result.state
        yield from _items(f"train/{i}/metric", result.metrics)
        for name, grads in result.grads.items():
            theirs = name.replace("expl_expl", "expl")  # the ensemble, or the head
            yield f"train/{i}/grad_norm/{theirs}", result.metrics[f"{name}_grad_norm"]
            yield from _items(f"train/{i}/grad", _named_grads(agent, name, grads))
        for prefix, learned in (("", result.task), ("expl_", result.exploring)):
            if learned:
                yield from _items(f"train/{i}/{prefix}imagine", learned.seq)
                yield f"train/{i}/{prefix}target", learned.targets.returns
        yield from _items(f"train/{i}/after", golden.variables)
        yield f"train/{i}/after/step", np.int64(agent_steps)


def _named_grads(agent, name, grads):
    names = {
        "model": lambda: agent.wm.named_variables(),
        "actor": lambda: agent.behavior.actor.named_variables("actor/"),
        "critic": lambda: agent.behavior.critic.named_variables("critic/"),
        "expl_expl": lambda: [f"expl/{name}" for name in agent.expl.head_variables],
        "expl_actor": lambda: agent.expl.behavior.actor.named_variables("expl/actor/"),
        "expl_critic": lambda: agent.expl.behavior.critic.named_variables("expl/critic/"),
    }[name]()
    return dict(zip(names, grads, strict=True))


def _items(prefix, mapping):
    return [(f"{prefix}/{key}", value.numpy()) for key, value in mapping.items()]


def compare(path: str, overrides: Mapping | None = None) -> list[Difference]:
    """The relative error of every expected quantity of a file.

    Raises:
        ParityError, ConfigError or ValueError: the file cannot be used, or holds a quantity that is
            not compared.
    """
    golden = Golden(path, overrides)
    expected = golden.expected()
    differences = []
    for name, ours in computed(golden):
        if name not in expected:
            continue
        ours, theirs = np.asarray(ours), expected.pop(name)
        if "/after/" in name:
            initial = golden.arrays["init/" + name.split("/after/")[1]]
            ours, theirs = ours - initial, theirs - initial
        try:
            differences.append(Difference(name, relative_error(ours, theirs)))
        except ParityError as error:
            raise ParityError(f"expect/{name}: {error}") from None
    if expected:
        first = next(iter(expected))
        raise ParityError(
            f"{path}: {len(expected)} quantities are not compared: expect/{first} ..."
        )
    if not differences:
        raise ParityError(f"{path} expects nothing")
    return differences


def table(differences: Sequence[Difference], tolerance: float | None) -> str:
    """Rows: quantity group, how many, the largest relative error and where; marked if too large."""
    groups: dict[str, list[Difference]] = {}
    for difference in differences:
        groups.setdefault(difference.group, []).append(difference)
    lines = [f"{'quantity':<20}{'count':>6}  {'largest error':>13}  where"]
    for group, members in groups.items():
        worst = max(members, key=lambda d: d.error)
        mark = "  <-- too large" if tolerance is not None and not worst.error <= tolerance else ""
        lines.append(f"{group:<20}{len(members):>6}  {worst.error:>13.1e}  {worst.name}{mark}")
    return "\n".join(lines)


def judge(path: str, overrides: Mapping, tolerance: float) -> bool:
    """Prints the errors of a file and whether they are small enough; whether none is too large.

    overrides: of the file's configuration. With a lower precision than 32 nothing is judged.

    Raises:
        ParityError, ConfigError or ValueError: the file cannot be used.
    """
    setup_device(overrides["precision"])
    try:
        differences = compare(path, overrides)
    except tf.errors.OpError as error:
        raise ParityError(f"{path}: {error}") from error
    precision, *lowered = overrides.values()
    judged = precision == 32 and not lowered
    print(f"{path}, {', '.join(f'{key} {value}' for key, value in overrides.items())}")
    print(table(differences, tolerance if judged else None))
    worst = max(d.error for d in differences)
    if not judged:
        print(f"for information: {worst:.1e} at worst\n")
        return True
    good = worst <= tolerance
    verdict = "agrees with" if good else "DIFFERS from"
    print(f"{verdict} the reference: {worst:.1e} at worst, tolerance {tolerance:g}\n")
    return good
