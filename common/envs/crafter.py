"""Crafter: an open world with 22 achievements (Hafner, arXiv 2109.06780)."""

import importlib
from types import ModuleType

import numpy as np
from gymnasium import spaces

from common.envs.base import Env, Obs, unknown_name, with_flags, with_transition

REWARDS = {"reward": True, "noreward": False}
ACHIEVEMENT = "log_achievement_"  # of the keys that count what was achieved
CELL = 32  # pixels of a cell's side in `render`; 9 cells are seen
SMALLEST = 18  # pixels of a side; the game's own drawing fails below it


class Crafter(Env):
    """The game, with its own limit of 10,000 agent steps; only death is terminal.

    image              uint8 [*size, 3]: the map around the player, and what he carries
    log_reward         float32 []: the reward even where `noreward` hides it
    log_achievement_X  int32 []: how often X was achieved in this episode, for each of 22

    name: `reward`, or `noreward` for an environment whose reward is always 0.
    seed: of the worlds and of everything in them.

    Keys that start with `log_` are stored and logged, and no network sees them.
    """

    def __init__(self, name: str, *, seed: int = 0, size: tuple[int, int] = (64, 64)):
        package = _load()
        if name not in REWARDS:
            raise unknown_name("Crafter task", name, REWARDS)
        height, width = size
        if min(size) < SMALLEST:
            raise ValueError(
                f"render_size {height} x {width}: Crafter draws 9 x 9 cells of 2 pixels at least; "
                f"expected at least {SMALLEST} x {SMALLEST}"
            )
        self._game = package.Env(size=(width, height), reward=REWARDS[name], seed=seed)
        self._achievements = tuple(package.constants.achievements)
        count = spaces.Box(0, np.iinfo(np.int32).max, (), np.int32)
        self.obs_space = with_flags(
            {
                "image": spaces.Box(0, 255, (*size, 3), np.uint8),
                "log_reward": spaces.Box(-np.inf, np.inf, (), np.float32),
                **{f"{ACHIEVEMENT}{name}": count for name in self._achievements},
            }
        )
        self.action_names = tuple(package.constants.actions)
        self.act_space = spaces.Discrete(len(self.action_names))

    def reset(self) -> Obs:
        image = self._game.reset()
        return with_transition(self._obs(image, 0.0, {}), is_first=True)

    def step(self, action: int) -> Obs:
        image, reward, over, info = self._game.step(action)
        obs = self._obs(image, info["reward"], info["achievements"])
        return with_transition(obs, reward, is_last=over, is_terminal=info["discount"] == 0)

    def render(self) -> np.ndarray:
        """What `image` shows, larger: uint8 [288, 288, 3]."""
        return self._game.render((9 * CELL, 9 * CELL))

    def _obs(self, image: np.ndarray, reward: float, achieved: dict[str, int]) -> Obs:
        counts = {f"{ACHIEVEMENT}{k}": np.int32(achieved.get(k, 0)) for k in self._achievements}
        return {"image": image, "log_reward": np.float32(reward), **counts}


def _load() -> ModuleType:
    try:
        return importlib.import_module("crafter")
    except ImportError as error:
        raise ValueError(
            "Crafter tasks need the package crafter; install the extra `crafter`: "
            'pip install -e ".[crafter]"'
        ) from error
