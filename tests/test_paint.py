"""Pixels, letters and lines land where they should, in the palette's colours."""

import numpy as np

from common.log import paint


def test_zoom_repeats_pixels_and_never_mixes_them():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(paint.zoomed(image, 7, 9), image.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(paint.zoomed(image, 2, 2), [[0, 2]])


def test_text_is_painted_in_the_colours_of_the_palette_and_inside_the_canvas():
    canvas = np.zeros((20, 90, 3), np.uint8)
    canvas[:] = paint.FIELD
    paint.text(canvas, 70, 12, "return 12", 11, paint.GOLD)
    assert (canvas[:12] == paint.FIELD).all() and (canvas[:, :70] == paint.FIELD).all()
    known = {tuple(color) for color in paint.ui_colors().tolist()}
    used = {tuple(color) for color in canvas.reshape(-1, 3).tolist()}
    assert paint.GOLD in used <= known


def test_the_longest_title_that_fits_is_taken():
    candidates = ("reconstruction", "recon")
    wide = paint.text_width("reconstruction", 11)
    assert paint.fitting(candidates, 11, wide) == "reconstruction"
    assert paint.fitting(candidates, 11, wide - 1) == "recon"
    assert paint.fitting(candidates, 11, 1) == "recon"


def test_a_curve_joins_its_points():
    canvas = np.zeros((6, 4, 3), np.uint8)
    paint.curve(canvas, np.array([0.0, 4.0, 4.0]), 1, (9, 9, 9))
    expected = [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0] * 4]
    np.testing.assert_array_equal(canvas[..., 0] // 9, expected)


def test_words_stand_left_of_the_rows_that_they_name():
    clip = np.zeros((2, 96, 20, 1), np.uint8)
    named = paint.name_rows(clip, ("truth", "", "error"))
    assert named.shape == (2, 96, paint.NAMES_WIDTH + 20, 1)
    words = named[0, :, : paint.NAMES_WIDTH, 0].reshape(3, -1)
    assert [len(np.unique(row)) > 1 for row in words] == [True, False, True]
    np.testing.assert_array_equal(named[:, :, paint.NAMES_WIDTH :], clip)
    assert paint.name_rows(clip.repeat(3, 3), ("truth",)).shape[3] == 3
