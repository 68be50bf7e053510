"""Environments of one's own: made by a function that the user names, or given as an object.

In the configuration such a run has the task `own_NAME`, so that nothing takes it for another, and
`env` says where the environment comes from: `MODULE:FUNCTION`, or `object MODULE.CLASS`.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from common.config import Config
from dreamerv2.run.blocks import OBJECT, OWN


class Maker(NamedTuple):
    """`make(spec)` as a function, which another process can be given."""

    spec: str

    def __call__(self) -> Any:
        return make(self.spec)


def make(spec: str) -> Any:
    """A new environment from `MODULE:FUNCTION`; ValueError where that is none, or makes none."""
    if spec.startswith(OBJECT):
        raise ValueError(
            f"this agent was trained on an environment object ({spec.removeprefix(OBJECT)}), which "
            "a command cannot make: name a function that makes it, --env MODULE:FUNCTION, or use "
            "dreamerv2.api from Python"
        )
    module_name, _, path = spec.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ModuleNotFoundError, TypeError) as error:
        relative = module_name.startswith(".")  # which a command has no package for: TypeError
        if not relative and getattr(error, "name", None) != module_name.partition(".")[0]:
            raise
        raise ValueError(
            f"env {spec}: there is no module {module_name} in the current folder or installed"
        ) from error
    try:
        function = functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        raise ValueError(f"env {spec}: {module_name} has no {path}") from error
    if not callable(function) or _needs_arguments(function):
        raise ValueError(f"env {spec}: expected a function without arguments, got {function!r}")
    env = function()
    if not (hasattr(env, "reset") and hasattr(env, "step")):
        raise ValueError(f"env {spec}: expected an environment, the function returned {env!r}")
    return env


def _needs_arguments(function: Callable) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:
        pass  # some that are written in C do not tell
    return False


def of_object(config: Config, env: Any) -> Config:
    """The configuration of a run on an environment object: its name and class are in it.

    The name is the one under which Gymnasium knows it, or its class. A task `own_...` stays.
    """
    inner = getattr(env, "unwrapped", env)
    kind = type(inner)
    spec = getattr(env, "spec", None)
    name = str(getattr(spec, "id", None) or kind.__name__).replace("/", "-")
    task = config.task if config.task.startswith(OWN) else OWN + name
    return config.update({"task": task, "env": f"{OBJECT}{kind.__module__}.{kind.__qualname__}"})
