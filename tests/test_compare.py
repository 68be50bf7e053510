"""The comparison of precisions: what is read from runs, what is called, and how runs are made."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import saved
from PIL import Image

from common.config import ConfigError
from common.data.replay import machine_memory
from common.log.metrics import read_metrics
from common.report.figures import COLORS, figure
from common.report.stats import false_alarm_rate
from dreamerv2 import compare, evaluate
from dreamerv2.jobs import record
from dreamerv2.jobs.job import Job
from dreamerv2.precision import comparison, comparison_report, games, trainer
from dreamerv2.run import blocks, restore

STEPS = 1000
# Stands in for training: says a line, and leaves what a finished run leaves.
FAKE_TRAIN = """
import pathlib, sys
logdir = pathlib.Path(sys.argv[1])
(logdir / "checkpoints").mkdir(parents=True)
(logdir / "checkpoints" / "000000001000.npz").touch()
print("Device: a test")
"""
BROKEN_TRAIN = "import sys; sys.exit('error: the model gradient is not finite')"
SAVING_TRAIN = """
import pathlib, signal, sys, time
def save(number, _):
    pathlib.Path(sys.argv[1]).with_suffix(".saved").touch()
    sys.exit(128 + number)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, save)
print("ready", flush=True)
time.sleep(60)
"""


def make_config(precision=32, seed=0, **overrides):
    overrides = {"steps": STEPS, "precision": precision, "seed": seed, **overrides}
    return blocks.make_config(["atari"], {"action_repeat": 1, **overrides})


def make_run(directory, precision=32, seed=0, level=1.0, seconds=0.5, steps=STEPS, **overrides):
    """A run that has come to `steps`, whose returns rise to `level`."""
    logdir = directory / f"{precision}-{seed}"
    (logdir / "checkpoints").mkdir(parents=True)
    make_config(precision, seed, **overrides).save(logdir / "config.yaml")
    (logdir / "checkpoints" / f"{steps:012d}.npz").write_bytes(b"x" * 123)
    rows = []
    for step in range(50, steps + 1, 50):
        rows.append({"step": step, "train_return": level * step / STEPS})
        rows.append(
            {
                "step": step,
                "updates": step // 10,
                "model_loss": 100 - level,
                "kl_loss": 3.0,
                "actor_loss": 1.0,
                "time_train": 0.5,
                "updates_per_second": 0.5 / (seconds if step > 50 else 60.0),
                "memory_gib": 1 + step / STEPS,
                "hours": step / 3600,
            }
        )
        if precision == 16:
            rows[-1] |= {"model_loss_scale": 2.0**12, "model_skipped": 3, "actor_skipped": 1}
    (logdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return logdir


def read(directory, **settings):
    return record.read_run(make_run(directory, **settings))


# What is read


def test_a_resumed_run_counts_what_it_wrote_anew_and_half_a_line_is_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    steps = [(10, 1), (20, 2), (30, 3), (20, 4), (40, 5)]
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in steps]
    path.write_text("\n".join(lines) + '\n{"step": 50, "lo')
    assert [row["loss"] for row in read_metrics(path)] == [1, 2, 4, 5]


@pytest.mark.parametrize(
    "line",
    [
        *("[]", "7", "null", '"a"', '{"step": "x"}', '{"step": null}', '{"step": NaN}', "{}"),
        *('{"step": true}', '{"step": [1]}', '{"step": 1e999}', "[" * 100_000, "\x00\xff"),
        '{"step": 15, "loss": "high", "train_return": [1], "updates": {}, "kl_loss": 1e999}',
    ],
)
def test_a_line_that_is_no_row_is_passed_over_and_values_that_are_no_numbers(tmp_path, line):
    logdir = make_run(tmp_path)
    path = logdir / "metrics.jsonl"
    path.write_text(line + "\n" + path.read_text(), encoding="utf-8", errors="replace")
    run = record.read_run(logdir)
    assert comparison.run_summary(run)["env_frames"] == STEPS
    assert all(isinstance(v, int | float) for row in run.rows for v in row.values())


def test_returns_are_means_over_the_last_tenth_and_the_best_twentieth(tmp_path):
    run = read(tmp_path, level=1.0)
    run.rows.extend({"step": STEPS, "train_return": 4.0} for _ in range(6))
    assert comparison.final_return(run) == pytest.approx((0.95 + 1.0 + 6 * 4.0) / 8)
    assert comparison.best_return(run) == pytest.approx((1.0 + 6 * 4.0) / 7)
    windows = comparison.window_returns(run)
    assert windows[:-1] == pytest.approx(np.arange(1, 20) / 20)


def test_the_final_return_is_of_five_episodes_at_least(tmp_path):
    run = read(tmp_path, steps=500)
    assert comparison.final_return(run) == pytest.approx(0.4)
    assert comparison.final_return(run._replace(rows=run.rows[:2])) == pytest.approx(0.05)
    assert comparison.final_return(run._replace(rows=[])) is None


def test_seconds_per_update_leave_out_the_interval_that_compiled(tmp_path):
    assert comparison.seconds_per_update(read(tmp_path, seconds=0.25)) == pytest.approx(0.25)


def test_losses_are_compared_after_the_same_number_of_updates(tmp_path):
    long, short = read(tmp_path, seed=1), read(tmp_path, seed=2, steps=STEPS)
    short = short._replace(rows=short.rows[:20])  # half as many updates in as many steps
    assert comparison.loss_points([long, short]) == [12, 25, 50]


@pytest.mark.parametrize(
    ("steps", "log", "status"),
    [
        (STEPS, "Device: a test\n", "finished"),
        (500, "train 500/1000\n", "unfinished"),
        (500, "train 500/1000\nerror: model_grad_norm is not finite\n", "failed"),
        # The last checkpoint is there, its evaluation is not.
        (STEPS, "eval 1000/1000\nerror: model_grad_norm is not finite\n", "failed"),
    ],
)
def test_the_state_of_a_run_is_read_from_its_files(tmp_path, steps, log, status):
    logdir = make_run(tmp_path, steps=steps)
    record.log_path(logdir).write_text(log)
    run = record.read_run(logdir)
    assert run.status == status
    assert run.error == ("model_grad_norm is not finite" if status == "failed" else "")
    assert comparison.nonfinite_norms(run) == (status == "failed")


def test_a_run_that_was_finished_by_hand_after_an_error_is_finished(tmp_path, monkeypatch):
    logdir = make_run(tmp_path)
    record.log_path(logdir).write_text("error: the disk is full\n")
    monkeypatch.setattr(
        record.finish, "finished", lambda config: "Done" * (config.logdir == str(logdir))
    )
    assert record.read_run(logdir).status == "finished"


def test_a_directory_without_a_run_is_an_error(tmp_path):
    with pytest.raises(OSError, match="config.yaml"):
        record.read_run(tmp_path / "nothing")


# What is said


def three_seeds(tmp_path, **by_precision):
    """Runs with seeds 0 to 2 from `p16={"level": 2}` and so on."""
    return [
        read(tmp_path, precision=int(name[1:]), seed=seed, **change(settings, seed))
        for name, settings in by_precision.items()
        for seed in range(3)
    ]


def change(settings, seed):
    return {**settings, "level": settings.get("level", 1.0) + 0.1 * seed}


def test_the_report_has_the_promised_keys_and_counts(tmp_path):
    runs = three_seeds(tmp_path, p32={}, p16={"seconds": 1.0})
    content = comparison_report.write(tmp_path, runs, "the command")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written == content
    group = written["precisions"]["16"]
    assert len(group["runs"]) == 3
    assert group["final_return"].keys() == {"iqm", "low", "high"}
    assert group["final_return"]["low"] < group["final_return"]["iqm"]
    assert group["seconds_per_update"] == pytest.approx(1.0)
    assert group["seconds_per_update_ratio"] == pytest.approx(2.0)
    assert group["peak_memory_gib"] == pytest.approx(2.0)
    assert group["checkpoint_bytes"] == 123
    assert group["skipped_updates"] == group["nonfinite_gradient_norms"] == 3 * 4
    assert written["precisions"]["32"]["skipped_updates"] == 0
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Precision on atari_breakout: use 32\n\n**Use `--precision 32` on ")
    assert "the command" in text and "2^12" in text


@pytest.mark.parametrize(
    ("other", "best"),
    [
        ({"seconds": 0.2}, "16"),  # faster, as good
        ({"seconds": 0.49}, "32"),  # hardly faster
        ({"seconds": 0.2, "level": 0.2}, "32"),  # faster, worse
        ({"seconds": 0.9, "level": 9.0}, "32"),  # slower
    ],
)
def test_the_fastest_precision_is_recommended_unless_its_returns_are_lower(tmp_path, other, best):
    runs = three_seeds(tmp_path, p32={}, p16=other)
    content = comparison_report.write(tmp_path, runs, "the command")
    assert content["recommended"] == best
    first = comparison_report.verdict(content)[2]
    assert f"--precision {best}" in first
    assert "is not excluded" not in first  # where seeds are equal, every run is as good


def test_a_lower_return_that_is_not_excluded_is_told(tmp_path):
    runs = three_seeds(tmp_path, p32={})
    for seed, level in enumerate((1.1, 1.0, 1.25)):
        runs.append(read(tmp_path, precision=16, seed=seed, level=level, seconds=0.2))
    content = comparison_report.write(tmp_path, runs, "the command")
    assert content["recommended"] == "16"
    assert "is not excluded" in comparison_report.verdict(content)[2]


def test_two_seeds_are_not_enough_to_leave_the_baseline(tmp_path):
    runs = [read(tmp_path, precision=p, seed=s, seconds=p / 64) for p in (32, 16) for s in (0, 1)]
    summary = comparison.summarize(runs)
    assert summary["differences"]["16"]["returns"]["final_return"]["low"] is None
    assert summary["differences"]["16"]["returns"]["final_return"]["called"] is False
    assert comparison.recommend(summary)[0] == "32"
    row = comparison_report.difference_lines(summary)[2].splitlines()[2]  # of the final return
    assert [cell.strip() for cell in row.split("|")][3:6] == ["-", "-", "too few finished runs"]


def test_a_failed_run_is_a_row_and_does_not_enter_the_statistics(tmp_path):
    runs = three_seeds(tmp_path, p32={}, p16={"seconds": 0.1})
    broken = runs[-1]._replace(status="failed", error="model_grad_norm is not finite | at 7")
    content = comparison_report.write(tmp_path, [*runs[:-1], broken], "the command")
    group = content["precisions"]["16"]
    assert [run["status"] for run in group["runs"]] == ["finished", "finished", "failed"]
    assert group["finished"] == 2 and group["final_return"]["low"] is None
    assert content["recommended"] == "32"
    assert "model_grad_norm is not finite \\| at 7" in (tmp_path / "report.md").read_text()


def test_overrides_that_differ_name_the_group_and_other_differences_are_told(tmp_path):
    override = {"precision_overrides.layernorm": 16, "loss_scale": 1024, "discount": 0.9}
    runs = [read(tmp_path, seed=0), read(tmp_path, precision=16, **override)]
    assert comparison.labels(runs) == ["32", "16, layernorm 16, loss_scale 1024.0"]
    assert comparison.differing_keys(runs) == ["discount"]
    assert comparison.labels(runs[1:]) == ["16"]
    content = comparison.summarize(runs)["precisions"]["16, layernorm 16, loss_scale 1024.0"]
    assert content["flags"] == (
        "--precision 16 --precision_overrides.layernorm 16 --loss_scale 1024.0"
    )


def test_the_baseline_is_plain_float32_wherever_it_stands(tmp_path):
    mixed = read(
        tmp_path / "a", **{"precision_overrides.rssm": 32, "precision_overrides.heads": 16}
    )
    plain = read(tmp_path / "b")
    assert comparison.summarize([mixed, plain])["baseline"] == "32"


def test_two_runs_of_one_precision_and_seed_are_refused(tmp_path):
    runs = [read(tmp_path / name, seed=4) for name in "ab"]
    with pytest.raises(ValueError, match="32-4 and 32-4 both have precision 32 and seed 4"):
        comparison.check_seeds(runs)
    comparison.check_seeds([runs[0], read(tmp_path, precision=16, seed=4)])


def test_the_rate_of_false_alarms_is_that_of_the_runs_that_are_compared(tmp_path):
    runs = [read(tmp_path, seed=seed) for seed in range(6)]
    runs += [read(tmp_path, precision=16, seed=seed) for seed in range(3, 9)]
    summary = comparison.summarize(runs)
    assert summary["false_alarm_rate"] == false_alarm_rate(3, True)  # 3 of 6 seeds are common
    (line,) = [x for x in comparison_report.difference_lines(summary) if x.startswith("16 minus")]
    assert "3 pairs of equal seeds of 6 and 6 runs; the others are left out" in line
    apart = [*runs[:4], *(read(tmp_path / "b", precision=16, seed=s) for s in range(7, 12))]
    assert comparison.summarize(apart)["false_alarm_rate"] == false_alarm_rate(4, False)


# Greedy games


def note_games(run, returns, **changes):
    """As if the run had played."""
    note = {"checkpoint": games._identity(run.checkpoint), "seed": games.SEED, "returns": returns}
    (run.logdir / games.FILE).write_text(json.dumps(note | changes))
    return run


def test_where_all_runs_have_played_greedy_games_they_decide(tmp_path):
    runs = three_seeds(tmp_path, p32={}, p16={"seconds": 0.2})
    content = comparison_report.write(tmp_path, runs, "the command")
    assert content["judged_by"] == "final_return" and content["recommended"] == "16"
    assert "greedy return" not in comparison_report.markdown(content).split("## How to")[0]
    for run, level in zip(runs, (5, 6, 7, 2, 3, 5), strict=True):
        note_games(run, [level - 1.0, level + 1.0])
    content = comparison_report.write(tmp_path, runs, "the command")
    assert content["judged_by"] == "greedy_return" and content["recommended"] == "32"
    found = content["differences"]["16"]["returns"]["greedy_return"]
    assert found["pairs"] == 3 and found["called"]
    assert found["iqm"] == pytest.approx(-(0.25 * 3 + 3 + 0.25 * 2) / 1.5)
    text = (tmp_path / "report.md").read_text()
    assert "greedy return -2.83 [-3, -2], significant" in text
    assert content["precisions"]["16"]["runs"][0]["greedy"]["returns"] == [1.0, 3.0]
    assert "| 2 [1, 3] " in text and "greedy return, 2 games" in text


def test_as_many_games_count_as_every_run_has(tmp_path):
    runs = three_seeds(tmp_path, p32={}, p16={})
    for run in runs[:3]:
        note_games(run, [1.0, 2.0, 90.0])
    for run in runs[3:]:
        note_games(run, [1.0, 2.0])
    summary = comparison.summarize(runs)
    assert summary["greedy_games"] == 2
    assert summary["differences"]["16"]["returns"]["greedy_return"]["iqm"] == 0
    assert summary["precisions"]["32"]["greedy_return"]["iqm"] == 1.5


def test_one_run_without_games_leaves_the_decision_to_training(tmp_path):
    runs = three_seeds(tmp_path, p32={}, p16={})
    for run in runs[1:]:
        note_games(run, [1.0])
    content = comparison.summarize(runs)
    assert content["judged_by"] == "final_return"
    assert content["differences"]["16"]["returns"]["greedy_return"]["pairs"] == 0
    title = comparison_report.measure_titles(content)["greedy_return"]
    assert title == "greedy return, 1 game"


def test_a_lower_return_beside_the_deciding_one_is_told(tmp_path):
    runs = three_seeds(tmp_path, p32={}, p16={"seconds": 0.2, "level": 0.2})
    for run in runs:
        note_games(run, [7.0])
    content = comparison_report.write(tmp_path, runs, "the command")
    assert content["recommended"] == "16"
    assert comparison_report.reason(content).endswith(
        "the greedy return is not significantly lower; but the final return and the best return are"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "7", '{"seed": 1000}', '{"checkpoint": IDENTITY, "seed": 1000}'),
        '{"checkpoint": IDENTITY, "seed": 1000, "returns": ["many"]}',
        '{"checkpoint": IDENTITY, "seed": 1000, "returns": 7}',
        '{"checkpoint": "000000001000", "seed": 1000, "returns": [7]}',
        '{"checkpoint": IDENTITY, "seed": 1, "returns": [7]}',  # other games
    ],
)
def test_damaged_notes_and_those_of_other_games_do_not_count(tmp_path, text):
    run = read(tmp_path)
    identity = json.dumps(games._identity(run.checkpoint))
    (run.logdir / games.FILE).write_text(text.replace("IDENTITY", identity))
    assert games.played(run) == [] and games.summary(run, 1) is None
    note_games(run, [7.0])
    assert games.played(run) == [7.0]
    assert games.summary(run, 1)["low"] is None  # one game has no interval
    assert games.summary(run, 2) is None


def test_games_of_an_agent_that_was_trained_on_or_anew_do_not_count(tmp_path):
    run = note_games(read(tmp_path), [7.0])
    assert games.played(run) == [7.0]
    run.checkpoint.write_bytes(b"y" * 123)  # the same step and size
    os.utime(run.checkpoint, (1, 1))
    assert games.played(run) == []
    (run.logdir / "checkpoints" / "000000002000.npz").write_bytes(b"x" * 123)
    assert games.played(record.read_run(run.logdir)) == []


def playing_run(logdir, **overrides):
    """A finished run whose agent can play."""
    agent = saved.save(logdir, agent_steps=STEPS, steps=STEPS, **overrides)
    agent.config.save(logdir / "config.yaml")
    return record.read_run(logdir)


def test_each_finished_run_plays_the_games_that_evaluate_plays_and_plays_them_once(
    tmp_path, capsys, monkeypatch
):
    runs = [playing_run(tmp_path / "32-0"), read(tmp_path, precision=16, steps=500)]
    assert trainer.report(tmp_path / "out", runs, "the command", greedy=2) == 0
    assert "[1/1] 32-0: mean return" in capsys.readouterr().out
    words = ["--logdir", str(tmp_path / "32-0"), "--episodes", "2", "--mode", "eval"]
    words += ["--seed", str(games.SEED), "--json", str(tmp_path / "evaluate.json")]
    assert evaluate.main(words) == 0
    played = json.loads((tmp_path / "evaluate.json").read_text())["greedy"]
    note = json.loads((tmp_path / "32-0" / games.FILE).read_text())
    assert note["returns"] == played["returns"] and note["lengths"] == played["lengths"]
    assert note["cut"] == []
    monkeypatch.setattr(games, "_play", None)
    trainer.report(tmp_path / "out", runs, "the command", greedy=2)
    trainer.report(tmp_path / "out", runs, "the command", greedy=1)
    assert not (tmp_path / "16-0" / games.FILE).exists()  # not finished


def test_a_game_that_does_not_end_is_cut_and_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(restore.Saved, "max_steps", 5)
    run = playing_run(tmp_path / "32-0")
    assert trainer.report(tmp_path / "out", [run], "the command", greedy=2) == 0
    assert ", 2 cut after 4 agent steps" in capsys.readouterr().out
    note = json.loads((tmp_path / "32-0" / games.FILE).read_text())
    assert note["cut"] == [0, 1] and note["cut_at"] == 5 and len(note["returns"]) == 2


def test_a_run_that_cannot_play_is_told_of_and_the_report_is_written(tmp_path, capsys):
    good, bad = playing_run(tmp_path / "32-0"), read(tmp_path, precision=16)
    assert trainer.report(tmp_path / "out", [bad, good], "the command", greedy=1) == 0
    assert "warning: 16-0 has no greedy games: " in capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {name: group["runs"][0]["greedy"] for name, group in content["precisions"].items()}
    assert rows["16"] is None and len(rows["32"]["returns"]) == 1


def test_the_report_is_there_before_the_games_and_a_checkpoint_may_vanish(tmp_path, monkeypatch):
    run = read(tmp_path)

    def interrupted(runs, count):
        assert (tmp_path / "out" / "report.md").exists()
        runs[0].checkpoint.unlink()

    monkeypatch.setattr(games, "play", interrupted)
    assert trainer.report(tmp_path / "out", [run], "the command", greedy=3) == 0


def test_a_comparison_that_is_stopped_plays_no_games(tmp_path, monkeypatch):
    monkeypatch.setattr(games, "play", None)
    monkeypatch.setattr(trainer.Trainer, "run", lambda self: signal.SIGTERM)
    run = make_run(tmp_path)
    job = Job(run, (), make_config())
    assert trainer.Trainer(tmp_path, [job], 1, "-", greedy=3).make() == 128 + signal.SIGTERM


# Baselines that failed


def test_where_every_run_of_the_baseline_failed_another_precision_is_taken(tmp_path):
    runs = three_seeds(tmp_path, p32={}, p16={"seconds": 0.9})
    broken = [run._replace(status="failed", error="no memory") for run in runs[:3]]
    content = comparison_report.write(tmp_path, [*broken, *runs[3:]], "the command")
    assert content["recommended"] == "16"
    assert comparison_report.reason(content) == "every run at 32 failed"
    assert "no finished runs of 32 to compare returns of" in content["reasons"][0]
    under_way = [run._replace(status="unfinished") for run in runs[:3]]
    content = comparison_report.write(tmp_path, [*under_way, *runs[3:]], "the command")
    assert content["recommended"] == "32"
    assert comparison_report.reason(content).startswith("no run at 32 has finished")


def test_what_exploring_logs_is_no_model_loss_and_its_skipped_steps_count(tmp_path):
    run = read(tmp_path, precision=16)
    for row in run.rows[1::2]:
        row |= {"expl_expl_loss": 1.0, "expl_actor_loss": 1.0, "expl_critic_skipped": 7}
        row["expl_critic_loss_scale"] = 2.0**14
    assert comparison.loss_names([run]) == ["kl_loss", "model_loss"]
    assert comparison.skipped_updates(run) == 3 + 1 + 7
    content = comparison_report.write(tmp_path, [run], "the command")
    (row,) = [r for r in comparison_report.scale_section(content)[1].splitlines() if "expl_" in r]
    assert "2^14" in row and "7" in row


# How runs are made


def planned(words):
    args, flags = compare.parse(words)
    return trainer.make_jobs(args.logdir, args.precisions, args.seeds, flags)


def test_runs_are_made_for_each_precision_and_seed_with_the_flags_given(tmp_path):
    words = f"--logdir {tmp_path} --seeds 3 4 --precisions 16 bfloat16 --steps 7 --configs debug"
    jobs = planned(words.split())
    assert [job.name for job in jobs] == ["16-3", "bfloat16-3", "16-4", "bfloat16-4"]
    assert jobs[1].config.precision == "bfloat16" and jobs[1].config.seed == 3
    assert jobs[1].config.steps == 7 and jobs[1].config.rssm.deter == 16
    assert jobs[1].command[2:] == (
        *("-m", "dreamerv2.train", "--steps", "7", "--configs", "debug"),
        *("--precision", "bfloat16", "--seed", "3", "--logdir", str(tmp_path / "bfloat16-3")),
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--precisions 32", "--logdir is missing"),
        ("--logdir D --precision 16", "write --precisions"),
        ("--logdir /dev/null/D", "Not a directory: '/dev/null/D'"),
        ("--logdir D --jobs 0", "--jobs: got 0, expected a whole number from 1 on"),
        ("--logdir D --runs A --seeds 1", "--seeds does not go with --runs"),
        ("--logdir D --runs A --steps 1", "--steps does not go with it"),
        ("--logdir D --runs A --jobs 2", "--jobs does not go with --runs"),
        ("--audit A --logdir D", "--logdir does not go with --audit"),
        ("--audit A --greedy 5", "--greedy does not go with --audit"),
        ("--logdir D --greedy 0", "--greedy: got 0, expected a whole number from 1 on"),
        ("--audit A --cpus-per-run 2", "--cpus-per-run does not go with --audit"),
        ("--logdir D --updates 9", "--updates goes with --audit alone"),
        ("--runs A --audit B --logdir D", "exclude each other"),
        ("--logdir D --stpes 4", "unknown key stpes; did you mean steps"),
        ("--logdir D --precision_overrides.nose 16", "unknown key precision_overrides.nose"),
        ("--logdir D --loss_scale -1", "loss_scale: -1 is not accepted"),
        ("--logdir D --ray local --jobs 2", "--ray and --jobs exclude each other"),
        ("--logdir D --gpus-per-run 1", "--gpus-per-run needs --ray"),
        ("--logdir D --seeds -1", "--seeds: got -1, expected a whole number from 0 on"),
    ],
)
def test_mistakes_are_found_before_the_first_run(words, message, capsys):
    with pytest.raises(SystemExit) as error:
        compare.main(words.split())
    assert error.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_a_run_of_other_settings_is_not_taken_for_one_of_these(tmp_path):
    make_run(tmp_path, precision=32, seed=0)
    flags = f"--logdir {tmp_path} --precisions 32 --seeds 0 --action_repeat 1".split()
    job = planned([*flags, "--steps", str(2 * STEPS)])[0]
    assert not job.finished  # more steps: the run goes on
    with pytest.raises(ConfigError, match=r"32-0 holds a run with other settings \(discount: 0.99"):
        planned([*flags, "--discount", "0.9"])


def make_job(tmp_path, precision, script):
    logdir = tmp_path / f"{precision}-0"
    return Job(logdir, (sys.executable, "-c", script, str(logdir)), make_config(precision, 0))


def test_a_run_that_fails_is_a_row_and_the_others_are_made(tmp_path, capsys):
    jobs = [make_job(tmp_path, 16, BROKEN_TRAIN), make_job(tmp_path, 32, FAKE_TRAIN)]
    assert trainer.Trainer(tmp_path, jobs, 1, "the command").make() == 0
    precisions = json.loads((tmp_path / "report.json").read_text())["precisions"]
    failed, finished = precisions["16"]["runs"][0], precisions["32"]["runs"][0]
    assert failed["status"] == "failed" and failed["error"] == "the model gradient is not finite"
    assert finished["status"] == "finished"
    assert "FAILED" in capsys.readouterr().out


def test_finished_runs_are_not_made_again_and_failed_ones_are(tmp_path):
    jobs = [make_job(tmp_path, 16, BROKEN_TRAIN), make_job(tmp_path, 32, FAKE_TRAIN)]
    trainer.Trainer(tmp_path, jobs, 2, "the command").make()
    log = record.log_path(jobs[1].logdir)
    before = log.read_text()
    jobs[0] = make_job(tmp_path, 16, FAKE_TRAIN)
    assert trainer.Trainer(tmp_path, jobs, 2, "the command").make() == 0
    assert log.read_text() == before
    assert jobs[0].finished


def test_a_killed_run_says_so(tmp_path):
    kill = "import os; os.kill(os.getpid(), 9)"
    assert trainer.Trainer(tmp_path, [make_job(tmp_path, 32, kill)], 1, "-").make() == 1
    run = json.loads((tmp_path / "report.json").read_text())["precisions"]["32"]["runs"][0]
    assert run["error"].startswith("killed by SIGKILL")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_runs_save_and_starts_no_more(tmp_path, number):
    jobs = [make_job(tmp_path, 16, SAVING_TRAIN), make_job(tmp_path, 32, SAVING_TRAIN)]

    def stop():
        log = record.log_path(jobs[0].logdir)
        while not (log.exists() and "ready" in log.read_text()):
            time.sleep(0.05)
        signal.raise_signal(number)

    threading.Thread(target=stop, daemon=True).start()
    assert trainer.Trainer(tmp_path, jobs, 1, "the command").make() == 128 + number
    assert jobs[0].logdir.with_suffix(".saved").exists()
    assert not record.log_path(jobs[1].logdir).exists()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_exception_here_lets_the_runs_save(tmp_path, monkeypatch):
    job = make_job(tmp_path, 16, SAVING_TRAIN)
    log = record.log_path(job.logdir)

    def closed(self):
        if log.exists() and "ready" in log.read_text():
            raise BrokenPipeError

    monkeypatch.setattr(trainer.Trainer, "_show", closed)
    with pytest.raises(BrokenPipeError):
        trainer.Trainer(tmp_path, [job], 1, "the command").make()
    assert job.logdir.with_suffix(".saved").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells children that their parent died")
def test_a_comparison_that_is_killed_leaves_no_run_behind(tmp_path, project):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import pathlib, test_compare as t\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "t.trainer.Trainer(here, [t.make_job(here, 16, t.SAVING_TRAIN)], 1, '-').make()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=project)
    log = tmp_path / "16-0.log"
    wait_for(lambda: log.exists() and "ready" in log.read_text())
    process.kill()
    process.wait()
    wait_for((tmp_path / "16-0.saved").exists)


# Holds the lock of a run until there is a file `go`, and leaves a finished run.
ELSEWHERE = """
import pathlib, sys, time
from dreamerv2.run.lock import RunLock
logdir = pathlib.Path(sys.argv[1])
held = RunLock(logdir)
print("held", flush=True)
while not (logdir / "go").exists():
    time.sleep(0.05)
(logdir / "checkpoints").mkdir()
(logdir / "checkpoints" / "000000001000.npz").touch()
"""


def test_a_run_that_still_goes_on_is_found_and_not_started_twice(tmp_path, capsys):
    job = make_job(tmp_path, 32, BROKEN_TRAIN)
    argv = [sys.executable, "-c", ELSEWHERE, str(job.logdir)]
    other = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"held\n"
    threading.Timer(1, (job.logdir / "go").touch).start()
    assert trainer.Trainer(tmp_path, [job], 1, "the command").make() == 0
    assert f"still runs (process {other.pid} on " in capsys.readouterr().out
    assert other.wait() == 0 and job.finished and not record.log_path(job.logdir).exists()


def test_runs_at_the_same_time_share_the_memory_of_one(tmp_path):
    args = (tmp_path, ["32", "16"], [0])
    whole = machine_memory() / 2 / 2**30
    shares = [job.config.replay.memory_gib for job in trainer.make_jobs(*args, [], 3)]
    assert shares == pytest.approx([whole / 2] * 2, abs=0.01)  # there are only two
    flags = ["--replay.memory_gib", "7"]
    assert [j.config.replay.memory_gib for j in trainer.make_jobs(*args, flags, 3)] == [7, 7]
    make_run(tmp_path, precision=32, seed=0)
    as_made = ["--action_repeat", "1", "--steps", str(STEPS)]
    assert len(trainer.make_jobs(tmp_path, ["32"], [0], as_made, 3)) == 1  # no other setting


@pytest.mark.slow
def test_two_precisions_are_compared_in_one_command(tmp_path, project):
    words = f"--logdir {tmp_path} --configs atari debug --precisions 32 bfloat16 --seeds 0"
    command = [sys.executable, "-m", "dreamerv2.compare", *words.split()]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=600)
    content = json.loads((tmp_path / "report.json").read_text())
    assert [content["precisions"][p]["finished"] for p in ("32", "bfloat16")] == [1, 1]
    first, second = (
        sorted((tmp_path / name / "train_episodes").iterdir())[0] for name in ("32-0", "bfloat16-0")
    )
    with np.load(first) as one, np.load(second) as two:  # the prefill has the same data
        assert all(np.array_equal(one[key], two[key]) for key in one.files)


# The figure


def colours_of(path):
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), int)
    wanted = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLORS[:2]]
    return [(np.abs(pixels - color).sum(-1) < 30).sum() for color in wanted], pixels.shape


def test_curves_that_coincide_are_both_seen(tmp_path):
    runs = three_seeds(tmp_path, p32={}, p16={})
    groups = {"32": runs[:3], "16": runs[3:]}
    for name, shown in (("both", groups), ("one", {"32": runs[:3]})):
        with figure(tmp_path / f"{name}.png", 6, 4) as drawing:
            comparison_report._loss(drawing.subplots(), shown)
    (alone, _), _ = colours_of(tmp_path / "one.png")
    (first, second), _ = colours_of(tmp_path / "both.png")
    assert alone > 200
    assert first > 0.15 * alone and second > 0.15 * alone


def test_a_loss_that_was_logged_once_is_a_dot(tmp_path):
    runs = three_seeds(tmp_path, p32={"steps": 50})
    with figure(tmp_path / "dot.png", 6, 4) as drawing:
        comparison_report._loss(drawing.subplots(), {"32": runs})
    (dot, _), _ = colours_of(tmp_path / "dot.png")
    assert dot > 20


def test_the_panel_of_loss_scales_is_there_only_where_a_run_has_one(tmp_path):
    with_scale = three_seeds(tmp_path / "a", p32={}, p16={})
    without = three_seeds(tmp_path / "b", p32={})
    shapes = []
    for directory, runs in ((tmp_path / "a", with_scale), (tmp_path / "b", without)):
        comparison_report.write(directory, runs, "the command")
        shapes.append(colours_of(directory / "report.png")[1])
        text = (directory / "report.md").read_text()
        assert ("## Loss scale" in text) == (runs is with_scale)
    assert shapes[0][0] > 1.5 * shapes[1][0]
