import errno
import io
import json
import os
import threading
import zipfile

import numpy as np
import pytest

from common import checkpoint
from common.checkpoint import CheckpointError, Checkpoints
from common.files import check_writable, sweep_temporary, write_atomically

ARRAYS = {
    "rssm/gru/dense/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "reward_norm/mag": np.float64(1.25),
    "file": np.array([True, False]),
    "rng": np.array('{"state": 3}'),
    "half": np.ones(2, np.float16),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
}
META = {"agent_steps": 1000, "clocks": {"eval": {"last": None}}}


def test_arrays_and_meta_come_back_exactly(tmp_path):
    path = tmp_path / "a.npz"
    checkpoint.save(path, ARRAYS, META)
    arrays, meta = checkpoint.load(path)
    assert meta == META
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == np.asarray(array).dtype, name
        np.testing.assert_array_equal(arrays[name], array)


def test_the_file_is_an_npz(tmp_path):
    checkpoint.save(tmp_path / "a.npz", ARRAYS, META)
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["half"], ARRAYS["half"])


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_error(tmp_path, keep):
    path = tmp_path / "a.npz"
    checkpoint.save(path, ARRAYS, META)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match="a.npz: truncated") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_a_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "a.npz"
    big = {"kernel": np.zeros(10000, np.float32)}
    checkpoint.save(path, big, META)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="a.npz"):
        checkpoint.load(path)


def test_a_foreign_file_is_refused(tmp_path):
    np.savez(tmp_path / "foreign.npz", kernel=np.zeros(3))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "foreign.npz")
    with pytest.raises(CheckpointError, match="no such"):
        checkpoint.load(tmp_path / "absent.npz")


@pytest.mark.parametrize("shape", ["1000000000000000,", "99999999999999999999,"])
def test_an_array_that_claims_to_be_larger_than_any_memory_is_damage(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape})}}\n".encode()
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("checkpoint.json", '{"agent_steps": 1}')
        archive.writestr("x.npy", array)
    with pytest.raises(CheckpointError, match="truncated, damaged or not a checkpoint"):
        checkpoint.load(tmp_path / "a.npz")


@pytest.mark.parametrize("bad", [np.array([{}], object), np.zeros(2, np.dtype("V2"))])
def test_a_save_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, bad):
    path = tmp_path / "a.npz"
    checkpoint.save(path, ARRAYS, META)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="kernel"):
        checkpoint.save(path, {**ARRAYS, "kernel": bad}, META)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_the_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.bin"
    with write_atomically(path) as file:
        file.write(b"all of it")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"all of it"


def test_the_last_keep_checkpoints_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert checkpoints.latest() is None and checkpoints.all() == []
    for steps in (0, 500, 1_000_000):
        checkpoints.save(steps, ARRAYS, {"agent_steps": steps})
    names = [p.name for p in checkpoints.all()]
    assert names == ["000000000500.npz", "000001000000.npz"]
    assert checkpoints.latest().name == names[-1] == checkpoints.path().name
    assert checkpoint.load(checkpoints.path(500))[1] == {"agent_steps": 500}


def test_saving_from_an_earlier_step_does_not_remove_what_it_wrote(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for steps in (100, 200, 150):
        written = checkpoints.save(steps, ARRAYS, META)
        assert written.exists()
    assert [int(p.stem) for p in checkpoints.all()] == [150, 200]


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        checkpoints.path()
    checkpoints.save(500, ARRAYS, META)
    with pytest.raises(CheckpointError, match="7; there are 500"):
        checkpoints.path(7)
    with pytest.raises(ValueError, match="keep_checkpoints 0"):
        Checkpoints(tmp_path, keep=0)


def rewrite(path, change):
    """The file with `change(entries)` applied to its entries, name to bytes."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def describe(entries, **changes):
    meta = json.loads(entries["checkpoint.json"])
    header = {**meta["checkpoint"], **changes}
    entries["checkpoint.json"] = json.dumps({**meta, "checkpoint": header}).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("half.npy"), "half is missing"),
        (lambda e: e.update({"more.npy": npy(np.ones(2))}), "more does not belong to it"),
        (lambda e: e.update({"half.npy": npy(np.zeros(2, np.float16))}), "half is not what was"),
        (lambda e: e.update({"half.npy": npy(np.ones(3, np.float16))}), "half is not what was"),
        (lambda e: e.update({"checkpoint.json": b"{}"}), "its description is empty"),
        (lambda e: e.update({"checkpoint.json": b"[1]"}), "its description is empty"),
        (lambda e: describe(e, format=3), "format 3; this version reads up to 2"),
        (lambda e: describe(e, format="x"), "format x; this version"),
        (lambda e: describe(e, arrays=7), "truncated, damaged or not a checkpoint"),
        (lambda e: e.pop("checkpoint.json"), "not a checkpoint"),
    ],
)
def test_what_is_missing_left_over_or_changed_is_one_line(tmp_path, change, message):
    path = tmp_path / "a.npz"
    checkpoint.save(path, ARRAYS, META)
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=f"a.npz: .*{message}") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_the_first_format_which_had_no_header_is_read(tmp_path):
    path = tmp_path / "a.npz"
    checkpoint.save(path, ARRAYS, META)
    rewrite(path, lambda e: e.update({"checkpoint.json": json.dumps(META).encode()}))
    arrays, meta = checkpoint.load(path)
    assert meta == META and arrays.keys() == ARRAYS.keys()


def test_a_damaged_checkpoint_takes_no_place_and_no_good_one_leaves_for_it(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for steps in (100, 200):
        checkpoints.save(steps, ARRAYS, META)
    (tmp_path / "000000000300.npz").write_bytes(b"half of it")
    again = Checkpoints(tmp_path, keep=2)
    again.save(400, ARRAYS, META)
    assert [int(p.stem) for p in again.all()] == [200, 300, 400]
    again.save(500, ARRAYS, META)
    assert [int(p.stem) for p in again.all()] == [300, 400, 500]


def test_a_temporary_checkpoint_stays_until_the_next_one(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    kept = []
    for steps, temporary in ((1, False), (2, True), (3, True), (4, False), (5, True), (6, False)):
        checkpoints.save(steps, ARRAYS, META, temporary)
        kept.append([int(p.stem) for p in checkpoints.all()])
    assert kept == [[1], [1, 2], [1, 3], [1, 4], [1, 4, 5], [4, 6]]


def test_a_temporary_checkpoint_that_a_killed_process_left_takes_no_place(tmp_path):
    killed = Checkpoints(tmp_path, keep=2)
    for steps, temporary in ((100, False), (200, False), (250, True)):
        killed.save(steps, ARRAYS, META, temporary)
    killed._temporary = None  # before it could remove it
    killed.save(300, ARRAYS, META, temporary=True)
    resumed = Checkpoints(tmp_path, keep=2)
    resumed.load(resumed.path())
    resumed.save(400, ARRAYS, META)
    assert [int(p.stem) for p in resumed.all()] == [200, 400]


def test_writers_at_the_same_time_do_not_meet(tmp_path):
    path = tmp_path / "a.npz"
    with write_atomically(path) as one, write_atomically(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]


def test_a_device_is_written_to_and_stays_one():
    here, there = os.openpty()
    with write_atomically(os.ttyname(there)) as file:
        file.write(b"a line\n")
    check_writable(os.ttyname(there))
    assert os.read(here, 100).replace(b"\r", b"") == b"a line\n"
    os.close(here)
    os.close(there)


def test_a_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to("file")
    for text in (b"one", b"other"):
        with write_atomically(tmp_path / "link") as file:
            file.write(text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == text


def test_what_cannot_be_written_is_known_before_it_is_written(tmp_path):
    path = tmp_path / "new" / "file"
    check_writable(path)
    assert list(tmp_path.rglob("*")) == [path.parent]
    path.write_text("stays")
    check_writable(path)
    assert path.read_text() == "stays"
    with pytest.raises(IsADirectoryError, match="new"):
        check_writable(path.parent)
    with pytest.raises(OSError):
        check_writable(path / "below a file")
    with pytest.raises(OSError):
        check_writable(tmp_path / ("long" * 100))


def test_what_killed_writers_left_is_swept(tmp_path):
    for name in (".a.npz.12.tmp", ".b.tmp", "c.tmp", ".d", "e.npz"):
        (tmp_path / name).touch()
    assert len(sweep_temporary(tmp_path)) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [".d", "c.tmp", "e.npz"]
    assert sweep_temporary(tmp_path / "absent") == []


def test_an_error_of_a_write_names_the_file(tmp_path):
    with pytest.raises(OSError) as error, write_atomically(tmp_path / "a.npz"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "a.npz")


def test_a_checkpoint_written_behind_is_that_of_the_call_and_its_error_is_not_lost(
    tmp_path, monkeypatch
):
    checkpoints, meta = Checkpoints(tmp_path / "checkpoints", keep=1), {"list": [1]}
    begin, slow = threading.Event(), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: (begin.wait(), slow(*args)))
    checkpoints.save_behind(5, ARRAYS, meta)
    meta["list"].append(2)  # training goes on
    assert checkpoints.all() == []
    begin.set()
    checkpoints.wait()
    assert checkpoints.load(checkpoints.path(5))[1] == {"list": [1]}

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    checkpoints.save_behind(6, ARRAYS, meta)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(7, ARRAYS, meta)
    checkpoints.wait()
    assert [path.name for path in checkpoints.all()] == ["000000000005.npz"]


def test_the_latest_checkpoint_is_the_one_that_is_being_written(tmp_path, monkeypatch):
    checkpoints, begin, slow = Checkpoints(tmp_path, keep=1), threading.Event(), checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: (begin.wait(), slow(*args)))
    checkpoints.save_behind(5, ARRAYS, META)
    threading.Timer(0.2, begin.set).start()
    assert checkpoints.latest() == tmp_path / "000000000005.npz"


def test_two_checkpoints_are_written_behind_in_their_order_and_a_third_waits(tmp_path, monkeypatch):
    checkpoints, written = Checkpoints(tmp_path, keep=5), []
    begin, third = threading.Event(), threading.Event()
    slow = checkpoint.save

    def save(path, arrays, meta):
        begin.wait()
        slow(path, arrays, meta)
        written.append(path.name)

    monkeypatch.setattr(checkpoint, "save", save)
    checkpoints.save_behind(1, ARRAYS, META, temporary=True)
    checkpoints.save_behind(2, ARRAYS, META)
    thread = threading.Thread(
        target=lambda: (checkpoints.save_behind(3, ARRAYS, META), third.set())
    )
    thread.start()
    assert not third.wait(0.3)
    begin.set()
    thread.join()
    checkpoints.wait()
    assert written == [f"{step:012d}.npz" for step in (1, 2, 3)]
    assert [path.name for path in checkpoints.all()] == written[1:], "the first was temporary"
