"""Atari games through the Arcade Learning Environment, prepared as in the DreamerV2 paper."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from common.envs.base import Env, Obs, unknown_name, with_flags, with_transition
from common.envs.resize import resize_by_area

ALIASES = {"james_bond": "jamesbond"}


class Atari(Env):
    """One Atari game.

    An agent step is `action_repeat` emulator frames (fewer where the game ends) with their rewards
    summed, unclipped; losing a life does not end the episode. The observation is

    image  uint8 [*size, 1] or, without `grayscale`, [*size, 3]: the maximum of the last two frames
    ram    uint8 [128]: the console's memory

    name: of the game as the ROMs are called, such as `breakout`.
    seed: of the number of no-ops and of sticky actions.
    noops: most no-op frames after a reset; their number is uniform from 1 on. 0 for none.
    sticky: probability, per frame, that the emulator repeats its last action instead of ours.
    full_actions: all 18 actions of the joystick instead of those that the game reacts to.
    life_terminal: `is_terminal` where a life is lost too, so that no return reaches beyond it; the
      game goes on. Without, a life that is lost is not said.
    backend: `ale` for the package ale-py, `atari_py` for its predecessor atari-py.

    When the game ends within an agent step, frames that were not reached keep their place in the
    maximum from the step before, as in gym's preprocessing, which made the published results.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int = 0,
        action_repeat: int = 4,
        size: tuple[int, int] = (64, 64),
        grayscale: bool = True,
        noops: int = 30,
        sticky: float = 0.25,
        full_actions: bool = False,
        life_terminal: bool = False,
        backend: str = "ale",
    ):
        if backend not in BACKENDS:
            raise ValueError(f"atari_backend: expected {' or '.join(BACKENDS)}, got {backend!r}")
        if action_repeat < 1:
            raise ValueError(f"action_repeat: expected a positive number, got {action_repeat}")
        load = BACKENDS[backend]
        emulator = load(ALIASES.get(name, name), seed % 2**31, sticky, full_actions)
        self._ale = emulator.ale
        self._actions = emulator.actions
        self._get_rgb = emulator.get_rgb
        self._get_screen = self._ale.getScreenGrayscale if grayscale else self._get_rgb
        self._repeat = action_repeat
        self._life_terminal = life_terminal
        self._noops = noops
        self._random = np.random.default_rng(seed)
        self._frames: list[np.ndarray] = []
        channels = 1 if grayscale else 3
        self._screen = emulator.screen
        shape = self._screen if grayscale else (*self._screen, 3)
        # The screens after the last frame of a step and after the one before it.
        self._last, self._previous = np.zeros((2, *shape), np.uint8)
        self._maximum = np.zeros(shape, np.uint8)
        self._size = size
        self.obs_space = with_flags(
            {
                "image": spaces.Box(0, 255, (*size, channels), np.uint8),
                "ram": spaces.Box(0, 255, (128,), np.uint8),
            }
        )
        self.act_space = spaces.Discrete(len(self._actions))
        self.action_names = emulator.names

    def reset(self) -> Obs:
        self._ale.reset_game()
        noops = self._random.integers(1, self._noops + 1) if self._noops else 0
        for _ in range(noops):
            self._ale.act(0)
            if self._ale.game_over():
                self._ale.reset_game()
        self._get_screen(self._last)
        self._previous.fill(0)
        self._frames = [self.render()] if self.record_frames else []
        return with_transition(self._obs(), is_first=True)

    def step(self, action: int) -> Obs:
        code = self._actions[action]
        self._frames = []
        reward, over, lives = 0, False, self._ale.lives()
        for left in reversed(range(self._repeat)):
            reward += self._ale.act(code)
            if self.record_frames:
                self._frames.append(self.render())
            over = self._ale.game_over()
            if over:
                break
            if left == 1:
                self._get_screen(self._previous)
            elif left == 0:
                self._get_screen(self._last)
        lost = self._life_terminal and self._ale.lives() < lives
        return with_transition(self._obs(), reward, is_last=over, is_terminal=over or lost)

    def render(self) -> np.ndarray:
        """The screen in the console's colours, uint8 [210, 160, 3] in most games."""
        screen = np.zeros((*self._screen, 3), np.uint8)
        self._get_rgb(screen)
        return screen

    def skipped_frames(self) -> list[np.ndarray]:
        return list(self._frames)

    def _obs(self) -> Obs:
        screen = self._last
        if self._repeat > 1:
            screen = np.maximum(self._last, self._previous, out=self._maximum)
        return {"image": resize_by_area(screen, self._size), "ram": self._ale.getRAM()}


class Emulator(NamedTuple):
    """An emulator with its ROM loaded."""

    ale: Any  # an ALEInterface; the two packages agree in the methods that are used here
    screen: tuple[int, int]  # height and width
    get_rgb: Callable[[np.ndarray], object]  # writes the screen into uint8 [height, width, 3]
    actions: tuple[Any, ...]  # what `ale.act` takes, by the agent's index
    names: tuple[str, ...]


def load_ale_py(name: str, seed: int, sticky: float, full_actions: bool) -> Emulator:
    """The emulator of the package ale-py, which brings its ROMs."""
    import ale_py
    from ale_py import roms

    known = roms.get_all_rom_ids()
    if name not in known:
        raise unknown_name("Atari game", name, known)
    path = roms.get_rom_path(name)
    assert path is not None, name
    if not ale_py.ALEInterface.isSupportedROM(path):  # loading it would end the process
        raise ValueError(f"Atari game {name!r} is for several players; it cannot be played alone")
    # The emulator greets on stderr for every instance otherwise.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", sticky)
    ale.loadROM(path)
    actions = ale.getLegalActionSet() if full_actions else ale.getMinimalActionSet()
    names = tuple(action.name for action in actions)
    return Emulator(ale, ale.getScreenDims(), ale.getScreenRGB, tuple(actions), names)


def load_atari_py(name: str, seed: int, sticky: float, full_actions: bool) -> Emulator:
    """The emulator of the package atari-py, with the ROMs of ale-py.

    The ROMs are copied into atari-py's own folder when a game is first asked for and missing there.
    """
    import ale_py

    try:
        import atari_py
        from atari_py import import_roms
    except ImportError as error:
        raise ValueError(
            "atari_backend 'atari_py' needs the package atari-py; install the extra `legacy`"
        ) from error
    if name not in atari_py.list_games():
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a line per ROM
            import_roms.import_roms(str(Path(ale_py.roms.__file__).parent))
        if name not in atari_py.list_games():
            raise unknown_name("Atari game", name, atari_py.list_games())
    ale = atari_py.ALEInterface()
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", sticky)
    ale.loadROM(atari_py.get_game_path(name))
    codes = ale.getLegalActionSet() if full_actions else ale.getMinimalActionSet()
    actions = tuple(int(code) for code in codes)
    names = tuple(ale_py.Action(code).name for code in actions)
    width, height = ale.getScreenDims()
    return Emulator(ale, (height, width), ale.getScreenRGB2, actions, names)


BACKENDS = {"ale": load_ale_py, "atari_py": load_atari_py}
