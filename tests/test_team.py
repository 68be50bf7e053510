"""Several workers run one loop in step. Here they are threads, and exchange rows at a barrier."""

import json
import signal
import threading

import numpy as np
import pytest
from test_runner import SETTINGS, FakeAgent

from common.checkpoint import Checkpoints
from common.cluster import Cluster, WorkerLostError
from common.config import Config
from common.data.replay import Replay
from common.envs.scripted import Scripted
from common.log.logger import JSONLOutput, Logger
from dreamerv2.run import runner as lib
from dreamerv2.run.errors import RunBrokenError
from dreamerv2.run.team import Alone, Team


class Agent(FakeAgent):
    """Counts updates; a share of a batch has two sequences."""

    def train(self, batch, state, agent_steps):
        self.updates += 1
        self._calls.append(("update", agent_steps))
        assert batch["counter"].shape[:2] == (2, 5)
        self._on_update(self.updates)
        return {"deter": np.full((2, 1), self.updates, np.float32)}, {"model_loss": 1.0}


class Workers:
    """Runs of as many workers in one logdir."""

    def __init__(self, logdir, size, settings=None, on_update=None):
        self.logdir, self.size = logdir, size
        self._barrier, self._rows = threading.Barrier(size, timeout=30), [None] * size
        self._settings = {"dataset.batch": 2 * size, "train_steps": 1, **(settings or {})}
        self._on_update = on_update or (lambda team, number: None)
        self.calls = [[("start", 0)] for _ in range(size)]
        self.runners, self.seeds, self.codes = {}, {}, {}
        self.errors = {}

    def go(self):
        threads = [threading.Thread(target=self._work, args=(i,)) for i in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [self.codes.get(i) for i in range(self.size)]

    def _exchange(self, index, row):
        try:
            self._rows[index] = row
            self._barrier.wait()
            rows = np.array(self._rows, np.int64)
            self._barrier.wait()
            return rows
        except threading.BrokenBarrierError:
            raise WorkerLostError("worker N is gone") from None

    def _work(self, index):
        cluster = Cluster(tuple(f"host:{port}" for port in range(self.size)), index)
        team = Team(cluster) if self.size > 1 else Alone()
        team.exchange = lambda row: self._exchange(index, row)
        try:
            self.runners[index] = runner = self._make(team, index)
            self.codes[index] = runner.run()
        except Exception as error:
            self.errors[index] = error
            self._barrier.abort()

    def _make(self, team, index):
        config = Config({**SETTINGS, "logdir": str(self.logdir)}).update(self._settings)
        folder = team.folder(self.logdir)

        def make_envs(mode, seeds):
            self.seeds[index, mode] = seeds
            return [Scripted(10 + index, size=8) for _ in seeds]

        return lib.Runner(
            config,
            make_envs=make_envs,
            make_agent=lambda obs_space, act_space: Agent(
                act_space, self.calls[index], on_update=lambda n: self._on_update(team, n)
            ),
            make_replay=lambda mode, seed, agent: Replay(
                folder / f"{mode}_episodes", seed=seed, memory_gib=1, **config.replay
            ),
            make_logger=lambda show: Logger([JSONLOutput(self.logdir)] if team.leads else []),
            team=team,
        )

    def updates(self, index):
        return [steps for kind, steps in self.calls[index] if kind == "update"]


def agent_steps(logdir):
    return int(Checkpoints(logdir / "checkpoints", 2).path().stem)


def test_all_make_the_same_updates_at_the_same_steps(tmp_path):
    workers = Workers(tmp_path, 2)
    assert workers.go() == [0, 0], workers.errors
    assert workers.updates(0) == workers.updates(1)
    # An update in five steps, which the workers make together: each plays half of the run.
    assert len(workers.updates(0)) == 2 + (100 - 26) // 5 + 1
    for index in range(2):
        acted = sum(kind == "train" for kind, _ in workers.calls[index])
        assert acted == (100 - 26) / 2


def test_worker_0_alone_evaluates_logs_and_saves(tmp_path):
    workers = Workers(tmp_path, 2)
    assert workers.go() == [0, 0], workers.errors
    assert any(kind == "eval" for kind, _ in workers.calls[0])
    assert not any(kind in ("eval", "report") for kind, _ in workers.calls[1])
    names = {path.name for path in (tmp_path / "worker_1").iterdir()}
    assert names == {"train_episodes", "eval_episodes"}
    assert agent_steps(tmp_path) == 100
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 100 and any("eval_return" in row for row in rows)


def test_each_has_its_own_seeds_and_episodes(tmp_path):
    workers = Workers(tmp_path, 3)
    assert workers.go() == [0, 0, 0], workers.errors
    seeds = [tuple(workers.seeds[index, "train"]) for index in range(3)]
    assert len(set(seeds)) == 3
    folders = [tmp_path, tmp_path / "worker_1", tmp_path / "worker_2"]
    counts = [len(list((folder / "train_episodes").glob("*.npz"))) for folder in folders]
    assert min(counts) >= 2
    alone = Workers(tmp_path / "alone", 1)
    assert alone.go() == [0], alone.errors
    assert alone.seeds[0, "train"] == workers.seeds[0, "train"]


@pytest.mark.parametrize("heard_by", [0, 1])
def test_a_signal_to_one_saves_and_ends_all(tmp_path, heard_by):
    def interrupt(team, number):
        if number == 6 and team.index == heard_by:
            team.signal.number = signal.SIGTERM

    workers = Workers(tmp_path, 2, on_update=interrupt)
    assert workers.go() == [143, 143], workers.errors
    assert workers.updates(0) == workers.updates(1)
    assert 26 < agent_steps(tmp_path) < 100


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_same_command_goes_on_with_another_number_of_workers(tmp_path, size):
    def interrupt(team, number):
        if number == 6:
            team.signal.number = signal.SIGINT

    assert Workers(tmp_path, 2, on_update=interrupt).go() == [130, 130]
    stopped = agent_steps(tmp_path)
    after = Workers(tmp_path, size)
    assert after.go() == [0] * size, after.errors
    assert agent_steps(tmp_path) >= 100
    assert all(after.updates(index) == after.updates(0) for index in range(size))
    assert min(after.updates(0)) > stopped
    assert {runner.updates for runner in after.runners.values()} == {6 + len(after.updates(0))}


def test_where_one_breaks_the_others_end_with_a_line(tmp_path):
    def fail(team, number):
        if number == 6 and team.index == 1:
            raise KeyError("broken")

    workers = Workers(tmp_path, 2, on_update=fail)
    assert workers.go() == [None, None]
    assert "KeyError: 'broken'" in str(workers.errors[1])
    assert isinstance(workers.errors[0], RunBrokenError)
    assert str(workers.errors[0]).startswith("worker N is gone, at agent step")
    assert f"saved at agent step {agent_steps(tmp_path)}" in str(workers.errors[0])


@pytest.mark.parametrize(
    "row, message",
    [
        ([7, 1, 5, 0], "worker 1 (b:2) is at agent step 7, worker 0 at 9; --logdir must be one"),
        ([9, 2, 5, 0], "worker 1 (b:2) is at agent step 9"),
        ([9, 1, 6, 0], "worker 1 (b:2) has another configuration than worker 0"),
    ],
)
def test_workers_that_do_not_begin_alike_are_refused(row, message):
    team = Team(Cluster(("a:1", "b:2"), 0))
    team.exchange = lambda own: np.array([own, row])
    with pytest.raises(ValueError) as error:
        team.join(9, 1, 5, 40)
    assert message in str(error.value)


def test_the_steps_in_all_replays_count():
    team = Team(Cluster(("a:1", "b:2"), 1))
    team.exchange = lambda own: np.array([[9, 1, 5, 30], own])
    assert team.join(9, 1, 5, 12) == 30
