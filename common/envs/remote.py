"""An environment in a process of its own, through Gymnasium's `AsyncVectorEnv`."""

import collections
import contextlib
import functools
import multiprocessing
import multiprocessing.util
import os
import pickle
import signal
import threading
import weakref
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
from common.interrupt import SIGNALS

START_METHOD = "spawn"  # a copy of this process (fork) would inherit TensorFlow's locks
PATIENCE = 120.0  # for one step or reset [seconds]
START_PATIENCE = 300.0  # to be made, and for the first reset (and step, when tried) [seconds]
CLOSE_PATIENCE = 5.0  # for `close` [seconds]
LOSSES = 3  # in a row without a step between them: there is no hope left
# How a process that died, or does not answer, looks from here.
_LOST = (EOFError, OSError, multiprocessing.TimeoutError, NoAsyncCallError)

# What `survey` found, by the pickled maker: an evaluation makes an environment per episode.
_surveyed: dict[bytes, "Spaces"] = {}
# Those that may have a process.
_open: "weakref.WeakSet[Remote]" = weakref.WeakSet()


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
    patience: seconds that a step or a reset may take. start_patience: the same for the first
      reset, before which the environment is made.

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
        start_patience: float = START_PATIENCE,
    ):
        self._make, self._seed = make, seed
        self._patience, self._start_patience = patience, start_patience
        self.spaces = known or survey(make, seed, start_patience)
        self.obs_space, self.act_space, self.action_names = self.spaces
        self._record = False
        self._starts = self._losses = 0
        self._resets = False  # whether it is a reset that was sent
        self._fresh = True  # whether it has not come through a reset yet
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
            obs = wait(self._limit)[0]
        except _LOST as error:
            self._lose(error)
        self._fresh = False
        if not self._resets:
            self._losses = 0
        return {key: obs[key][0] for key in self.obs_space}

    @property
    def _limit(self) -> float:
        """Seconds that what was sent may take."""
        return self._start_patience if self._fresh else self._patience

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
        (pipe,) = self._process.parent_pipes
        if pipe is not None:  # it is after an exception of the environment
            with contextlib.suppress(OSError):
                pipe.send(("close", None))
        # Not Gymnasium's `close`, which waits for ever for an environment that hangs.
        self._process.processes[0].join(CLOSE_PATIENCE)
        self._end()

    def _start(self) -> None:
        seed = self._seed
        if self._starts:
            seed = int(np.random.SeedSequence((seed, self._starts)).generate_state(1)[0] >> 1)
        self._starts += 1
        self._fresh = True
        _open.add(self)
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
        what = f"did not answer for {self._limit:g} seconds" if timeout else "died"
        if self._losses >= LOSSES:
            raise ConnectionError(
                f"the environment's process {what} {LOSSES} times in a row"
            ) from error
        raise EnvLostError(f"the environment's process {what}") from error

    def _end(self) -> None:
        """Ends the process, whatever it does."""
        for process in self._process.processes:
            process.kill()
            process.join()
        for pipe in self._process.parent_pipes:
            if pipe is not None:
                pipe.close()
        self._process.closed = True
        self._process = None


def _end_all() -> None:
    for remote in list(_open):
        if remote._process is not None:
            remote._end()


# Before multiprocessing ends what is left by SIGTERM, which the environments' processes ignore.
multiprocessing.util.Finalize(None, _end_all, exitpriority=100)


def survey(make: Callable[[int], Env], seed: int, patience: float = START_PATIENCE) -> Spaces:
    """The spaces of `make(seed)`, tried for one step in a process that ends with it.

    Raises ValueError where that fails, whatever the reason, or takes more than `patience` seconds.
    """
    parcel: Any = CloudpickleWrapper(make)  # type: ignore[arg-type]
    try:
        key = pickle.dumps(parcel)
    except Exception as error:  # what is in it raises what it likes
        raise ValueError(
            f"the environment cannot be pickled for a process of its own: {error}"
        ) from error
    if key not in _surveyed:
        found = _ask_another(parcel, seed, patience)
        if isinstance(found, str):
            raise ValueError(found)
        _surveyed[key] = found
    return _surveyed[key]


def _ask_another(parcel: Any, seed: int, patience: float) -> Spaces | str:
    """What another process finds, or what is wrong in words."""
    context: Any = multiprocessing.get_context(START_METHOD)
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_survey, args=(parcel, seed, there))
    process.start()
    there.close()
    try:
        if here.poll(patience):
            return here.recv()
        return f"the environment hangs: no answer to its first step for {patience:g} seconds"
    except EOFError:
        return "the environment fails at its first step: its process died"
    finally:
        process.join(CLOSE_PATIENCE)
        process.kill()
        process.join()
        here.close()


def _survey(make: Any, seed: int, answer: Any) -> None:
    """In that process: sends the spaces, or what is wrong in words."""
    _follow_parent()
    try:
        env = make.fn(seed)
        env.reset()
        env.step(env.act_space.sample())
        answer.send(Spaces(dict(env.obs_space), env.act_space, env.action_names))
        env.close()
    except ValueError as error:  # our own mistakes say all that there is to say
        answer.send(str(error))
    except Exception as error:
        answer.send(f"the environment fails at its first step: {type(error).__name__}: {error}")


class _Seat:
    """Serves the environment in its process; here, where Gymnasium asks for its spaces, only those.

    The environment itself may not be able to live here: see `common/envs/dmc.py`.
    """

    def __init__(self, make: Callable[[int], Env], seed: int, known: Spaces):
        self._make, self._seed, self._spaces = make, seed, known
        self._home = os.getpid()

    def __call__(self) -> gymnasium.Env:
        if os.getpid() == self._home:
            return _Served(None, self._spaces)
        _follow_parent()
        return _Served(functools.partial(self._make, self._seed), self._spaces)


def _follow_parent() -> None:
    """Ends this process with its parent, and not before."""
    # Ctrl-C, a terminal that closes and a scheduler signal all processes of a group; the one at
    # home decides when this one ends.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)


class _Served(gymnasium.Env):
    """Our contract in Gymnasium's clothes. Reward and flags are among the observations.

    The environment is made by the first reset, for which whoever waits has a limit.
    """

    def __init__(self, make: Callable[[], Env] | None, known: Spaces):
        self._make: Any = make
        self.env: Any = None
        self._record = False
        # The order of keys is that of the encoder's inputs; from a plain dict, Dict sorts them.
        self.observation_space = spaces.Dict(collections.OrderedDict(known.obs))
        self.action_space = known.act

    @property
    def record_frames(self) -> bool:
        return self._record

    @record_frames.setter
    def record_frames(self, value: bool) -> None:
        self._record = value
        if self.env is not None:
            self.env.record_frames = value

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Obs, dict]:
        if self.env is None:
            self.env = self._make()
            self.env.record_frames = self._record
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
