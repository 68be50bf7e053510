import collections
import datetime
import logging
import re
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from driving import finish_episodes

from common.data import replay as replay_module
from common.data.driver import Driver
from common.data.replay import Replay
from common.data.spaces import OneHot
from common.envs.scripted import Scripted

REFERENCE = Path(__file__).parent / "golden" / "reference_run"


def add_episode(replay, length, number=0, **extra):
    """An episode of `length` steps; `image` holds (episode, row), `action` is one-hot."""
    for t in range(length + 1):
        action = np.zeros(3, np.float32)
        action[t % 3] = t > 0
        replay.add_step(
            {
                "image": np.array([number, t], np.uint8),
                "reward": np.float32(t + 0.5),
                "action": action,
                "is_first": t == 0,
                "is_last": t == length,
                "is_terminal": t == length,
                **extra,
            }
        )


def names(directory):
    return sorted(path.name for path in Path(directory).iterdir())


def take(replay, count, batch=2, length=7):
    iterator = replay.batches(batch, length)
    return [next(iterator) for _ in range(count)]


def assert_same(xs, ys):
    assert len(xs) == len(ys)
    for x, y in zip(xs, ys, strict=True):
        assert x.keys() == y.keys()
        for key in x:
            np.testing.assert_array_equal(x[key], y[key], err_msg=key)


def rows_of(replay, count, length=8):
    """(episode, row) of the sampled rows, chunk by chunk, with `is_first`."""
    return [(b["image"][0].astype(int), b["is_first"][0]) for b in take(replay, count, 1, length)]


# From the environment to the batch


def test_frames_rewards_and_actions_stay_aligned_from_environment_to_batch(tmp_path):
    lengths = (12, 30, 5, 21)
    env = Scripted(lengths, size=8)
    replay = Replay(tmp_path, 1e6, minlen=4, maxlen=10, prioritize_ends=True)
    driver = Driver([env])
    driver.on_reset(replay.add_step)
    driver.on_step(replay.add_step)
    rng = np.random.default_rng(0)
    actions = np.eye(3, dtype=np.float32)
    finish_episodes(driver, lambda obs, state: (actions[rng.integers(3, size=1)], state), 8)
    terminals = 0
    for batch in take(replay, 50, batch=4, length=10):
        t, episode = batch["counter"][..., 0], batch["counter"][..., 1]
        np.testing.assert_array_equal(batch["image"][:, :, 3, 5, 0], t)
        np.testing.assert_array_equal(batch["image"][:, :, 3, 5, 2], episode)
        expected = batch["action"] @ np.arange(1, 4, dtype=np.float32)
        np.testing.assert_array_equal(batch["reward"], expected)
        np.testing.assert_array_equal(batch["action"].sum(-1), t > 0)
        ends = t == np.array(lengths)[episode.astype(int) % 4]
        np.testing.assert_array_equal(batch["is_last"], ends)
        np.testing.assert_array_equal(batch["is_terminal"], ends)
        terminals += ends.sum()
        inside = ~batch["is_first"][:, 1:]
        np.testing.assert_array_equal(np.diff(t)[inside], 1)
        np.testing.assert_array_equal(np.diff(episode)[inside], 0)
    assert terminals > 20


def test_episodes_of_several_environments_do_not_mix(tmp_path):
    replay = Replay(tmp_path, 1e6, ongoing=True, minlen=2, maxlen=4)
    driver = Driver([Scripted((6, 9), size=8), Scripted(4, size=8)])
    driver.on_reset(replay.add_step)
    driver.on_step(replay.add_step)
    actions = np.eye(3, dtype=np.float32)[[0, 2]]
    driver(lambda obs, state: (actions, state), steps=20)
    lengths = [int(re.split("[-.]", name)[-2]) for name in names(tmp_path)]
    assert sorted(lengths) == [4, 4, 6]
    seen = set()
    for batch in take(replay, 60, batch=2, length=4):
        inside = ~batch["is_first"][:, 1:]
        np.testing.assert_array_equal(np.diff(batch["counter"][..., 0])[inside], 1)
        acted = batch["action"].any(-1)
        which = batch["action"].argmax(-1)
        np.testing.assert_array_equal(batch["reward"][acted], which[acted] + 1)
        assert (which[:, 1:] == which[:, :-1])[inside & acted[:, :-1]].all()
        seen |= set(zip(batch["counter"][..., 1][acted], which[acted], strict=True))
    assert seen == {(0, 0), (1, 0), (0, 2), (1, 2), (2, 2)}, "those under way as well"


# Files


def test_a_finished_episode_is_a_file_named_by_time_uuid_and_steps(tmp_path):
    replay = Replay(tmp_path, 1e6)
    add_episode(replay, 5, log_extra=np.float64(3), count=np.int64(7))
    (name,) = names(tmp_path)
    stamp, unique, length = name.removesuffix(".npz").split("-")
    datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%S")
    assert len(unique) == 32 and int(unique, 16) and length == "5"
    with np.load(tmp_path / name) as file:
        episode = dict(file)
    dtypes = {key: (str(value.dtype), value.shape) for key, value in episode.items()}
    assert dtypes == {
        "image": ("uint8", (6, 2)),
        "reward": ("float32", (6,)),
        "action": ("float32", (6, 3)),
        "is_first": ("bool", (6,)),
        "is_last": ("bool", (6,)),
        "is_terminal": ("bool", (6,)),
        "log_extra": ("float32", (6,)),
        "count": ("int32", (6,)),
    }
    np.testing.assert_array_equal(episode["image"][:, 1], np.arange(6))
    np.testing.assert_array_equal(episode["reward"], np.arange(6) + 0.5)


@pytest.mark.parametrize("jump", [0, -7200])
def test_names_sort_in_the_order_of_adding_even_if_the_clock_goes_back(tmp_path, monkeypatch, jump):
    replay = Replay(tmp_path, 1e6)
    add_episode(replay, 5, number=0)
    moment = datetime.datetime.now() + datetime.timedelta(seconds=jump)

    class Clock(datetime.datetime):
        @classmethod
        def now(cls):
            return moment

    monkeypatch.setattr(replay_module.datetime, "datetime", Clock)
    monkeypatch.setattr(replay_module.time, "time_ns", lambda: int(moment.timestamp() * 1e9))
    for number in range(1, 20):
        if number == 10:
            replay = Replay(tmp_path, 1e6)
        add_episode(replay, 5, number=number)
    order = [int(np.load(tmp_path / name)["image"][0, 0]) for name in names(tmp_path)]
    assert order == list(range(20))


def test_directories_of_the_reference_load_and_sample(tmp_path):
    for folder, episodes, steps in (("train_episodes", 4, 598), ("eval_episodes", 3, 409)):
        directory = tmp_path / folder
        shutil.copytree(REFERENCE / folder, directory)
        replay = Replay(directory, 2e6, minlen=10, maxlen=10, prioritize_ends=True)
        assert replay.stats["loaded_episodes"] == episodes
        assert replay.stats["total_steps"] == steps
        (batch,) = take(replay, 1, batch=4, length=10)
        assert batch["image"].shape == (4, 10, 64, 64, 1) and batch["image"].dtype == np.uint8
        assert batch["action"].shape == (4, 10, 4) and batch["action"].dtype == np.float32
        assert batch["is_first"][0, 0]
    stored = {}
    for path in (REFERENCE / "eval_episodes").iterdir():
        with np.load(path) as file:
            stored.update({frame["ram"].tobytes(): frame for frame in _frames(file)})
    for b, t in np.ndindex(4, 10):
        frame = stored[batch["ram"][b, t].tobytes()]
        np.testing.assert_array_equal(batch["image"][b, t], frame["image"])


def _frames(file):
    episode = dict(file)
    return [{key: value[t] for key, value in episode.items()} for t in range(len(episode["ram"]))]


def test_episodes_of_the_reference_and_of_ours_mix(tmp_path):
    shutil.copytree(REFERENCE / "train_episodes", tmp_path / "e")
    keys = ["image", "action", "reward", "is_terminal"]
    replay = Replay(tmp_path / "e", 2e6, minlen=10, maxlen=10, keys=keys)
    for t in range(21):
        replay.add_step(
            {
                "image": np.full((64, 64, 1), 255, np.uint8),
                "action": np.zeros(4, np.float32),
                "reward": 0.0,
                "is_first": t == 0,
                "is_last": t == 20,
                "is_terminal": False,
            }
        )
    batches = take(replay, 20, batch=4, length=10)
    assert set(batches[0]) == {*keys, "is_first"}
    ours = np.mean([(batch["image"] == 255).all((2, 3, 4)).mean() for batch in batches])
    assert 0.1 < ours < 0.3
    assert names(tmp_path / "e")[-1].endswith("-20.npz")


# Which episodes are kept


def test_episodes_shorter_than_minlen_are_not_kept_and_counted(tmp_path, caplog):
    replay = Replay(tmp_path, 1e6, minlen=5)
    add_episode(replay, 4)
    add_episode(replay, 5)
    assert [name.split("-")[-1] for name in names(tmp_path)] == ["5.npz"]
    assert replay.stats["short_episodes"] == 1
    assert replay.stats["total_episodes"] == replay.stats["loaded_episodes"] == 1
    assert "minlen" in caplog.text
    again = Replay(tmp_path, 1e6, minlen=6)
    assert again.stats["loaded_episodes"] == 0 and again.stats["short_episodes"] == 1


def test_an_episode_that_was_not_completed_is_not_glued_to_the_next(tmp_path):
    replay = Replay(tmp_path, 1e6)
    for t in range(3):
        replay.add_step({"image": np.uint8([9]), "is_first": t == 0, "is_last": False})
    for t in range(4):
        replay.add_step({"image": np.uint8([t]), "is_first": t == 0, "is_last": t == 3})
    (name,) = names(tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / name)["image"][:, 0], range(4))


def test_beyond_capacity_the_oldest_episodes_leave_memory_and_disk(tmp_path):
    replay = Replay(tmp_path, 25)
    for number in range(5):
        add_episode(replay, 10, number=number)
    assert len(names(tmp_path)) == 2
    stats = replay.stats
    assert (stats["loaded_steps"], stats["loaded_episodes"]) == (20, 2)
    assert (stats["total_steps"], stats["total_episodes"]) == (50, 5)
    assert stats["memory_episodes"] == 2
    for source in (replay, Replay(tmp_path, 25)):
        seen = {int(rows[0, 0]) for rows, _ in rows_of(source, 50)}
        assert seen == {3, 4}


def test_opening_with_a_smaller_capacity_deletes_nothing_until_an_episode_is_added(tmp_path):
    replay = Replay(tmp_path, 0)
    for number in range(4):
        add_episode(replay, 10, number=number)
    replay = Replay(tmp_path, 10)
    take(replay, 3)
    assert len(names(tmp_path)) == 4
    add_episode(replay, 10, number=9)
    assert len(names(tmp_path)) == 1
    add_episode(replay, 11, number=10)
    assert len(names(tmp_path)) == 1, "the newest stays although it exceeds the capacity"


# Sampling


def test_episodes_are_equally_likely_whatever_their_length(tmp_path):
    replay = Replay(tmp_path, 1e6, minlen=4, maxlen=4)
    for number, length in enumerate([4, 100, 20]):
        add_episode(replay, length, number)
    counts = collections.Counter(int(rows[0, 0]) for rows, _ in rows_of(replay, 3000, 4))
    np.testing.assert_allclose([counts[n] / 3000 for n in range(3)], 1 / 3, atol=0.04)


def test_lengths_and_starts_are_uniform_within_their_bounds(tmp_path):
    replay = Replay(tmp_path, 1e6, minlen=3, maxlen=5)
    add_episode(replay, 7)
    pairs = collections.Counter((s.stop - s.start, s.start) for s in _draws(replay, 9000))
    # 5 - {0, 1, 2} rows of 8: lengths 5, 4, 3 with 4, 5, 6 starts.
    for length, starts in ((5, 4), (4, 5), (3, 6)):
        shares = [pairs.pop((length, start)) / 9000 for start in range(starts)]
        np.testing.assert_allclose(shares, 1 / 3 / starts, atol=0.02)
    assert not pairs


def test_prioritized_ends_fold_minlen_extra_starts_onto_the_last(tmp_path):
    replay = Replay(tmp_path, 1e6, minlen=4, maxlen=4, prioritize_ends=True)
    add_episode(replay, 9)
    starts = collections.Counter(s.start for s in _draws(replay, 11000))
    # 7 starts fit 4 rows of 10; 4 more are clipped back to the last.
    expected = [1 / 11] * 6 + [5 / 11]
    np.testing.assert_allclose([starts[i] / 11000 for i in range(7)], expected, atol=0.02)


def _draws(replay, count):
    return [replay._draw() for _ in range(count)]


def test_without_maxlen_a_sequence_reaches_up_to_the_whole_episode(tmp_path):
    replay = Replay(tmp_path, 1e6, minlen=1)
    add_episode(replay, 40)
    assert {(s.start, s.stop) for s in _draws(replay, 5)} == {(0, 41)}


def test_a_chunk_is_filled_from_sequences_that_each_begin_with_is_first(tmp_path):
    replay = Replay(tmp_path, 1e6, minlen=5, maxlen=5)
    for number in range(3):
        add_episode(replay, 30, number)
    chunks = rows_of(replay, 40, length=8)
    rows = np.concatenate([rows for rows, _ in chunks])
    first = np.concatenate([first for _, first in chunks])
    # Sequences have 5 rows and follow each other across the seams of chunks of 8.
    np.testing.assert_array_equal(first.nonzero()[0], np.arange(0, 320, 5))
    inside = ~first[1:]
    np.testing.assert_array_equal(np.diff(rows[:, 1])[inside], 1)
    np.testing.assert_array_equal(np.diff(rows[:, 0])[inside], 0)
    assert (np.diff(rows[:, 1])[~inside] != 1).any()


def test_marking_is_first_leaves_the_stored_episode_alone(tmp_path):
    replay = Replay(tmp_path, 1e6, minlen=3, maxlen=3)
    add_episode(replay, 20)
    for rows, first in rows_of(replay, 200, length=6):
        np.testing.assert_array_equal(first, [1, 0, 0, 1, 0, 0])
        assert rows.max() <= 20
    for stored in replay._memory.values():
        np.testing.assert_array_equal(stored["is_first"].nonzero()[0], [0])


def test_batches_own_their_arrays(tmp_path):
    replay = Replay(tmp_path, 1e6)
    add_episode(replay, 9)
    one, two = take(replay, 2)
    before = {key: value.copy() for key, value in two.items()}
    for value in one.values():
        value[:] = 1
    assert_same([two], [before])
    assert (take(replay, 1, 4, 20)[0]["image"][..., 0] == 0).all()


def test_log_keys_are_stored_but_not_sampled(tmp_path):
    replay = Replay(tmp_path, 1e6)
    add_episode(replay, 5, log_extra=1.0)
    assert set(take(replay, 1)[0]) == {
        *("image", "reward", "action", "is_first", "is_last", "is_terminal")
    }


@pytest.mark.parametrize("reread", [False, True])
def test_values_come_back_exactly_though_whole_numbers_are_stored_narrow(tmp_path, reread):
    replay = Replay(tmp_path, 1e6)
    columns = {
        "whole": np.array([0, 1, 255, 3], np.float32),
        "above": np.array([0, 1, 256, 3], np.float32),
        "below": np.array([0, -1, 2, 3], np.float32),
        "broken": np.array([0, 0.5, 2, 3], np.float32),
        "int": np.array([7, 8, 9, 10], np.int32),
        "empty": np.zeros((4, 0), np.float32),
    }
    for t in range(4):
        row = {key: value[t] for key, value in columns.items()}
        replay.add_step({**row, "is_first": t == 0, "is_last": t == 3})
    if reread:
        replay = Replay(tmp_path, 1e6)
    (batch,) = take(replay, 1, 1, 4)
    for key, value in columns.items():
        assert batch[key].dtype == value.dtype, key
        np.testing.assert_array_equal(batch[key][0], value, err_msg=key)


@pytest.mark.parametrize(
    ("ongoing", "steps", "expected"),
    [(False, 50, {1}), (True, 4, {1}), (True, 5, {1, 2}), (True, 99, {1, 2})],
)
def test_the_episode_under_way_is_sampled_if_asked_and_long_enough(
    tmp_path, ongoing, steps, expected
):
    replay = Replay(tmp_path, 1e6, ongoing, minlen=5, maxlen=5)
    for number, length, rows in ((1, 20, 21), (2, 10**6, steps + 1)):
        for t in range(rows):
            flags = {"is_first": t == 0, "is_last": t == length}
            replay.add_step({"image": np.array([number, t], np.uint8), **flags})
    assert {int(episode) for rows, _ in rows_of(replay, 50) for episode in rows[:, 0]} == expected


def test_a_cut_sequence_of_the_episode_under_way_survives_its_end(tmp_path):
    replay = Replay(tmp_path, 1e6, ongoing=True, minlen=1)
    for t in range(30):
        flags = {"is_first": t == 0, "is_last": False}
        replay.add_step({"image": np.uint8([1, t]), **flags})
    (head, _) = rows_of(replay, 1, length=5)[0]
    replay.add_step({"image": np.uint8([1, 30]), "is_first": False, "is_last": True})
    for t in range(30):
        replay.add_step({"image": np.uint8([2, t]), "is_first": t == 0, "is_last": False})
    (tail, first) = rows_of(replay, 1, length=25)[0]
    np.testing.assert_array_equal(np.concatenate([head, tail])[:, 0], 1)
    np.testing.assert_array_equal(np.concatenate([head, tail])[:, 1], np.arange(30))
    assert not first.any()


# Errors


def test_sampling_an_empty_replay_is_an_error_not_a_wait(tmp_path):
    replay = Replay(tmp_path, 1e6, minlen=50)
    add_episode(replay, 10)
    with pytest.raises(ValueError, match=r"no episode.*minlen 50.*1 were shorter"):
        next(replay.batches(2, 5))


def test_a_replay_of_another_task_is_named(tmp_path):
    add_episode(Replay(tmp_path, 1e6), 10)
    replay = Replay(tmp_path, 1e6)
    take(replay, 1)
    with pytest.raises(
        ValueError, match=r"action is float32 \[4\], in other episodes float32 \[3\]"
    ):
        add_episode(replay, 10, action=np.zeros(4, np.float32))
    spaces = {"image": gymnasium.spaces.Box(0, 255, (5, 5, 1), np.uint8)}
    with pytest.raises(ValueError, match=r"image is .*, expected uint8 \[5, 5, 1\]"):
        next(Replay(tmp_path, 1e6, keys=["image"], spaces=spaces).batches(1, 5))
    with pytest.raises(ValueError, match="depth"):
        next(Replay(tmp_path, 1e6, keys=["image", "depth"]).batches(1, 5))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"capacity": -1}, "replay.capacity -1"),
        ({"minlen": 0}, "replay.minlen 0"),
        ({"minlen": 5, "maxlen": 4}, "replay.maxlen 4"),
        ({"memory_gib": -2}, "replay.memory_gib -2"),
    ],
)
def test_impossible_settings_are_named(tmp_path, settings, match):
    with pytest.raises(ValueError, match=match):
        Replay(tmp_path, **{"capacity": 1e6, **settings})


# Damage


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "flipped", "rows"])
def test_a_damaged_file_is_put_aside_counted_and_another_drawn(tmp_path, caplog, damage):
    replay = Replay(tmp_path, 1e6)
    for number in range(2):
        add_episode(replay, 50, number)
    bad = tmp_path / names(tmp_path)[0]
    content = bytearray(bad.read_bytes())
    content[100] ^= 255
    if damage == "rows":
        bad = bad.rename(str(bad).replace("-50.npz", "-49.npz"))
    else:
        variants = {"truncated": content[:-40], "empty": b"", "garbage": b"x" * 500}
        bad.write_bytes(variants.get(damage, content))
    replay = Replay(tmp_path, 1e6)
    assert replay.stats["damaged_episodes"] == 0
    seen = {int(rows[0, 0]) for rows, _ in rows_of(replay, 30)}
    assert seen == {1}
    assert replay.stats["damaged_episodes"] == 1
    assert replay.stats["loaded_episodes"] == 1 and replay.stats["loaded_steps"] == 50
    assert names(tmp_path)[0] == f"{bad.name}.damaged"
    assert bad.name in caplog.text
    assert Replay(tmp_path, 1e6).stats["loaded_episodes"] == 1


def test_a_file_that_was_deleted_meanwhile_is_skipped(tmp_path, caplog):
    for number in range(2):
        add_episode(Replay(tmp_path, 1e6), 50, number)
    replay = Replay(tmp_path, 1e6)
    (tmp_path / names(tmp_path)[0]).unlink()
    assert {int(rows[0, 0]) for rows, _ in rows_of(replay, 30)} == {1}
    assert "gone" in caplog.text


def test_half_written_and_foreign_files_are_ignored(tmp_path):
    add_episode(Replay(tmp_path, 1e6), 5)
    (whole,) = names(tmp_path)
    for name in (f".{whole}.tmp", f"{whole}.damaged", "notes.npz", "20260101T000000-ab-x.npz"):
        (tmp_path / name).write_bytes(b"half")
    replay = Replay(tmp_path, 1e6)
    assert replay.stats["total_episodes"] == 1
    take(replay, 3)
    assert len(names(tmp_path)) == 5


def test_a_write_that_fails_leaves_no_file(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"part")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space"):
        add_episode(Replay(tmp_path, 1e6), 5)
    assert names(tmp_path) == []


# Memory


def test_what_does_not_fit_in_memory_is_read_from_its_file_with_the_same_samples(tmp_path):
    replay = Replay(tmp_path, 1e6, minlen=2, maxlen=9)
    for number in range(6):
        add_episode(replay, 50, number)
    per_episode = replay.stats["memory_bytes"] // 6
    unlimited = Replay(tmp_path, 1e6, minlen=2, maxlen=9)
    for episodes in (0.5, 2.5):
        gib = episodes * per_episode / 2**30
        tight = Replay(tmp_path, 1e6, minlen=2, maxlen=9, memory_gib=gib)
        iterator, expected = tight.batches(2, 12), unlimited.batches(2, 12)
        for _ in range(40):
            assert_same([next(iterator)], [next(expected)])
            assert tight.stats["memory_bytes"] <= episodes * per_episode
            assert tight.stats["memory_episodes"] <= int(episodes)
        unlimited = Replay(tmp_path, 1e6, minlen=2, maxlen=9)
    assert tight.stats["memory_episodes"] == 2


def test_a_start_reads_no_episode_and_the_first_batch_only_what_it_samples(tmp_path, monkeypatch):
    add_episode(Replay(tmp_path, 0), 10)
    (name,) = names(tmp_path)
    content = (tmp_path / name).read_bytes()
    for i in range(1000):
        (tmp_path / f"20200101T{i:06d}-{i:032x}-10.npz").write_bytes(content)
    reads = []
    read = Replay._read
    monkeypatch.setattr(Replay, "_read", lambda *args: reads.append(1) or read(*args))
    replay = Replay(tmp_path, 0, minlen=5, maxlen=5)
    assert replay.stats["loaded_steps"] == 10010 and not reads
    take(replay, 1, batch=4, length=10)
    assert 0 < len(reads) <= 8


def test_a_row_takes_little_more_memory_than_its_frame(tmp_path):
    replay = Replay(tmp_path, 1e6, keys=["image", "action", "reward", "is_terminal", "is_last"])
    for t in range(301):
        replay.add_step(
            {
                "image": np.full((64, 64, 1), t % 256, np.uint8),
                "ram": np.zeros(128, np.uint8),
                "action": np.eye(18, dtype=np.float32)[t % 18],
                "reward": np.float32(t % 2),
                "is_first": t == 0,
                "is_last": t == 300,
                "is_terminal": t == 300,
            }
        )
    assert replay.stats["memory_bytes"] == 301 * (4096 + 18 + 1 + 3)


def test_adding_a_row_does_not_copy_the_rows_before_it(tmp_path):
    replay = Replay(tmp_path, 1e6)
    moves, last = 0, None
    for t in range(5000):
        replay.add_step({"image": np.zeros(100, np.uint8), "is_first": t == 0, "is_last": False})
        buffer = replay._running[0].arrays()["image"].base
        moves += buffer is not last
        last = buffer
    assert moves <= 8  # 64 rows doubled to 8192


def test_the_capacity_report_states_memory_disk_and_whether_they_suffice(tmp_path, monkeypatch):
    spaces = {
        "image": gymnasium.spaces.Box(0, 255, (64, 64, 1), np.uint8),
        "log_map": gymnasium.spaces.Box(0, 1, (100,), np.float64),
        "reward": gymnasium.spaces.Box(-np.inf, np.inf, (), np.float32),
        "action": OneHot(4),
    }
    replay = Replay(tmp_path, 1000, memory_gib=1)
    report = replay.capacity_report(spaces)
    assert report.memory_bytes == 1000 * (4096 + 4 + 16)
    assert report.disk_bytes == 1000 * (4096 + 4 + 16 + 400)
    assert report.disk_suffices and "too small" not in str(report)
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(replay_module.shutil, "disk_usage", lambda path: usage(9, 9, 1000))
    report = replay.capacity_report(spaces)
    assert not report.disk_suffices and "the disk is too small" in str(report)


def test_the_capacity_report_takes_the_compression_of_the_files_that_are_there(tmp_path):
    replay = Replay(tmp_path, 1000)
    row = {"image": np.zeros((64, 64, 1), np.uint8), "is_first": True, "is_last": False}
    for t in range(50):
        replay.add_step({**row, "is_first": t == 0, "is_last": t == 49})
    (path,) = tmp_path.iterdir()
    report = replay.capacity_report({k: np.asarray(v) for k, v in row.items()})
    assert report.disk_bytes == pytest.approx(path.stat().st_size * 1000 / 50, rel=1e-3)


# Exact resume


@pytest.mark.parametrize("maxlen", [0, 6])
def test_a_fresh_replay_continues_with_exactly_the_same_samples(tmp_path, maxlen):
    settings = {"capacity": 1e6, "minlen": 3, "maxlen": maxlen, "prioritize_ends": True}
    replay = Replay(tmp_path / "episodes", **settings, seed=4)
    for number in range(5):
        add_episode(replay, 10 + number, number)
    for batches in range(4):
        take(replay, batches)
        np.savez(tmp_path / "state.npz", **replay.state())
        fresh = Replay(tmp_path / "episodes", **settings, seed=99)
        with np.load(tmp_path / "state.npz") as state:
            fresh.load_state(dict(state))
        assert_same(take(fresh, 6), take(replay, 6))


def test_a_fresh_replay_and_the_old_one_stay_equal_while_episodes_are_added(tmp_path):
    settings = {"capacity": 60, "minlen": 3, "maxlen": 6}
    old, copy = Replay(tmp_path / "old", **settings), tmp_path / "copy"
    for number in range(5):
        add_episode(old, 10, number)
    take(old, 3)
    shutil.copytree(tmp_path / "old", copy)
    new = Replay(copy, **settings, seed=99)
    new.load_state(old.state())
    for number in range(5, 9):
        add_episode(old, 12, number)
        add_episode(new, 12, number)
        assert_same(take(new, 4), take(old, 4))


def test_the_same_seed_gives_the_same_samples_and_another_seed_others(tmp_path):
    samples = []
    for run, seed in enumerate((0, 0, 1)):
        replay = Replay(tmp_path / str(run), 1e6, minlen=3, maxlen=6, seed=seed)
        batches = []
        for number in range(8):
            add_episode(replay, 10 + number, number)
            batches += take(replay, 2)
        samples.append(batches)
    assert_same(samples[0], samples[1])
    with pytest.raises(AssertionError):
        assert_same(samples[0], samples[2])


def test_totals_survive_a_restart_after_episodes_left(tmp_path):
    replay = Replay(tmp_path, 20)
    for number in range(5):
        add_episode(replay, 10, number)
    fresh = Replay(tmp_path, 20)
    fresh.load_state(replay.state())
    assert fresh.stats["total_steps"] == 50 and fresh.stats["total_episodes"] == 5


@pytest.fixture(autouse=True)
def _hear_warnings(caplog):
    caplog.set_level(logging.WARNING)
