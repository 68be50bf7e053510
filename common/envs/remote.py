"""An environment in a process of its own, through Gymnasium's `AsyncVectorEnv`."""

import collections
import concurrent.futures
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import NoAsyncCallError
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.utils import CloudpickleWrapper

from common.data.driver import EnvLostError
from common.envs.base import Env, Obs

START_METHOD = "spawn"  # a copy of this process (fork) would inherit TensorFlow's locks
PATIENCE = 120.0  # for one step or reset [seconds]
LOSSES = 3  # in a row without a step between them: there is no hope left
# How a process that died, or does not answer, looks from here.
_LOST = (EOFError, OSError, multiprocessing.TimeoutError, NoAsyncCallError)

# What `survey` found, by the pickled maker: an evaluation makes an environment per episode.
_surveyed: dict[bytes, "Spaces"] = {}


class Spaces(NamedTuple):
    """What can be said of an environment without having it."""

    obs: dict[str, spaces.Box]
    act: Any
    action_names: tuple[str, ...] | None


class Remote(Env):
    """An environment that works in another process: while others do, or because it must.

    make: `make(seed)` gives the environment, there; it is pickled.
    seed: of the first one; those that replace it get seeds derived from it.
    known: `spaces` of another one of its kind; without it `survey(make, seed)` is asked.
    patience: seconds that a step or a reset may take.

    One step costs about a fifth of a millisecond more than at home. A process that dies or does
    not answer is ended, `receive` raises `EnvLostError`, and the next reset starts another one;
    after three in a row without a step between them it is a plain ConnectionError. An exception
    of the environment itself comes through, and nothing may be called after it.

    Raises ValueError for an environment that cannot be pickled, made, reset or stepped.
    """

    def __init__(
        self,
        make: Callable[[int], Env],
        seed: int,
        known: Spaces | None = None,
        patience: float = PATIENCE,
    ):
        self._make, self._seed, self._patience = make, seed, patience
        self.spaces = known or survey(make, seed)
        self.obs_space, self.act_space, self.action_names = self.spaces
        self._record = False
        self._starts = self._losses = 0
        self._resets = False  # whether it is a reset that was sent
        self._process: Any = None  # an AsyncVectorEnv, where there is one
        self._start()

    def send(self, action: np.ndarray | None = None) -> None:
        if self._process is None:
            self._start()
        self._resets = action is None
        try:
            if self._resets:
                self._process.reset_async()
            else:
                self._process.step_async(np.asarray(action)[None])
        except OSError:
            pass  # `receive` finds the same, and deals with it

    def receive(self) -> Obs:
        try:
            wait = self._process.reset_wait if self._resets else self._process.step_wait
            obs = wait(self._patience)[0]
        except _LOST as error:
            self._lose(error)
        if not self._resets:
            self._losses = 0
        return {key: obs[key][0] for key in self.obs_space}

    def reset(self) -> Obs:
        self.send()
        return self.receive()

    def step(self, action: np.ndarray) -> Obs:
        self.send(action)
        return self.receive()

    def render(self) -> np.ndarray:
        return self._process.call("render")[0]

    def skipped_frames(self) -> list[np.ndarray]:
        return self._process.call("skipped_frames")[0]

    @property
    def record_frames(self) -> bool:
        return self._record

    @record_frames.setter
    def record_frames(self, value: bool) -> None:
        self._record = value
        self._process.set_attr("record_frames", value)

    def close(self) -> None:
        if self._process is None:
            return
        try:
            self._process.close(timeout=1)
        except _LOST:
            self._end()
        self._process = None

    def _start(self) -> None:
        seed = self._seed
        if self._starts:
            seed = int(np.random.SeedSequence((seed, self._starts)).generate_state(1)[0] >> 1)
        self._starts += 1
        self._process = AsyncVectorEnv(
            [_Seat(self._make, seed, self.spaces)],
            context=START_METHOD,
            autoreset_mode=AutoresetMode.DISABLED,
        )
        if self._record:
            self._process.set_attr("record_frames", True)

    def _lose(self, error: Exception) -> None:
        """Ends what is left of the process, and says so; ConnectionError after the last try."""
        self._end()
        self._losses += 1
        timeout = isinstance(error, multiprocessing.TimeoutError)
        what = f"did not answer for {self._patience:g} seconds" if timeout else "died"
        if self._losses >= LOSSES:
            raise ConnectionError(
                f"the environment's process {what} {LOSSES} times in a row"
            ) from error
        raise EnvLostError(f"the environment's process {what}") from error

    def _end(self) -> None:
        """Not `close`, which asks the process."""
        for process in self._process.processes:
            process.kill()
            process.join()
        for pipe in self._process.parent_pipes:
            if pipe is not None:
                pipe.close()
        self._process.closed = True
        self._process = None


def survey(make: Callable[[int], Env], seed: int) -> Spaces:
    """The spaces of `make(seed)`, tried for one step in a process that ends with it.

    Raises ValueError where that fails, whatever the reason.
    """
    parcel: Any = CloudpickleWrapper(make)  # type: ignore[arg-type]
    try:
        key = pickle.dumps(parcel)
    except Exception as error:  # what is in it raises what it likes
        raise ValueError(
            f"the environment cannot be pickled for a process of its own: {error}"
        ) from error
    if key not in _surveyed:
        context = multiprocessing.get_context(START_METHOD)
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            try:
                _surveyed[key] = pool.submit(_survey, parcel, seed).result()
            except Exception as error:  # so do environments
                raise ValueError(_failed(error)) from error
    return _surveyed[key]


def _failed(error: Exception) -> str:
    # Our own mistakes say all that there is to say.
    if isinstance(error, ValueError):
        return str(error)
    return f"the environment fails at its first step: {type(error).__name__}: {error}"


def _survey(make: Any, seed: int) -> Spaces:
    env = make.fn(seed)
    try:
        env.reset()
        env.step(env.act_space.sample())
        return Spaces(dict(env.obs_space), env.act_space, env.action_names)
    finally:
        env.close()


class _Seat:
    """Makes the environment in its process; here, where Gymnasium asks for its spaces, only those.

    The environment itself may not be able to live here: see `common/envs/dmc.py`.
    """

    def __init__(self, make: Callable[[int], Env], seed: int, known: Spaces):
        self._make, self._seed, self._spaces = make, seed, known
        self._home = os.getpid()

    def __call__(self) -> gymnasium.Env:
        if os.getpid() == self._home:
            return _Served(None, self._spaces)
        # Ctrl-C goes to all processes of a terminal; the one at home decides when this one ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        return _Served(self._make(self._seed), self._spaces)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)


class _Served(gymnasium.Env):
    """Our contract in Gymnasium's clothes. Reward and flags are among the observations."""

    def __init__(self, env: Env | None, known: Spaces):
        self.env: Any = env
        # The order of keys is that of the encoder's inputs; from a plain dict, Dict sorts them.
        self.observation_space = spaces.Dict(collections.OrderedDict(known.obs))
        self.action_space = known.act

    @property
    def record_frames(self) -> bool:
        return self.env.record_frames

    @record_frames.setter
    def record_frames(self, value: bool) -> None:
        self.env.record_frames = value

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Obs, dict]:
        return self.env.reset(), {}

    def step(self, action: np.ndarray) -> tuple[Obs, float, bool, bool, dict]:
        return self.env.step(action), 0.0, False, False, {}

    def render(self) -> np.ndarray:
        return self.env.render()

    def skipped_frames(self) -> list[np.ndarray]:
        return self.env.skipped_frames()

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
