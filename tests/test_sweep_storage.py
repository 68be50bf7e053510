"""Runs in a store: what is there can be resumed at any moment, and nothing is left half written."""

import pytest

from dreamerv2.jobs import record

pyarrow = pytest.importorskip("pyarrow")
storage = pytest.importorskip("dreamerv2.jobs.storage", exc_type=ImportError)


@pytest.fixture
def store(tmp_path):
    return storage.Storage(f"file://{tmp_path}/store/deep")


@pytest.fixture
def logdir(tmp_path):
    """A run that has saved once, with its log beside it."""
    logdir = tmp_path / "node" / "seed=0,task=a"
    save(logdir, 100)
    (logdir / ".lock").write_text("held")
    (logdir / "config.yaml").write_text("seed: 0\n")
    record.log_path(logdir).write_text("Device: a test\n")
    return logdir


def save(logdir, steps):
    """What a run leaves until a checkpoint, and the checkpoint."""
    for folder in ("train_episodes", "checkpoints"):
        (logdir / folder).mkdir(parents=True, exist_ok=True)
    (logdir / "train_episodes" / f"{steps}.npz").write_text(f"episode {steps}")
    with (logdir / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": {steps}}}\n')
    (logdir / "checkpoints" / f"{steps:012d}.npz").write_text(f"checkpoint {steps}")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_another_node_gets_what_one_has_stored(store, logdir, tmp_path):
    storage.Mirror(store, tmp_path / "none")  # nothing to store, nothing wrong
    mirror = storage.Mirror(store, logdir)
    assert not mirror.is_behind()
    save(logdir, 200)
    assert mirror.is_behind()
    mirror._stored.clear()  # as if the run was new
    mirror.push()
    assert not mirror.is_behind() and store.steps(logdir.name) == 200
    other = tmp_path / "other" / logdir.name
    (other / "train_episodes").mkdir(parents=True)
    (other / "train_episodes" / "stale.npz").touch()
    store.fetch(other)
    assert contents(other.parent) == contents(logdir.parent)
    assert contents(tmp_path / "store" / "deep") == contents(logdir.parent)
    assert store.steps("nothing") == -1


def test_what_has_gone_here_goes_there_and_what_others_stored_stays(store, logdir):
    mirror = storage.Mirror(store, logdir)
    mirror._stored.clear()
    mirror.push()
    place = store.root + "/" + logdir.name
    with store.files.open_output_stream(f"{place}/note.txt") as file:
        file.write(b"mine")
    save(logdir, 200)
    (logdir / "train_episodes" / "100.npz").unlink()
    (logdir / "checkpoints" / f"{100:012d}.npz").unlink()
    mirror.push()
    there = contents(logdir.parents[1] / "store" / "deep" / logdir.name)
    assert there == {**contents(logdir), "note.txt": "mine"}


def test_at_every_moment_a_checkpoint_has_its_episodes_and_metrics(store, logdir, monkeypatch):
    mirror = storage.Mirror(store, logdir)
    mirror._stored.clear()
    place, seen = logdir.parents[1] / "store" / "deep" / logdir.name, []
    upload = storage.Mirror._upload

    def uploaded(self, path):
        upload(self, path)
        there = contents(place)
        seen.append(len(there))
        for steps in (100, 200):
            if f"checkpoints/{steps:012d}.npz" in there:
                assert f"train_episodes/{steps}.npz" in there
                assert f'"step": {steps}' in there["metrics.jsonl"]

    monkeypatch.setattr(storage.Mirror, "_upload", uploaded)
    mirror.push()
    save(logdir, 200)
    mirror.push()
    assert seen[-1] == 6 and 1 in seen  # metrics, settings, two of each other; one by one


def test_a_run_that_saves_during_a_push_leaves_the_store_its_checkpoint(
    store, logdir, monkeypatch, tmp_path
):
    mirror = storage.Mirror(store, logdir)
    mirror._stored.clear()  # as if the run was new
    mirror.push()
    (logdir / "checkpoints" / f"{100:012d}.npz").unlink()  # it was a temporary one
    save(logdir, 200)
    upload, saved = storage.Mirror._upload, []

    def uploaded(self, path):
        upload(self, path)
        if not saved:
            saved.append(path)
            for old in (logdir / "checkpoints").iterdir():
                old.unlink()
            save(logdir, 300)

    monkeypatch.setattr(storage.Mirror, "_upload", uploaded)
    mirror.push()
    folder = tmp_path / "store" / "deep" / logdir.name / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["000000000100.npz"]
    mirror.push()
    assert [path.name for path in folder.iterdir()] == ["000000000300.npz"]


def test_a_file_is_there_whole_or_not_at_all(store, logdir, monkeypatch):
    mirror = storage.Mirror(store, logdir)
    mirror._stored.clear()

    def lost(source, out, length):
        out.write(source.read(3))
        raise ConnectionError("the network is gone")

    monkeypatch.setattr(storage.shutil, "copyfileobj", lost)
    with pytest.raises(ConnectionError):
        mirror.push()
    assert store.steps(logdir.name) == -1
    monkeypatch.undo()
    mirror.push()
    place = logdir.parents[1] / "store" / "deep"
    assert contents(place) == contents(logdir.parent), "no part is left"


def test_what_a_dead_node_left_half_written_is_not_fetched(store, logdir, tmp_path):
    mirror = storage.Mirror(store, logdir)
    mirror._stored.clear()
    mirror.push()
    part = tmp_path / "store" / "deep" / logdir.name / "checkpoints" / ".1.npz.00ff.tmp"
    part.write_text("half")
    store.fetch(tmp_path / "other" / logdir.name)
    assert contents(tmp_path / "other") == contents(logdir.parent) and not part.exists()


def test_the_driver_gets_what_tables_and_curves_need(store, logdir, tmp_path):
    mirror = storage.Mirror(store, logdir)
    mirror._stored.clear()
    mirror.push()
    here = tmp_path / "driver" / logdir.name
    store.fetch_small(here)
    wanted = {f"{logdir.name}/{name}" for name in ("config.yaml", "metrics.jsonl")}
    assert set(contents(here.parent)) == {*wanted, f"{logdir.name}.log"}
    store.fetch_small(tmp_path / "driver" / "nothing")
    assert not (tmp_path / "driver" / "nothing").exists()


@pytest.mark.parametrize("uri", ["nowhere", "no://such/thing", "file:///proc/nothing"])
def test_a_place_where_nothing_can_be_stored_is_one_line(uri):
    with pytest.raises(ValueError, match=f"--storage {uri}: .*expected s3://, gs:// or file:///"):
        storage.Storage(uri)


def test_a_store_that_is_away_for_a_while_is_asked_again(monkeypatch):
    waited, answers = [], [OSError("away"), pyarrow.ArrowException("away"), 7]

    def call():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(storage.time, "sleep", waited.append)
    assert storage.patiently(call) == 7 and waited == list(storage.WAITS[:2])
    answers = [pyarrow.ArrowException("away")] * 9
    with pytest.raises(OSError, match="away"):
        storage.patiently(call)
    assert len(answers) == 9 - 1 - len(storage.WAITS)
