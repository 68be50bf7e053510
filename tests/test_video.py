import io
import time

import imageio.v3 as iio
import numpy as np
import pytest

from common.log import video


def decode(data):
    return iio.imread(data, plugin="pillow", index=...)


def moving_ball(length=40, size=64, channels=3):
    frames = np.zeros((length, size, size, channels), np.uint8)
    frames[:, :8] = 142
    for t in range(length):
        frames[t, 20:24, t : t + 4] = 200
    return frames


def test_gif_of_few_colours_is_exact():
    frames = moving_ball()
    np.testing.assert_array_equal(decode(video.encode_gif(frames)), frames)


def test_gray_clip_becomes_rgb():
    frames = moving_ball(channels=1)
    np.testing.assert_array_equal(decode(video.encode_gif(frames)), frames.repeat(3, -1))


def test_gif_of_many_colours_is_close():
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    frame = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128), -1).astype(np.uint8)
    frames = np.stack([frame, frame[::-1], frame[:, ::-1]])
    error = np.abs(decode(video.encode_gif(frames)).astype(float) - frames)
    assert error.mean() < 4 and error.max() < 25


def test_a_rare_small_detail_keeps_its_colour_to_the_eye():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 60, (4, 64, 64, 3)).astype(np.uint8)
    frames[:, 30:34, 30:34] = (250, 40, 40)
    patch = decode(video.encode_gif(frames))[:, 31, 31].astype(int)
    assert np.abs(patch - (250, 40, 40)).max() < 40


def test_colours_to_keep_are_exact_among_many_others():
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    keep = np.array([[1, 2, 3], [250, 40, 40]], np.uint8)
    palette = video.choose_palette(noise, keep)
    assert len(palette) <= video.MAX_COLORS
    for color in keep:
        assert (palette == color).all(-1).any()


def test_a_colour_outside_the_palette_becomes_the_nearest():
    file, palette = io.BytesIO(), np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]], np.uint8)
    with video.GIFWriter(file, palette, 10) as writer:
        writer.add(np.full((4, 4, 3), (180, 30, 10), np.uint8))
    assert (decode(file.getvalue()) == (200, 0, 0)).all()


def test_float_frames_are_clipped_and_not_a_number_is_black():
    frames = np.zeros((2, 4, 4, 1))
    frames[0, 0, :, 0] = [-1.0, 0.5, 7.0, np.nan]
    assert video.to_uint8(frames)[0, 0, :, 0].tolist() == [0, 128, 255, 0]


@pytest.mark.parametrize("fps", [15, 20, 30])
def test_gif_plays_at_the_asked_speed(fps):
    data = video.encode_gif(moving_ball(30), fps)
    shown = [iio.immeta(data, plugin="pillow", index=i)["duration"] for i in range(30)]
    assert abs(sum(shown) - 30_000 / fps) <= 10


def test_equal_frames_in_a_row_keep_their_time():
    frames = moving_ball(5)[[0, 0, 0, 1, 2]]
    data = video.encode_gif(frames, fps=10)
    shown = [iio.immeta(data, plugin="pillow", index=i)["duration"] for i in range(3)]
    assert shown == [300, 100, 100]


def test_only_changed_regions_are_stored():
    noise = np.random.default_rng(0).integers(0, 100, (64, 64, 1)).astype(np.uint8)
    still = np.repeat(noise[None], 50, 0)
    moving = still.copy()
    for t in range(50):
        moving[t, 20:24, t : t + 4] = 255
    first = len(video.encode_gif(moving[:1]))
    assert len(video.encode_gif(moving)) < 3 * first


def test_a_thousand_noisy_frames_take_seconds():
    frames = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3)).astype(np.uint8)
    start = time.process_time()
    video.encode_gif(frames)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 4, 4, 2), (0, 4, 4, 3), (4, 4)])
def test_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"\[T, H, W, 1 or 3\]"):
        video.encode_gif(np.zeros(shape, np.uint8))


def test_integer_frames_other_than_bytes_are_refused():
    with pytest.raises(ValueError, match="int64"):
        video.encode_gif(np.zeros((2, 4, 4, 3), np.int64))


def test_save_gif_makes_the_folder_and_leaves_nothing_else(tmp_path):
    path = video.save_gif(tmp_path / "sub" / "clip.gif", moving_ball())
    assert [p.name for p in path.parent.iterdir()] == ["clip.gif"]
    assert iio.imread(path, plugin="pillow", index=...).shape == (40, 64, 64, 3)


def test_mp4_can_be_read_back_and_odd_sizes_are_padded(tmp_path):
    pytest.importorskip("av")
    frames = moving_ball(20)[:, :63, :61]
    path = tmp_path / "clip.mp4"
    with video.open_clip(path, 10, None) as add:
        for frame in frames:
            add(frame)
    back = iio.imread(path, plugin="pyav")
    assert back.shape == (20, 64, 62, 3)
    assert np.abs(back[:, :63, :61].astype(float) - frames).mean() < 5
    assert iio.immeta(path, plugin="pyav")["duration"] == pytest.approx(2.0, abs=0.11)
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_film_replaces_what_a_link_leads_to_and_not_the_link(tmp_path):
    pytest.importorskip("av")
    for suffix in (".gif", ".mp4"):
        path, link = tmp_path / f"there{suffix}", tmp_path / f"link{suffix}"
        path.touch()
        link.symlink_to(path)
        with video.open_clip(link, 10, np.eye(3, dtype=np.uint8)) as add:
            add(np.zeros((16, 16, 3), np.uint8))
        assert link.is_symlink() and path.stat().st_size


@pytest.mark.parametrize("suffix", video.FORMATS)
def test_a_clip_appears_whole_or_not_at_all(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    palette = video.choose_palette(moving_ball())
    with pytest.raises(RuntimeError), video.open_clip(path, 10, palette) as add:
        add(moving_ball()[0])
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with video.open_clip(path, 10, palette, "made by a test") as add:
        for frame in moving_ball():
            add(frame)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert b"made by a test" in path.read_bytes()


def test_an_unknown_format_is_named(tmp_path):
    with (
        pytest.raises(ValueError, match=r"clip\.webm: expected a name that ends in \.gif or \.mp4"),
        video.open_clip(tmp_path / "clip.webm", 10, np.zeros((1, 3), np.uint8)),
    ):
        pass
