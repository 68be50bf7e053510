"""What a person's keys mean to an action space."""

from collections.abc import Sequence
from typing import NamedTuple

import gymnasium
import numpy as np

from common.data.spaces import is_discrete

BUTTONS = ("UP", "DOWN", "LEFT", "RIGHT", "FIRE")
# Of the usual control tasks, whose actions have no names: push left, (nothing,) push right.
_UNNAMED = {2: ((("LEFT",), ("RIGHT",)), None), 3: ((("LEFT",), (), ("RIGHT",)), 1)}


class Controls(NamedTuple):
    """The actions and the buttons that ask for each."""

    discrete: bool
    size: int  # A
    names: tuple[str, ...]  # of discrete actions, else of the action's numbers
    buttons: tuple[tuple[str, ...], ...]  # per discrete action: those that are held down together
    idle: int | None  # the discrete action that does nothing, where there is one

    def vector(self, action: int | Sequence[float]) -> np.ndarray:
        """An index, or the numbers of a continuous action, as float32 `[A]`."""
        if isinstance(action, int):
            return np.eye(self.size, dtype=np.float32)[action]
        return np.asarray(action, np.float32)

    def plain(self, vector: np.ndarray) -> int | list[float]:
        """`vector` turned back; the numbers in thousandths and within -1 and 1, as links carry
        them."""
        if self.discrete:
            return int(vector.argmax())
        return [round(float(value), 3) for value in vector.clip(-1, 1)]

    def nothing(self, last: np.ndarray | None) -> np.ndarray:
        """What happens when nobody acts: nothing, or the last action again if all do something."""
        if not self.discrete:
            return np.zeros(self.size, np.float32)
        if self.idle is not None:
            return self.vector(self.idle)
        return self.vector(0) if last is None or not last.any() else last


def controls(space: gymnasium.Space, names: Sequence[str] | None) -> Controls:
    """The controls of an action space whose discrete actions may have names such as UPRIGHTFIRE."""
    size = int(np.prod(space.shape or ()))
    if not is_discrete(space):
        return Controls(False, size, tuple(f"action {i}" for i in range(size)), (), None)
    if names:
        buttons = tuple(tuple(b for b in BUTTONS if b in name.upper()) for name in names)
        upper = [name.upper() for name in names]
        return Controls(True, size, tuple(names), buttons, _index(upper, "NOOP"))
    buttons, idle = _UNNAMED.get(size, (((),) * size, None))
    return Controls(True, size, tuple(f"action {i}" for i in range(size)), buttons, idle)


def _index(names: list[str], name: str) -> int | None:
    return names.index(name) if name in names else None
