"""Environments in processes of their own: the same rows, and what happens when a process ends."""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from common.data.driver import EnvLostError
from common.envs import make_envs
from common.envs.remote import LOSSES, Remote
from common.envs.scripted import Scripted

ACTION = np.array([0, 1, 0], np.float32)


class Breaks(Scripted):
    """Does `how` when step `at` of an episode begins; its seed is the skipped frame."""

    def __init__(self, how=None, at=3, seed=0):
        super().__init__(lengths=5, size=8)
        self._how, self._at, self._seed = how, at, seed

    def step(self, action):
        if self._step + 1 == self._at:
            if self._how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self._how == "hang":
                threading.Event().wait()
            if self._how == "raise":
                raise KeyError("a key of the environment")
        return super().step(action)

    def skipped_frames(self):
        return [np.array(self._seed)]


def breaks(how, at, seed):
    return Breaks(how, at, seed)


@pytest.fixture
def remote():
    made = []

    def make(how=None, at=3, **settings):
        made.append(Remote(functools.partial(breaks, how, at), seed=7, **settings))
        return made[-1]

    yield make
    for env in made:
        env.close()


def test_rows_spaces_and_order_of_keys_are_those_of_the_environment_at_home(remote):
    there, here = remote(), Breaks()
    assert list(there.obs_space.items()) == list(here.obs_space.items())
    assert there.act_space == here.act_space and there.action_names == here.action_names
    for _ in range(2):
        rows = [(there.reset(), here.reset())]
        rows += [(there.step(ACTION), here.step(ACTION)) for _ in range(5)]
        for ours, theirs in rows:
            assert list(ours) == list(theirs)
            for key, value in theirs.items():
                np.testing.assert_array_equal(ours[key], value)
                assert np.asarray(ours[key]).dtype == np.asarray(value).dtype, key
    assert rows[-1][0]["is_last"] and rows[0][0]["is_first"]
    np.testing.assert_array_equal(there.render(), here.render())
    assert there.skipped_frames() == [7]


@pytest.mark.parametrize("how, said", [("die", "died"), ("hang", "did not answer")])
def test_a_process_that_ends_or_hangs_loses_its_episode_and_another_goes_on(remote, how, said):
    env = remote(how, patience=4)
    for _ in range(2):
        env.reset()
        env.step(ACTION)
        assert env.step(ACTION)["counter"].tolist() == [2, 0]
        with pytest.raises(EnvLostError, match=said):
            env.step(ACTION)
    env.reset()
    assert env.skipped_frames() != [7], "its seed is another"


def test_one_that_never_gets_through_a_step_ends_the_run(remote):
    env = remote()
    env.close()
    env._make = functools.partial(breaks, "die", 1)
    for _ in range(LOSSES - 1):
        env.reset()
        with pytest.raises(EnvLostError):
            env.step(ACTION)
    env.reset()
    with pytest.raises(ConnectionError, match=f"died {LOSSES} times in a row"):
        env.step(ACTION)


def test_an_exception_of_the_environment_comes_through(remote):
    env = remote("raise")
    env.reset()
    env.step(ACTION)
    env.step(ACTION)
    with pytest.raises(KeyError, match="a key of the environment"):
        env.step(ACTION)


def test_what_fails_at_its_first_step_is_found_before_anything_runs(remote):
    with pytest.raises(ValueError, match="fails at its first step: KeyError: .*a key of the"):
        remote("raise", at=1)
    with pytest.raises(ValueError, match="fails at its first step: its process died"):
        remote("die", at=1)


def test_what_hangs_at_its_first_step_is_found_too_and_nothing_of_it_is_left(remote):
    before = set(multiprocessing.active_children())
    with pytest.raises(ValueError, match=r"hangs: no answer to its first step for 6 seconds$"):
        remote("hang", at=1, start_patience=6)
    assert set(multiprocessing.active_children()) == before


def made_only_once(path, seed):
    """Hangs when it is made again: the first time is that of the trial."""
    if path.exists():
        threading.Event().wait()
    path.touch()
    return Breaks(None, 3, seed)


def test_one_that_hangs_while_it_is_made_in_its_process_is_given_up(tmp_path):
    env = Remote(functools.partial(made_only_once, tmp_path / "made"), 7, start_patience=6)
    for _ in range(LOSSES - 1):
        with pytest.raises(EnvLostError, match="did not answer for 6 seconds"):
            env.reset()
    with pytest.raises(ConnectionError, match="did not answer for 6 seconds 3 times in a row"):
        env.reset()


class NeverCloses(Breaks):
    def close(self):
        threading.Event().wait()


def never_closes(seed):
    return NeverCloses()


def test_an_environment_that_hangs_while_it_closes_is_ended(monkeypatch):
    monkeypatch.setattr("common.envs.remote.CLOSE_PATIENCE", 0.5)
    env = Remote(never_closes, seed=0)
    env.reset()
    (process,) = env._process.processes
    env.close()
    assert not process.is_alive()


def test_what_cannot_be_pickled_is_named():
    lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be pickled .*_thread.lock"):
        Remote(lambda seed: lock, seed=0)


def test_several_environments_are_those_that_each_seed_gives_at_home():
    envs = make_envs("gym_CartPole-v1", [3, 4], time_limit=50)
    try:
        firsts = [env.reset()["vector"] for env in envs]
        for seed, first in zip([3, 4], firsts, strict=True):
            home = make_envs("gym_CartPole-v1", [seed], time_limit=50)
            assert not isinstance(home[0], Remote)
            np.testing.assert_array_equal(home[0].reset()["vector"], first)
        assert (firsts[0] != firsts[1]).any()
    finally:
        for env in envs:
            env.close()


def test_an_environment_object_is_copied_or_cannot_be():
    envs = make_envs(Scripted(lengths=2, size=8), [0, 1])
    try:
        for env in envs:
            env.send()
        assert [env.receive()["counter"].tolist() for env in envs] == [[0, 0]] * 2
    finally:
        for env in envs:
            env.close()
    stuck = Scripted(lengths=2, size=8)
    stuck.lock = threading.Lock()
    with pytest.raises(ValueError, match="cannot be pickled"):
        make_envs(stuck, [0, 1])


# Uses an environment whose process gets the signals of its group, and ends without closing it.
UNCLOSED = """
import os, signal, sys
import numpy as np
sys.path.insert(0, "tests")
from test_envs_remote import ACTION, Remote, breaks
import functools
if __name__ == "__main__":
    env = Remote(functools.partial(breaks, None, 3), seed=7)
    env.reset()
    pid = env._process.processes[0].pid
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
        env.step(ACTION)
    print(pid)
"""


def test_signals_of_the_group_do_not_end_an_environment_and_its_parent_does(project, tmp_path):
    script = tmp_path / "unclosed.py"
    script.write_text(UNCLOSED)
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, script],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
