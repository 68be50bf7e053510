"""DM Control: MuJoCo tasks, seen from a camera or as the state of the body."""

import importlib.util
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium import spaces

from common.envs.base import Env, Obs, unknown_name, with_flags, with_transition

ALIASES = {"cup_catch": "ball_in_cup_catch"}  # what the paper and its code call it
# Ways to draw, best first; neither of the first two needs a display.
BACKENDS = ("egl", "osmesa", "glfw")
SCREEN = (256, 256)  # of `render`, height and width [pixels]
PATIENCE = 120  # for one way to draw one picture [seconds]


class DMC(Env):
    """One task of the DM Control suite.

    It does not live in one process with TensorFlow: Mesa, which draws where there is no NVIDIA
    card, brings a copy of LLVM, so does TensorFlow, and whichever comes second crashes. `make_env`
    gives it a process of its own.

    An agent step is `action_repeat` control steps (fewer where the episode ends) with their rewards
    summed. Tasks end by their own time limit, most after 1,000 control steps: `is_last`, and
    `is_terminal` only where the task itself says that nothing more is to come.

    image  uint8 [*size, 3], only with `image`: the view of the camera
    KEY    float32 [n]: each of the task's own observations, flattened

    name: domain and task, such as `walker_walk` or `ball_in_cup_catch`.
    seed: of the states that episodes start from.
    image: whether the observation has one. It takes far longer than the physics.
    camera: its number; -1 for the author's choice, 2 for the quadruped and 0 for all others.

    Raises ValueError for an unknown task or camera, and when pictures are asked for and none
    can be drawn.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int = 0,
        action_repeat: int = 1,
        size: tuple[int, int] = (64, 64),
        image: bool = True,
        camera: int = -1,
    ):
        if action_repeat < 1:
            raise ValueError(f"action_repeat: expected a positive number, got {action_repeat}")
        suite = _load()
        tasks = {f"{domain}_{task}": (domain, task) for domain, task in suite.ALL_TASKS}
        name = ALIASES.get(name, name)
        if name not in tasks:
            raise unknown_name("DM Control task", name, tasks)
        self._env = suite.load(*tasks[name], task_kwargs={"random": seed})
        self._camera = _camera(self._env.physics, name, camera)
        self._repeat, self._size, self._image = action_repeat, size, image
        if image:
            self._draw(size)  # what cannot draw is to fail now
        self._frames: list[np.ndarray] = []
        # Some tasks declare observations of no elements; a network cannot read those.
        specs = {k: v for k, v in self._env.observation_spec().items() if np.prod(v.shape)}
        sizes = {key: int(np.prod(spec.shape)) for key, spec in specs.items()}
        state = {k: spaces.Box(-np.inf, np.inf, (n,), np.float32) for k, n in sizes.items()}
        picture: dict = {"image": spaces.Box(0, 255, (*size, 3), np.uint8)} if image else {}
        self._keys = tuple(state)
        self.obs_space = with_flags(picture | state)
        action = self._env.action_spec()
        low, high = (np.broadcast_to(b, action.shape) for b in (action.minimum, action.maximum))
        self.act_space = spaces.Box(low.astype(np.float32), high.astype(np.float32))

    def reset(self) -> Obs:
        time_step = self._env.reset()
        self._frames = [self.render()] if self.record_frames else []
        return with_transition(self._obs(time_step), is_first=True)

    def step(self, action: np.ndarray) -> Obs:
        reward, self._frames = 0.0, []
        for _ in range(self._repeat):
            time_step = self._env.step(action)
            reward += time_step.reward or 0.0
            if self.record_frames:
                self._frames.append(self.render())
            if time_step.last():
                break
        last = time_step.last()
        terminal = last and time_step.discount == 0
        return with_transition(self._obs(time_step), reward, is_last=last, is_terminal=terminal)

    def render(self) -> np.ndarray:
        """The view of the camera, uint8 [256, 256, 3]."""
        return self._draw(SCREEN)

    def skipped_frames(self) -> list[np.ndarray]:
        return list(self._frames)

    def close(self) -> None:
        self._env.physics.free()  # else the context complains at exit

    def _obs(self, time_step: Any) -> Obs:
        picture = {"image": self._draw(self._size)} if self._image else {}
        state = time_step.observation
        return picture | {k: np.array(state[k], np.float32).reshape(-1) for k in self._keys}

    def _draw(self, size: tuple[int, int]) -> np.ndarray:
        try:
            return self._env.physics.render(*size, camera_id=self._camera)
        except Exception as error:  # the libraries below raise what they like
            raise ValueError(
                f"DM Control cannot draw with MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}); "
                "install Debian's libegl1 or libosmesa6 and leave MUJOCO_GL unset, or learn from "
                "the state (--configs dmc_proprio)"
            ) from error


def _camera(physics: Any, name: str, camera: int) -> int:
    """The number of the camera; ValueError when the task has none of that number."""
    if camera == -1:
        return 2 if name.startswith("quadruped_") else 0
    count = physics.model.ncam
    if not 0 <= camera < count:
        names = [physics.model.id2name(index, "camera") for index in range(count)]
        known = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
        raise ValueError(f"dmc_camera: {name} has no camera {camera}; expected -1 or {known}")
    return camera


def _load() -> ModuleType:
    """The package's suite."""
    try:
        from dm_control import suite
    except (ImportError, RuntimeError, AttributeError) as error:
        # What PyOpenGL raises when a library is missing differs with the library.
        raise ValueError(f"MUJOCO_GL={os.environ['MUJOCO_GL']} does not work: {error}") from error
    return suite


def choose_drawing() -> None:
    """Sets `MUJOCO_GL` where the user has not, and says to what; processes inherit it.

    Raises ValueError where the package is missing.
    """
    if importlib.util.find_spec("dm_control") is None:
        raise ValueError(
            "DM Control tasks need the package dm-control; install the extra `dmc`: "
            'pip install -e ".[dmc]"'
        )
    if "MUJOCO_GL" not in os.environ:
        os.environ["MUJOCO_GL"] = choose_backend()
        print(f"DM Control draws with: MUJOCO_GL={os.environ['MUJOCO_GL']}", flush=True)


def choose_backend() -> str:
    """The first way to draw that works here, or `disabled`.

    Each is tried in a process of its own: a library that is there need not find a device, and
    PyOpenGL keeps to the first one that it was asked for.
    """
    draw = "from dm_control import _render as r; c = r.Renderer(8, 8); c.make_current(); c.free()"
    for backend in BACKENDS:
        env = {**os.environ, "MUJOCO_GL": backend}
        command = [sys.executable, "-c", draw]
        try:
            done = subprocess.run(command, env=env, capture_output=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            return backend
    return "disabled"
