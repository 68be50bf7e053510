"""Sweeps: the grid, what is refused, and the table."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from common.config import ConfigError
from dreamerv2 import sweep
from dreamerv2.jobs import grid, processes, record, trainings
from dreamerv2.jobs import job as job_module
from dreamerv2.jobs import sweep as runs
from dreamerv2.jobs.job import Job
from dreamerv2.run import blocks, lock

# Stands in for training: logs, and leaves what a finished run leaves.
FAKE_TRAIN = """
import pathlib, sys
logdir = pathlib.Path(sys.argv[1])
(logdir / "checkpoints").mkdir(parents=True)
(logdir / "checkpoints" / "000000000400.npz").touch()
rows = '{"step": 100, "train_return": 3}\\n{"step": 200, "train_return": 4, "fps": 50}\\n'
(logdir / "metrics.jsonl").write_text(rows)
"""
# Another command's training, which has the lock until it hears a line.
OTHER_TRAIN = (
    """
import pathlib, sys
from dreamerv2.run.lock import RunLock
lock = RunLock(pathlib.Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.readline()
with open(f"{sys.argv[1]}.log", "a") as log:
    log.write("Done\\n")
"""
    + FAKE_TRAIN
)
BROKEN_TRAIN = "import sys; sys.exit('error: the model gradient is not finite')"


def test_a_grid_is_the_product_of_its_values_the_last_key_fastest():
    cells = grid.cells("precision=32,bfloat16 seed=0:3")
    assert [(cell["precision"], cell["seed"]) for cell in cells] == [
        *(("32", "0"), ("32", "1"), ("32", "2")),
        *(("bfloat16", "0"), ("bfloat16", "1"), ("bfloat16", "2")),
    ]
    assert grid.names(cells)[4] == "precision=bfloat16,seed=1"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=linear(1,0,1e5),0.1", ["linear(1,0,1e5)", "0.1"]),
        ("a=[64,64],[128]", ["[64,64]", "[128]"]),
        ("a=7,0:2,1,9:10", ["7", "0", "1", "9"]),
        ("a=module:function", ["module:function"]),
        ("a=b=c", ["b=c"]),
    ],
)
def test_a_value_is_what_stands_between_commas_outside_of_brackets(text, values):
    assert [cell["a"] for cell in grid.cells(text)] == values


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--grid seed=0:2", "--logdir"),
        ("--logdir D", "--grid"),
        ("--logdir /dev/null/D --grid seed=0:2", "Not a directory: '/dev/null/D'"),
        ("--logdir D --grid=", "--grid: got nothing, expected KEY=VALUE"),
        ("--logdir D --grid seed", "--grid: got seed, expected KEY=VALUE,VALUE,... or KEY=A:B"),
        ("--logdir D --grid sed=0:2", "unknown key sed; did you mean seed?"),
        ("--logdir D --grid seed=1,x", "seed: 'x' is not accepted"),
        ("--logdir D --grid seed=1,,2", "--grid: seed=1,,2 has an empty value"),
        ("--logdir D --grid seed=2:2", "--grid: seed=2:2 is no range"),
        ("--logdir D --grid seed=0:10000000", "up to 10,000 values"),
        ("--logdir D --grid seed=0:2 --seed 3", "--grid: seed cannot be there; it is a flag"),
        ("--logdir D --grid configs=atari", "--grid: configs cannot be there"),
        ("--logdir D --grid seed=0:2 --stpes 4", "unknown key stpes; did you mean steps?"),
        ("--logdir D --grid task=a_b/c,a_b:c", "--grid: two runs would be called task=a_b_c"),
        ("--logdir D --grid seed=0:2 --gpus-per-run 1", "--gpus-per-run needs --ray"),
        ("--logdir D --grid seed=0:2 --gpus-per-run 1.5", "got 1.5, expected a whole number or"),
        ("--logdir D --grid seed=0:2 --cpus-per-run 0", "got 0, expected a whole number from 1"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        sweep.main(words.split())
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message in said
    assert list(tmp_path.iterdir()) == []


def make_job(tmp_path, name, script):
    config = blocks.make_config(["minatar"], {"steps": 400})
    logdir = tmp_path / name
    return Job(logdir, (sys.executable, "-c", script, str(logdir)), config)


def test_the_table_shows_what_finished_and_what_failed_and_the_exit_code_says_it(tmp_path, capsys):
    jobs = [make_job(tmp_path, name, FAKE_TRAIN) for name in ("a", "c")]
    jobs.insert(1, make_job(tmp_path, "b", BROKEN_TRAIN))
    assert runs.Sweep(jobs, processes.start, 2).make() == 1
    said = capsys.readouterr().out
    assert "FAILED after 0s: the model gradient is not finite" in said
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines()[-4:]]
    assert rows[1:] == [
        ["a", "", "finished", "200 of 400", "3.5", "-"],
        ["b", "", "FAILED", "- of 400", "-", "-"],
        ["c", "", "finished", "200 of 400", "3.5", "-"],
    ]
    log = record.log_path(jobs[0].logdir)
    log.unlink()
    assert runs.Sweep([jobs[0], jobs[2]], processes.start, 2).make() == 0
    assert not log.exists()  # what is finished is not made again


def test_a_run_that_another_command_was_quicker_to_start_is_waited_for(tmp_path, project, capsys):
    """Both saw that a place was free; the lock comes seconds after the start of a training."""
    job = make_job(tmp_path, "a", "import sys; sys.exit('error: it has a run already')")
    command = [sys.executable, "-c", OTHER_TRAIN, str(job.logdir)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen(command, cwd=project, **pipes)
    other.stdout.readline()
    started = []

    def start(job):  # the first time as if the lock was not there yet
        started.append(job.name)
        if len(started) > 1:
            found = processes.start(job)
            other.stdin.write("\n")
            other.stdin.flush()
            return found
        return processes.Process(job, processes.launch(job.command, record.log_path(job.logdir)))

    assert runs.Sweep([job], start).make() == 0
    assert other.wait() == 0
    said = capsys.readouterr().out
    assert "a: another command was quicker to start it" in said
    assert "still runs" in said and "FAILED" not in said
    assert record.log_path(job.logdir).read_text().count("error") == 1  # that of the training


@pytest.mark.parametrize(
    ("node", "said"), [("", "waits for a place on the cluster"), ("a", "starting")]
)
def test_a_run_without_a_log_starts_or_waits_for_a_place(tmp_path, capsys, node, said):
    job = make_job(tmp_path, "seed=0", FAKE_TRAIN)
    made = trainings.Trainings([job], start=None)
    made._running.append(trainings.Started(job, SimpleNamespace(node=node), since=0.0))
    made._show()
    assert capsys.readouterr().out == f"[1/1] seed=0: {said}\n"


def test_what_may_change_as_a_run_goes_on_is_no_other_setting(tmp_path):
    flags = ["--configs", "minatar", "debug"]
    logdir = tmp_path / "seed=0"
    logdir.mkdir()
    blocks.make_config(["minatar", "debug"]).save(logdir / "config.yaml")
    may = ["--fall_back", "True", "--save_every", "7", "--keep_checkpoints", "9", "--steps", "9999"]
    job_module.make_job(logdir, [*flags, *may])
    with pytest.raises(ConfigError, match="train_every"):
        job_module.make_job(logdir, [*flags, "--train_every", "77"])


def test_a_run_that_was_to_be_longer_is_finished_for_who_asks_for_less(tmp_path):
    job = make_job(tmp_path, "a", FAKE_TRAIN)
    subprocess.run(job.command, check=True)
    job.config.update({"steps": 800}).save(job.logdir / "config.yaml")
    assert job.finished
    assert not job._replace(config=job.config.update({"steps": 800})).finished


def test_a_pattern_in_a_grid_makes_no_hidden_folder():
    assert grid.names([{r".*_opt\.lr": "1e-4"}]) == ["__opt_.lr=1e-4"]


def test_a_run_that_another_machine_makes_is_not_waited_for_after_a_signal(tmp_path, monkeypatch):
    held = lock.Holder("another-machine", 7, "now")
    monkeypatch.setattr(processes.lock, "holder", lambda logdir: held)
    run = processes.start(Job(tmp_path / "run", (), blocks.make_config(["debug"])))
    assert run.poll() is None
    run.send_signal(2)
    assert run.poll() == 0


def test_time_left_comes_from_the_newest_rate_at_the_end_of_a_long_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    row = '{"step": STEP, "train_return": 7, "fps": 10}\n'
    lines = [row.replace("STEP", str(step)) for step in range(5000)]
    path.write_text("".join(lines) + '{"step": 5000, "train_return": 18, "fps": 20}\n{"st')
    assert record.progress(tmp_path, 6000) == (5000, pytest.approx((9 * 7 + 18) / 10), 50.0)
    assert record.progress(tmp_path / "nothing", 6000) == (None, None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_run_computes_on_as_many_threads_as_it_has_cores(tmp_path):
    code = "import os, sys; print(os.environ['TF_NUM_INTRAOP_THREADS'])"
    log = tmp_path / "log"
    assert processes.launch((sys.executable, "-c", code), log, threads=3).wait() == 0
    assert log.read_text() == "3\n"


# A cluster


def test_an_address_where_no_cluster_answers_is_one_line(tmp_path, project):
    pytest.importorskip("ray")
    words = ["--logdir", str(tmp_path / "a"), "--grid", "seed=0:2", "--ray", "127.0.0.1:9"]
    done = subprocess.run(
        [sys.executable, "-m", "dreamerv2.sweep", *words],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: --ray 127.0.0.1:9: no Ray cluster answers there")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "a").exists()


@pytest.mark.parametrize("address", ["here", "host:", ":6379", "host:port"])
def test_an_address_that_is_none_is_refused(address):
    cluster = pytest.importorskip("dreamerv2.jobs.cluster")
    with pytest.raises(ValueError, match=f"--ray {address}: expected HOST:PORT, auto or local"):
        cluster.check_answers(address)


def test_more_than_a_node_has_is_refused_with_what_there_is(monkeypatch):
    cluster = pytest.importorskip("dreamerv2.jobs.cluster")
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 64.0}]
    found = [{"Alive": True, "Resources": has} for has in nodes]
    found.append({"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}})
    monkeypatch.setattr(cluster.ray, "nodes", lambda: found)
    cluster.check_fits(8, 1)
    cluster.check_fits(64, 0)
    expected = r"its nodes are 2 x \(8 CPUs, 1 GPUs\), 1 x \(64 CPUs, 0 GPUs\)"
    for cpus, gpus in ((1, 2), (9, 1)):
        with pytest.raises(ValueError, match=expected):
            cluster.check_fits(cpus, gpus)
