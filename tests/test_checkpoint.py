import numpy as np
import pytest

from common import checkpoint
from common.checkpoint import CheckpointError, Checkpoints
from common.files import write_atomically

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
