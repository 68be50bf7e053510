import errno
import io
import json
import math
import os
import random
import re
import signal
import sys
import threading
from unittest.mock import Mock

import gymnasium
import numpy as np
import pytest

from common import checkpoint
from common.config import Config
from common.data.replay import Replay
from common.envs.scripted import Scripted
from common.log.logger import JSONLOutput, Logger, Tolerant
from common.log.metrics import read_metrics
from common.seeds import derive_seed
from common.when import EverySeconds
from dreamerv2.run import collector, failure, finish, snapshot
from dreamerv2.run import runner as lib
from dreamerv2.run.errors import NonFiniteError, RunBrokenError
from dreamerv2.run.lock import LockedError

SETTINGS = {
    "seed": 3,
    "start_from": "",
    "env": "",
    "envs": 1,
    "steps": 100,
    "action_repeat": 4,
    "prefill": 25,
    "pretrain": 2,
    "train_every": 5,
    "train_steps": 2,
    "eval_every": 30,
    "eval_eps": 2,
    "save_every": 0,
    "fall_back": False,
    "max_bad_episodes": 2,
    "precision": 32,
    "time_limit": 0,
    "log_every": 20,
    "keep_checkpoints": 2,
    "video_frames": 7,
    "log_keys_video": ["image", "absent"],
    "log_keys_sum": "reward",
    "log_keys_mean": "^$",
    "log_keys_max": "counter",
    "log_keys_success": "^$",
    "expl_behavior": "greedy",
    "expl_until": 0,
    "replay": {"capacity": 1000, "minlen": 5},
    "dataset": {"batch": 2, "length": 5},
}
# Metrics that tell of the machine and its clock.
TIMES = ("time_", "fps", "hours", "cpu_seconds", "memory_gib", "updates_per_second")


class FakeAgent:
    """Counts what it is asked to do and writes it down; learns nothing.

    failure: metrics that replace its own from update `fails_at` on.
    on_update: called with the number of each update.
    """

    def __init__(self, act_space, calls, failure=None, fails_at=10, on_update=lambda n: None):
        self.updates = 0
        self.weights = np.zeros(4, np.float32)
        self._act_space = act_space
        self._calls = calls
        self._failure, self._fails_at, self._on_update = failure or {}, fails_at, on_update

    def named_variables(self):
        return {"wm/layer/kernel": self.weights, "model_opt/m/kernel": self.weights}

    def policy(self, obs, state, mode):
        for first, (step, episode) in zip(obs["is_first"], obs["counter"], strict=True):
            if mode == "train" and self._calls[-1][0] != "reset" and first:
                self._calls.append(("reset", int(episode)))
            self._calls.append((mode, int(step)))
        action = np.zeros((len(obs["is_first"]), *self._act_space.shape), np.float32)
        action[:, 0] = 1
        return {"action": action}, None

    def train(self, batch, state, agent_steps):
        # Carried from update to update, over resumes too.
        assert (0 if state is None else float(state["deter"][0, 0])) == self.updates
        self.updates += 1
        self._calls.append(("update", agent_steps))
        # Sensitive to every batch, so that a resumed run shows whether it draws the same.
        seen = batch["counter"].sum() + batch["is_first"].sum()
        self.weights = self.weights * np.float32(0.9) + np.float32(seen)
        self._on_update(self.updates)
        metrics = {"kl_loss": 1.0, "model_loss": float(seen), "model_grad_norm": 1.0}
        if self.updates >= self._fails_at:
            metrics |= self._failure
        return {"deter": np.full((2, 1), self.updates, np.float32)}, metrics

    def report(self, batch):
        self._calls.append(("report", 0))
        return {"openl_image": batch["image"][0].astype(np.float32) / 255}

    def nonfinite(self):
        return None if np.isfinite(self.weights).all() else "wm/layer/kernel"

    def state_dict(self):
        return {"kernel": self.weights, "updates": np.array(self.updates)}

    def load_state_dict(self, arrays):
        if set(arrays) != {"kernel", "updates"}:
            raise ValueError(f"saved variables do not match the agent: {sorted(arrays)}")
        self.weights, self.updates = arrays["kernel"], int(arrays["updates"])


class Collect:
    def __init__(self):
        self.clips = []

    def write(self, step, scalars, clips):
        self.clips += [(step, name, frames.shape) for name, frames in clips.items()]

    def close(self):
        pass


def make(
    tmp_path,
    calls=None,
    outputs=(),
    lengths=10,
    settings=None,
    with_eval=True,
    env=None,
    eval_env=None,
    **agent,
):
    """A runner on scripted environments with a fake agent."""
    config = Config({**SETTINGS, "logdir": str(tmp_path)}).update(settings or {})
    calls = [("start", 0)] if calls is None else calls

    def make_envs(mode, seeds):
        if mode == "eval" and not with_eval:
            return []
        given = env if mode == "train" else eval_env
        return [given or Scripted(lengths, size=8) for _ in seeds]

    return lib.Runner(
        config,
        make_envs=make_envs,
        make_agent=lambda obs_space, act_space: FakeAgent(act_space, calls, **agent),
        make_replay=lambda mode, seed, agent: Replay(
            tmp_path / f"{mode}_episodes", seed=seed, memory_gib=1, **config.replay
        ),
        make_logger=lambda show: Logger([JSONLOutput(tmp_path), *outputs], config.action_repeat),
    )


def rows_of(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def without_times(rows):
    return [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in rows]


def test_prefill_then_pretrain_then_evaluation_and_training_in_turn(tmp_path):
    calls = [("start", 0)]
    assert make(tmp_path, calls).run() == 0
    kinds = [kind for kind, _ in calls]
    assert kinds[1:3] == ["update", "update"]
    assert [steps for kind, steps in calls if kind == "update"][:2] == [25, 25]
    assert kinds[3:24] == ["eval"] * 20 + ["report"]
    assert kinds[24] == "reset"
    # Four evaluations: at 25, 55 and 85 of 100 steps, and of the last agent.
    assert kinds.count("report") == 4 and kinds.count("eval") == 80
    assert kinds[-21:] == ["eval"] * 20 + ["report"]
    assert kinds.count("train") == 75
    updates = [steps for kind, steps in calls if kind == "update"][2:]
    assert updates == [26 + 5 * (i // 2) for i in range(30)]


def test_tail_of_prefill_is_not_glued_to_the_first_episode(tmp_path):
    calls = [("start", 0)]
    make(tmp_path, calls).run()
    assert calls[calls.index(("report", 0)) + 1] == ("reset", 3)
    for path in (tmp_path / "train_episodes").iterdir():
        with np.load(path) as episode:
            assert episode["counter"][:, 0].tolist() == list(range(11))
            assert len(set(episode["counter"][:, 1])) == 1


def test_prefill_lasts_at_least_one_episode(tmp_path):
    make(tmp_path, lengths=60).run()
    rows = rows_of(tmp_path)
    assert rows[0]["train_length"] == 60
    assert checkpoint.Checkpoints(tmp_path / "checkpoints", 2).all()


def test_prefill_that_replay_cannot_use_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(lib, "PREFILL_PATIENCE", 50)
    with pytest.raises(lib.RunError, match="minlen"):
        make(tmp_path / "short", lengths=3).run()
    with pytest.raises(lib.RunError, match="ended in .* steps; --time_limit N ends them"):
        make(tmp_path / "endless", lengths=10**6).run()


def test_metrics_have_the_reference_names_and_count_frames(tmp_path):
    make(tmp_path).run()
    rows = rows_of(tmp_path)
    episode = next(row for row in rows if "train_return" in row)
    assert episode["step"] == 40 and episode["train_length"] == 10
    assert episode["train_total_steps"] == 10 and episode["train_loaded_episodes"] == 1
    assert episode["sum_train_reward"] == episode["train_return"]
    assert episode["max_train_counter"] == 5.0  # 10 steps and episode 0
    evaluation = next(row for row in rows if "eval_return" in row)
    assert evaluation["step"] == 100 and evaluation["eval_return"] == 10
    updates = [row for row in rows if "model_loss" in row]
    assert [row["step"] for row in updates] == [104, 184, 264, 344, 400]
    assert [row["updates"] for row in updates] == [4, 12, 20, 28, 32]
    shares = [updates[1][f"time_{name}"] for name in ("env", "policy", "data", "train", "eval")]
    assert 0 < sum(shares) <= 1
    assert {"updates_per_second", "memory_gib", "hours", "fps"} <= updates[1].keys()


def recorded(train, losses):
    """`Agent.train` which appends the loss of each update."""

    def record(batch, state, agent_steps):
        state, metrics = train(batch, state, agent_steps)
        losses.append(metrics["model_loss"])
        return state, metrics

    return record


def test_metrics_are_averaged_over_the_interval(tmp_path):
    losses = []
    runner = make(tmp_path)
    runner._agent.train = recorded(runner._agent.train, losses)
    runner.run()
    logged = [row["model_loss"] for row in rows_of(tmp_path) if "model_loss" in row]
    assert logged[0] == pytest.approx(np.mean(losses[2:4]))
    assert logged[1] == pytest.approx(np.mean(losses[4:12]))


def test_clips_of_every_evaluation_are_capped(tmp_path):
    output = Collect()
    make(tmp_path, outputs=[output]).run()
    policy = [clip for clip in output.clips if clip[1] == "eval_policy_image"]
    assert policy == [(step, "eval_policy_image", (7, 8, 8, 3)) for step in (100, 220, 340, 400)]
    assert [clip[1] for clip in output.clips].count("eval_openl_image") == 4


def test_without_an_evaluation_environment_the_report_is_of_training_data(tmp_path):
    output = Collect()
    make(tmp_path, outputs=[output], with_eval=False).run()
    assert {clip[1] for clip in output.clips} == {"eval_openl_image"}


def test_same_seed_gives_the_same_metrics(tmp_path):
    for name in ("a", "b"):
        make(tmp_path / name).run()
    make(tmp_path / "c", settings={"seed": 4}).run()
    a, b, c = (without_times(rows_of(tmp_path / name)) for name in "abc")
    assert a == b and a != c


def test_checkpoints_are_written_and_the_last_stay(tmp_path):
    make(tmp_path).run()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["000000000085.npz", "000000000100.npz"]


def test_checkpoint_is_enough_to_rebuild_spaces_and_config(tmp_path):
    make(tmp_path).run()
    _, meta = checkpoint.load(checkpoint.Checkpoints(tmp_path / "checkpoints", 2).path())
    env = Scripted(size=8)
    obs_space, act_space = snapshot.restore_spaces(meta["spaces"])
    assert act_space == env.act_space
    assert {k: (v.shape, v.dtype) for k, v in obs_space.items()} == {
        k: (v.shape, v.dtype) for k, v in env.obs_space.items()
    }
    assert Config(meta["config"]).flat == Config.load(tmp_path / "config.yaml").flat
    assert meta["agent_steps"] == 100 and meta["updates"] == 32
    assert meta["action_names"] == list(env.action_names)


def test_a_finished_run_does_nothing_more(tmp_path, capsys):
    make(tmp_path).run()
    calls = [("start", 0)]
    before = rows_of(tmp_path)
    done = capsys.readouterr().out.splitlines()[-1]
    assert done.startswith("Done: 100 agent steps, 32 updates, ")
    assert "; last evaluation 10 (2 episodes); " in done
    runner = make(tmp_path, calls)
    assert finish.finished(runner._config) == done
    assert finish.finished(runner._config.update({"steps": 101})) is None
    assert runner.run() == 0
    assert calls == [("start", 0)]
    assert rows_of(tmp_path) == before
    assert capsys.readouterr().out.splitlines()[-1] == done


def test_a_last_evaluation_that_was_cut_short_is_made_by_the_next_run(tmp_path):
    calls = [("start", 0)]
    runner = make(tmp_path, calls)
    evaluate = runner._agent.policy

    def policy(obs, state, mode):
        if mode == "eval" and runner.step == 100:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(obs, state, mode)

    runner._agent.policy = policy
    assert runner.run() == 128 + signal.SIGTERM
    assert finish.finished(runner._config) is None
    again = [("start", 0)]
    assert make(tmp_path, again).run() == 0
    assert [kind for kind, _ in again[1:]] == ["eval"] * 20 + ["report"]
    assert finish.finished(runner._config)


def test_the_last_evaluation_leaves_no_trace_in_what_is_saved(tmp_path):
    runner = make(tmp_path)
    save, saved = runner._checkpoints.save, []
    runner._checkpoints.save = lambda step, *state, **_: saved.append(state) or save(step, *state)
    runner.run()
    (before, meta_before), (after, meta_after) = saved[-2:]
    assert all((before[key] == after[key]).all() for key in {**before, **after})
    assert meta_before["run"].pop("evaluation") == {"agent_steps": 85, "returns": [10, 10]}
    assert meta_after["run"].pop("evaluation") == {"agent_steps": 100, "returns": [10, 10]}
    for meta in (meta_before, meta_after):
        del meta["run"]["logger"]  # clocks
    assert meta_before == meta_after


def test_the_last_updates_are_logged_and_a_run_that_goes_on_logs_as_if_it_had_not_ended(tmp_path):
    losses = []
    for steps in (100, 130):
        runner = make(tmp_path, settings={"steps": steps})
        runner._agent.train = recorded(runner._agent.train, losses)
        runner.run()
    logged = {r["step"]: r["model_loss"] for r in rows_of(tmp_path) if "model_loss" in r}
    assert list(logged) == [104, 184, 264, 344, 400, 424, 504]
    assert logged[400] == pytest.approx(np.mean(losses[28:32]))
    assert logged[424] == pytest.approx(np.mean(losses[28:36]))


def test_resume_with_more_steps_goes_on_and_says_what_changed(tmp_path, capsys):
    make(tmp_path).run()
    capsys.readouterr()
    calls = [("start", 0)]
    path = checkpoint.Checkpoints(tmp_path / "checkpoints", 2).path()
    written = path.stat().st_mtime_ns
    make(tmp_path, calls, settings={"steps": 130, "keep_checkpoints": 9}).run()
    assert path.stat().st_mtime_ns == written
    out = capsys.readouterr().out
    assert "Resuming at agent step 100 with 32 updates" in out
    assert "steps: 100 -> 130" in out and "seed" not in out
    # Neither prefill nor pretraining nor an evaluation before it is due at 115.
    assert calls[1][0] == "reset" and calls[2][0] == "train"
    assert [steps for kind, steps in calls if kind == "report"] == [0, 0]  # at 115 and 130
    assert [kind for kind, _ in calls].count("train") == 30
    assert rows_of(tmp_path)[-1]["step"] <= 520


def run_to(tmp_path, updates, settings=None):
    """The weights after so many updates; the run is interrupted for it, and may be resumed."""

    def stop(number):
        if number == updates:
            os.kill(os.getpid(), signal.SIGTERM)

    runner = make(tmp_path, settings=settings, on_update=stop)
    assert runner.run() == 128 + signal.SIGTERM
    return runner._agent.weights


@pytest.mark.parametrize("cut_at", [1, 6, 19])
def test_interrupted_updates_go_on_with_the_same_batches(tmp_path, cut_at):
    # Sequences of 7 to 11 rows in chunks of 4: some are cut, and go on in the next chunk.
    settings = {"replay.minlen": 7, "dataset.length": 4, "prefill": 60, "pretrain": 20}
    whole = run_to(tmp_path / "whole", 20, settings)
    run_to(tmp_path / "cut", cut_at, settings)
    np.testing.assert_array_equal(run_to(tmp_path / "cut", 20, settings), whole)


def test_a_signal_saves_and_a_second_run_resumes(tmp_path):
    run_to(tmp_path, 9)
    _, meta = checkpoint.load(checkpoint.Checkpoints(tmp_path / "checkpoints", 2).path())
    # Two pretraining updates, then two at 26, 31, 36, 41: the step at hand is finished.
    assert (meta["agent_steps"], meta["updates"]) == (41, 10)
    calls = [("start", 0)]
    make(tmp_path, calls).run()
    assert [steps for kind, steps in calls if kind == "update"][:2] == [46, 46]
    assert rows_of(tmp_path)[-1]["step"] > 164


def test_a_resumed_run_has_all_the_state_of_the_interrupted_one(tmp_path):
    def stop(number):
        random.random(), np.random.rand()  # as some environment may
        if number == 15:
            os.kill(os.getpid(), signal.SIGTERM)

    skipping = {"model_skipped": 1.0}
    runner = make(tmp_path, on_update=stop, failure=skipping, fails_at=3)
    runner.run()
    arrays, meta = runner._state()
    again, meta_again = make(tmp_path, failure=skipping)._state()
    assert arrays.keys() == again.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    clocks, clocks_again = (m["run"].pop("logger") for m in (meta, meta_again))
    for one in (clocks, clocks_again):
        one.pop("cpu_seconds", None)  # of the process, which is the same one here
    assert clocks_again == pytest.approx(clocks, abs=5)
    assert clocks["fps_step"] == clocks_again["fps_step"] > 0
    assert meta["run"]["averages"] and meta["run"]["guard"]["skipped"]
    assert json.loads(json.dumps(meta_again)) == json.loads(json.dumps(meta))


def test_a_signal_in_the_prefill_keeps_what_is_left_of_it(tmp_path):
    runner = make(tmp_path)
    play = runner._collector.play

    def play_and_interrupt(policy):
        play(policy)
        if runner.step == 15:
            os.kill(os.getpid(), signal.SIGINT)

    runner._collector.play = play_and_interrupt
    assert runner.run() == 128 + signal.SIGINT
    calls = [("start", 0)]
    make(tmp_path, calls).run()
    assert [steps for kind, steps in calls if kind == "update"][:2] == [25, 25]


def test_signal_handlers_are_restored(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    run_to(tmp_path, 3)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_killed_run_logged_beyond_its_checkpoint_is_read_no_more(tmp_path):
    make(tmp_path).run()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 401, "train_return": -7}\n{"step": 409, "train_return": -7}\n')
    make(tmp_path, settings={"steps": 130}).run()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert -7 not in [row.get("train_return") for row in rows]
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)


def test_a_run_killed_before_its_first_checkpoint_counts_the_steps_in_replay(tmp_path):
    make(tmp_path).run()
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()
    calls = [("start", 0)]
    runner = make(tmp_path, calls, settings={"steps": 200})
    assert runner.step == 90  # nine episodes of ten steps
    runner.run()
    assert [steps for kind, steps in calls if kind == "update"][:2] == [90, 90]


def files_of(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_another_architecture_changes_nothing(tmp_path):
    make(tmp_path).run()
    path = checkpoint.Checkpoints(tmp_path / "checkpoints", 2).path()
    arrays, meta = checkpoint.load(path)
    arrays["agent/extra"] = np.zeros(3)
    checkpoint.save(path, arrays, meta)
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match="do not match"):
        make(tmp_path, settings={"steps": 500})
    assert files_of(tmp_path) == before


def test_a_truncated_checkpoint_is_named_and_nothing_lost(tmp_path):
    make(tmp_path).run()
    path = checkpoint.Checkpoints(tmp_path / "checkpoints", 2).path()
    path.write_bytes(path.read_bytes()[:-1000])
    before = files_of(tmp_path)
    with pytest.raises(lib.RunError, match="000000000100.npz.*resume from .*000000000085.npz"):
        make(tmp_path)
    assert files_of(tmp_path) == before
    path.rename(tmp_path / "aside.npz")
    assert make(tmp_path).step == 85


def test_a_loss_that_is_not_finite_stops_the_run_and_what_went_into_it_is_put_aside(tmp_path):
    failure = {"kl_loss": float("nan"), "model_loss": float("nan")}
    with pytest.raises(NonFiniteError, match="kl_loss is not finite at agent step 41, update 10"):
        make(tmp_path, failure=failure).run()
    folder = tmp_path / "failure" / "000000000041"
    with np.load(folder / "batch.npz") as batch:
        assert batch["image"].shape == (2, 5, 8, 8, 3)
        seen = batch["counter"].sum() + batch["is_first"].sum()
    arrays, meta = checkpoint.load(folder / "checkpoint.npz")
    assert meta["updates"] == arrays["agent/updates"] == 9 == arrays["carry/deter"][0, 0]
    # The update does what it did: from these weights, with this batch.
    whole = run_to(tmp_path / "whole", 9)
    np.testing.assert_array_equal(arrays["agent/kernel"] * np.float32(0.9) + seen, whole)
    # The last good checkpoint is untouched, so that the run can go on from there.
    assert make(tmp_path).step == 25


def test_a_failure_that_cannot_be_kept_is_still_said_and_saves_nothing(tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(failure, "_fill", Mock(side_effect=full))
    runner = make(tmp_path, failure={"kl_loss": float("nan")})
    with pytest.raises(NonFiniteError, match="kl_loss is not finite .*could not be kept .No space"):
        runner.run()
    assert list((tmp_path / "failure").iterdir()) == []
    assert make(tmp_path).step == 25


def test_each_failure_has_a_folder_of_its_own(tmp_path):
    failure = {"kl_loss": float("nan")}
    for _ in range(2):
        with pytest.raises(NonFiniteError, match="the same command goes on from .*25.npz"):
            make(tmp_path, failure=failure).run()
    names = sorted(path.name for path in (tmp_path / "failure").iterdir())
    assert names == ["000000000041", "000000000041-2"]


def test_a_parameter_that_is_not_finite_never_reaches_a_checkpoint(tmp_path):
    runner = make(tmp_path)

    def spoil(number):
        if number == 20:
            runner._agent.weights = np.full(4, np.nan, np.float32)

    runner._agent._on_update = spoil
    with pytest.raises(NonFiniteError, match="wm/layer/kernel"):
        runner.run()
    for path in (tmp_path / "checkpoints").iterdir():
        assert np.isfinite(checkpoint.load(path)[0]["agent/kernel"]).all()


def test_skipped_updates_are_tolerated_until_they_do_not_end(tmp_path):
    nan = {"model_loss": float("nan"), "model_grad_norm": float("inf")}
    make(tmp_path / "few", failure={**nan, "model_skipped": 1.0}).run()
    rows = [row for row in rows_of(tmp_path / "few") if "model_loss" in row]
    assert rows[-1]["model_skipped"] == 1.0 and rows[-1]["model_loss"] is None

    runner = make(tmp_path / "many", settings={"steps": 400})
    train = runner._agent.train

    def skipping(batch, state, agent_steps):
        state, metrics = train(batch, state, agent_steps)
        endless = {"model_grad_norm": float("inf"), "model_skipped": float(runner._agent.updates)}
        return state, {**metrics, **endless}

    runner._agent.train = skipping
    with pytest.raises(NonFiniteError, match="model gradient.*update 50"):
        runner.run()


def test_logdir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="logdir .*file/run cannot be written"):
        lib.lock_logdir(tmp_path / "file" / "run")


def test_parameter_table_leaves_out_moments_and_counters():
    variables = {
        "updates": np.zeros(()),
        "wm/encoder/conv0/kernel": np.zeros((4, 4, 1, 2)),
        "wm/encoder/conv0/bias": np.zeros(2),
        "model_opt/m/wm/encoder/conv0/bias": np.zeros(2),
    }
    table = lib.parameter_table(variables)
    assert table.splitlines() == ["Parameters: 34", "  wm/encoder           34"]


def test_derived_seeds_differ_by_purpose_and_step():
    seeds = {derive_seed(0, *purpose) for purpose in [("env", 0), ("env", 1), ("eval",)]}
    assert len(seeds) == 3 and all(0 <= seed < 2**31 for seed in seeds)


def test_random_state_is_restored():
    snapshot.seed_generators(5)
    random.gauss(0, 1), np.random.normal()
    state = json.loads(json.dumps(snapshot.random_state()))
    expected = [random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand()]
    snapshot.seed_generators(0)
    snapshot.load_random_state(state)
    assert [random.gauss(0, 1), random.random(), np.random.normal(), np.random.rand()] == expected


def test_bfloat16_state_survives_a_checkpoint(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    tensors = {"deter": np.array([1.5, 3.140625], ml_dtypes.bfloat16), "stoch": np.ones(2)}
    arrays, dtypes = snapshot.pack_tensors(tensors)
    checkpoint.save(tmp_path / "x.npz", arrays, {})
    back = snapshot.unpack_tensors(checkpoint.load(tmp_path / "x.npz")[0], dtypes)
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        np.testing.assert_array_equal(back[name], value)


# What goes wrong


class Ending(Scripted):
    """Raises at agent step `at`, counted over all episodes."""

    def __init__(self, at, error):
        super().__init__(10, size=8)
        self._left, self._error = at, error

    def step(self, action):
        self._left -= 1
        if self._left == 0:
            raise self._error
        return super().step(action)


@pytest.mark.parametrize("at", [10, 40, 70])
def test_an_exception_of_the_environment_saves_first_and_says_how_to_go_on(tmp_path, at):
    runner = make(tmp_path, env=Ending(at, ZeroDivisionError("division by zero")))
    expected = (
        f"ZeroDivisionError: division by zero, at agent step {at - 1}; saved at agent step "
        f"{at - 1}; the same command goes on from .*{at - 1:012d}.npz; traceback in .*failure"
    )
    with pytest.raises(RunBrokenError, match=expected):
        runner.run()
    (trace,) = tmp_path.glob("failure/*/traceback.txt")
    assert "in step" in trace.read_text()
    again = make(tmp_path)
    assert again.step == at - 1 and again.updates == runner.updates
    assert again.run() == 0


def test_half_an_update_is_not_saved(tmp_path):
    def fail(number):
        if number == 8:
            raise MemoryError

    with pytest.raises(
        RunBrokenError, match="MemoryError, .* half an update is not saved; .*25.npz"
    ):
        make(tmp_path, on_update=fail).run()
    assert make(tmp_path).step == 25


class Closed(io.StringIO):
    """A stream whose reader goes away after some lines."""

    def __init__(self, lines):
        super().__init__()
        self._lines = lines

    def write(self, text):
        self._lines -= 1
        if self._lines < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize("lines", range(5, 12))
def test_a_closed_standard_output_saves_first(tmp_path, lines, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Closed(lines))
    runner = make(tmp_path)
    with pytest.raises(RunBrokenError, match="standard output was closed, .*; saved at agent step"):
        runner.run()
    monkeypatch.undo()
    again = make(tmp_path)
    assert (again.step, again.updates) == (runner.step, runner.updates)
    assert again.run() == 0


def test_a_terminal_that_is_gone_is_a_hang_up(tmp_path, monkeypatch):
    stream = Closed(1000)
    monkeypatch.setattr(sys, "stdout", stream)

    def hang_up(number):
        if number == 9:
            stream._lines = 0
            os.kill(os.getpid(), signal.SIGHUP)

    runner = make(tmp_path, on_update=hang_up)
    assert runner.run() == 128 + signal.SIGHUP
    monkeypatch.undo()
    assert make(tmp_path).step == runner.step == 41


def test_a_full_disk_ends_in_one_line_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    runner = make(tmp_path)
    save = checkpoint.save

    def full(path, arrays, meta):
        if int(path.stem) > 50:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(path, arrays, meta)

    monkeypatch.setattr(checkpoint, "save", full)
    expected = (
        "No space left on device: .*55.npz, .*could not be saved.*free some space, and the same"
    )
    with pytest.raises(RunBrokenError, match=expected):
        runner.run()
    monkeypatch.undo()
    assert make(tmp_path).step == 25


def test_logs_that_cannot_be_written_do_not_end_the_run(tmp_path, capsys):
    class Full:
        def __init__(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    show = []
    make(tmp_path, outputs=[Tolerant("the log", Full, show.append)]).run()
    assert make(tmp_path).step == 100
    assert len(show) == 1 and "the log cannot be written (No space left on device)" in show[0]


def test_checkpoints_by_the_clock_stand_beside_the_others(tmp_path, monkeypatch):
    runner, saved = make(tmp_path), []
    save = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda path, *a: (saved.append(int(path.stem)), save(path, *a))
    )
    runner._save_due = EverySeconds(7, now=lambda: runner.step)
    runner.run()
    assert saved == [
        25,
        25,
        32,
        39,
        46,
        53,
        55,
        62,
        69,
        76,
        83,
        85,
        92,
        99,
        100,
        100,
    ]  # and with the evaluation
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["000000000085.npz", "000000000100.npz"]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    save, gone_on, seen = checkpoint.save, threading.Event(), []

    def slow(path, *args):
        if int(path.stem) == 25:
            seen.append(gone_on.wait(30))
        save(path, *args)

    monkeypatch.setattr(checkpoint, "save", slow)
    runner = make(tmp_path, on_update=lambda _: gone_on.set() if runner.step > 30 else None)
    assert runner.run() == 0 and seen == [True]
    assert make(tmp_path).step == 100


def test_a_checkpoint_by_the_clock_takes_no_place_after_a_kill_either(tmp_path):
    class KilledError(BaseException):
        """Ends a run as a kill does: nothing is saved."""

    def die(at):
        runner = make(tmp_path)
        runner._save_due = EverySeconds(7, now=lambda: runner.step)

        def update(number):
            if runner.step >= at:
                raise KilledError

        runner._agent._on_update = update
        with pytest.raises(KilledError):
            runner.run()
        runner._checkpoints.wait()
        return [int(path.stem) for path in runner._checkpoints.all()]

    assert [die(51), die(61), die(81)] == [[25, 46], [25, 55], [25, 55, 76]]


def test_environments_are_closed_when_a_run_cannot_be_built(tmp_path):
    class Closing(Scripted):
        closed = 0

        def close(self):
            Closing.closed += 1

    with pytest.raises(TypeError):
        make(tmp_path, env=Closing(10, size=8), eval_env=Closing(10, size=8), no_such_setting=1)
    assert Closing.closed == 2


def test_an_environment_of_evaluation_with_other_spaces_is_refused_before_anything(tmp_path):
    message = "environment of evaluation is not that of training: observation 'image' was"
    with pytest.raises(ValueError, match=message):
        make(tmp_path, eval_env=Scripted(10, size=9))


def test_a_training_episode_that_does_not_end_is_told_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(collector, "ENDLESS", 12)
    make(tmp_path, lengths=30, settings={"eval_eps": 0}).run()
    said = capsys.readouterr().out
    warnings = said.count("WARNING: a training episode has not ended for 12 agent steps")
    assert 3 <= warnings <= 5  # in 100 steps, once in each episode
    make(tmp_path / "short", lengths=10).run()
    assert "has not ended" not in capsys.readouterr().out


def test_a_finished_run_says_what_of_a_command_it_ignores(tmp_path):
    runner = make(tmp_path)
    runner.run()
    again = runner._config.update({"seed": 4, "steps": 90})
    first, second = finish.finished(again).splitlines()
    assert first.startswith("Done: 100 agent steps")
    assert second == "  the run is done, so this changes nothing: seed: 3 -> 4"


def test_an_environment_that_does_not_close_ends_no_finished_run(tmp_path, capsys):
    class Stuck(Scripted):
        def close(self):
            raise RuntimeError("display is gone")

    assert make(tmp_path, env=Stuck(10, size=8)).run() == 0
    said = capsys.readouterr().out
    assert "an environment did not close: RuntimeError: display is gone" in said
    assert "Done: 100 agent steps" in said
    make(tmp_path)  # the lock is free


def test_a_long_pretraining_shows_how_far_it_is(tmp_path, monkeypatch):
    seen = []
    runner = make(tmp_path, settings={"pretrain": 20})
    update = runner._progress.update

    def note(steps, updates):
        seen.append((runner._progress._phase, updates))
        update(steps, updates)

    monkeypatch.setattr(runner._progress, "update", note)
    runner.run()
    assert [("pretrain", number) in seen for number in (1, 19, 20)] == [True] * 3


def test_a_checkpoint_by_the_clock_is_one_to_go_on_from(tmp_path):
    runner = make(tmp_path)
    runner._save_due = EverySeconds(7, now=lambda: runner.step)
    runner._agent._on_update = lambda number: 1 / 0 if runner.step >= 51 else None
    with pytest.raises(RunBrokenError):
        runner.run()
    assert make(tmp_path).step == 46


def test_an_evaluation_that_does_not_end_is_cut_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(collector, "ENDLESS", 15)
    make(tmp_path, eval_env=Scripted(10**9, size=8)).run()
    lengths = [row["eval_length"] for row in rows_of(tmp_path) if "eval_length" in row]
    assert lengths == [15] * 8
    assert capsys.readouterr().out.count("the evaluation episode was cut after 15 agent steps") == 8
    for path in (tmp_path / "eval_episodes").iterdir():
        with np.load(path) as episode:
            assert episode["is_last"][-1] and not episode["is_terminal"].any()


def test_two_runs_in_one_logdir_are_refused(tmp_path):
    first = make(tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(LockedError, match="has a run already"):
        make(tmp_path)
    assert files_of(tmp_path) == before
    first.run()
    assert make(tmp_path).step == 100


def test_what_a_killed_writer_left_is_swept_at_the_start(tmp_path):
    make(tmp_path).run()
    for name in (
        "checkpoints/.000000000500.npz.00ff.tmp",
        ".config.yaml.tmp",
        "videos/.a.gif.0.tmp",
        "failure/000000000041/.batch.npz.0.tmp",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half of it")
    make(tmp_path)
    assert list(tmp_path.rglob("*.tmp")) == []


class Broken(Scripted):
    """Reports `value` under `key` at the steps `at`, counted over all episodes."""

    def __init__(self, at, key="reward", value=math.nan):
        super().__init__(10, size=8)
        self._count, self._at, self._key, self._value = 0, at, key, value

    def step(self, action):
        self._count += 1
        row = super().step(action)
        return {**row, self._key: self._value} if self._count in self._at else row


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("reward", np.float32(np.nan), "reward is nan"),
        ("reward", np.float32(-np.inf), "reward is -inf"),
        ("reward", np.float32(1e30), "reward is 1e\\+30"),
        ("reward", None, "reward is object \\[\\], expected float32 \\[\\]"),
        ("reward", "much", "reward is <U4"),
        ("counter", np.array([0, np.nan], np.float32), "counter is nan"),
        ("counter", np.zeros(3, np.float32), "counter is float32 \\[3\\], expected float32"),
        ("image", np.zeros((8, 8, 3), np.float32), "image is float32 .*, expected uint8"),
        ("is_last", 0.5, "is_last is float32"),
        ("extra", None, "keys .'extra'. are not in every row"),
    ],
)
def test_an_episode_with_a_bad_row_is_dropped_and_the_run_goes_on(
    tmp_path, capsys, key, value, message
):
    runner = make(tmp_path, env=Broken([14, 47], key, value))
    assert runner.run() == 0 and runner.step == 100
    out = capsys.readouterr().out
    assert len(re.findall(rf"a train episode was dropped at its step 4: {message}", out)) == 1
    assert "2 of at most 2 (max_bad_episodes)" in out
    bad = sorted((tmp_path / "train_episodes").glob("*-3.npz.bad"))
    with np.load(bad[0]) as file:
        assert file["counter"][:, 0].tolist() == [0, 1, 2, 3]
        assert re.match(message, str(file["reason"]))
    for path in (tmp_path / "train_episodes").glob("*.npz"):
        with np.load(path) as episode:  # whole, and nothing of the bad ones in it
            assert episode["counter"][:, 0].tolist() == list(range(11))


def test_an_environment_that_is_broken_for_good_ends_the_run_which_can_go_on(tmp_path):
    runner = make(tmp_path, env=Broken(range(40, 10**6)))
    with pytest.raises(
        RunBrokenError, match="3 episodes like this, .* saved at agent step 39; mend"
    ):
        runner.run()
    again = make(tmp_path)
    assert again.step == 39 and again.run() == 0


def test_what_is_in_replay_from_before_is_checked_when_it_is_loaded(tmp_path, caplog):
    make(tmp_path, settings={"steps": 30}).run()
    path = sorted((tmp_path / "train_episodes").glob("*.npz"))[0]
    with np.load(path) as file:
        episode = dict(file)
    episode["reward"][3] = 1e30
    np.savez(path, **episode)
    assert make(tmp_path).run() == 0
    assert path.with_name(path.name + ".damaged").exists()
    assert "reward is 1e+30 in row 3" in caplog.text


# Exploration


@pytest.mark.parametrize("until, explored", [(0, 75), (4 * 60, 35), (4 * 60 + 3, 35), (4, 0)])
def test_a_run_explores_until_its_frames_are_there_and_says_so(tmp_path, until, explored, capsys):
    calls = [("start", 0)]
    make(tmp_path, calls, settings={"expl_behavior": "Random", "expl_until": until}).run()
    acted = [kind for kind, _ in calls if kind in ("explore", "train")]
    assert acted == ["explore"] * explored + ["train"] * (75 - explored)
    out = capsys.readouterr().out
    assert ("Agent step 60: Random has explored" in out) == (0 < explored < 75)
    logged = [row["exploring"] for row in rows_of(tmp_path) if "exploring" in row]
    assert logged == sorted(logged, reverse=True) and set(logged) <= {0.0, 1.0}
    assert (1.0 in logged) == (explored > 0) and (0.0 in logged) == (explored < 75)


def test_a_greedy_run_never_asks_for_exploration(tmp_path):
    calls = [("start", 0)]
    make(tmp_path, calls, settings={"expl_until": 100}).run()
    assert "explore" not in {kind for kind, _ in calls}
    assert not any("exploring" in row for row in rows_of(tmp_path))


def test_several_environments_share_the_steps_the_updates_and_the_replay(tmp_path):
    calls = [("start", 0)]
    settings = {"envs": 3, "train_every": 2, "train_steps": 1, "prefill": 30}
    runner = make(tmp_path, calls, settings=settings)
    assert runner.run() == 0
    assert runner.step == 102, "all step at once: 30 + 24 x 3"
    # Two before training, one due at once at step 33, then one per two steps.
    assert runner.updates == 2 + 1 + (102 - 33) // 2
    assert sum(kind == "train" for kind, _ in calls) == 102 - 30
    # Each had an episode of random actions, and two of its own, of 10 steps each.
    files = [path.stem for path in (tmp_path / "train_episodes").glob("*.npz")]
    assert [name.split("-")[-1] for name in files] == ["10"] * 9
    assert max(row["train_total_steps"] for row in rows_of(tmp_path) if "train_return" in row) == 90


def test_a_run_goes_on_with_another_number_of_environments(tmp_path):
    assert make(tmp_path, settings={"envs": 2, "steps": 60}).run() == 0
    runner = make(tmp_path, settings={"envs": 1})
    assert runner.step == 60
    assert runner.run() == 0 and runner.step == 100
    assert make(tmp_path, settings={"envs": 3, "steps": 120}).run() == 0


def test_environments_have_unrelated_seeds_and_the_first_keeps_its_own(tmp_path):
    seeds = {}
    for count in (1, 3):
        runner = make(tmp_path / str(count), settings={"envs": count, "steps": 40})
        seeds[count] = runner._env_seeds(0)
    assert seeds[3][0] == seeds[1][0] and len(set(seeds[3])) == 3
    assert np.abs(np.diff(seeds[3])).min() > 1000


class Achieving(Scripted):
    """Counts two achievements in each episode: one in every second, the other in none."""

    def __init__(self):
        super().__init__(10, size=8)
        count = gymnasium.spaces.Box(0, 9, (), np.int32)
        self.obs_space |= {"log_even": count, "log_never": count}

    def _obs(self):
        even = np.int32(self._step >= 3 and self._episode % 2 == 0)
        return super()._obs() | {"log_even": even, "log_never": np.int32(0)}


def test_success_rates_are_those_of_all_episodes_over_resumes_too(tmp_path):
    settings = {"log_keys_success": "log_.*"}
    make(tmp_path, env=Achieving(), settings=settings | {"steps": 50}).run()
    make(tmp_path, env=Achieving(), settings=settings).run()
    rows = [row for row in rows_of(tmp_path) if "success_train_log_even" in row]
    # Episodes 0, 1, 3, 4 (what prefill began of 2 is dropped), then 0 to 4 of a new environment.
    rates = [100 * done / count for count, done in enumerate([1, 1, 1, 2, 3, 3, 4, 4, 5], 1)]
    got = [row["success_train_log_even"] for row in rows]
    assert got == pytest.approx(rates)
    assert {row["success_train_log_never"] for row in rows} == {0.0}
    assert [row["score_train"] for row in rows] == pytest.approx([(1 + r) ** 0.5 - 1 for r in got])
    assert {row["unlocked_train"] for row in rows} == {1}
