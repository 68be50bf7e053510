"""Text, images and charts as pixels, in few colours so that a GIF's palette holds them all.

Canvases are uint8 [H, W, 3] and are painted in place; x goes right, y goes down.
"""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

BACKGROUND: Color = (16, 18, 24)
FIELD: Color = (34, 38, 48)  # where bars and curves are drawn
TEXT: Color = (232, 235, 241)
DIM: Color = (150, 158, 172)
BLUE: Color = (78, 160, 240)
GREEN: Color = (110, 220, 130)
GOLD: Color = (255, 204, 80)
MAGENTA: Color = (255, 88, 196)

# Vectors up to this size are shown as bars, larger ones as cells.
MOST_BARS = 32
NAMES_WIDTH = 48  # pixels
# Steps between background and letter: smooth enough, and few colours.
_SHADES = 4


def ui_colors() -> np.ndarray:
    """Every colour uint8 [n, 3] that text and charts are painted in."""
    colors = {BACKGROUND, FIELD}
    for front, back in itertools.product((TEXT, DIM, GREEN, GOLD, MAGENTA), (BACKGROUND, FIELD)):
        colors |= {tuple(shade) for shade in _shades(front, back)}
    return np.array(sorted(colors | {BLUE, *map(tuple, heat_ramp())}), np.uint8)


def heat_ramp() -> np.ndarray:
    """Colours uint8 [16, 3] from nothing (the field's) over blue to nearly white."""
    stops = np.array([FIELD, (40, 70, 150), BLUE, (205, 232, 255)], np.float32)
    at = np.linspace(0, len(stops) - 1, 16)
    return np.stack([np.interp(at, range(len(stops)), stops[:, i]) for i in range(3)], -1).astype(
        np.uint8
    )


def heat(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] of any shape [...] as colours uint8 [..., 3]."""
    ramp = heat_ramp()
    return ramp[np.clip(np.round(values * (len(ramp) - 1)), 0, len(ramp) - 1).astype(int)]


def line_height(size: int) -> int:
    """Pixels from one line of text to the next."""
    return sum(_font(size).getmetrics())


def text_width(string: str, size: int) -> int:
    return _mask(string, size).shape[1]


def text(canvas: np.ndarray, x: int, y: int, string: str, size: int, color: Color = TEXT) -> None:
    """Write `string` with the upper left corner at (x, y); what does not fit is cut off."""
    _stamp(canvas[y:, x:], _mask(string, size), color)


def label(canvas: np.ndarray, string: str, size: int, color: Color = TEXT) -> None:
    """Write `string` at the left, with its capitals in the middle of the height."""
    mask = _mask(string, size)
    lines = np.flatnonzero(_mask("H", size).any(1))
    up = (lines[0] + lines[-1] + 1 - len(canvas)) // 2
    mask = mask[max(0, up) : max(0, up) + len(canvas)]
    _stamp(canvas[max(0, -up) :], mask, color)


def name_rows(clip: np.ndarray, names: Sequence[str], size: int = 11) -> np.ndarray:
    """Words left of the rows of equal height that a clip uint8 [T, H, W, C] consists of.

    The words take `NAMES_WIDTH` pixels; a gray clip stays gray.
    """
    _, height, _, channels = clip.shape
    column = np.empty((height, NAMES_WIDTH, 3), np.uint8)
    column[:] = BACKGROUND
    each = height // len(names)
    for i, name in enumerate(names):
        label(column[i * each : (i + 1) * each, 4:], name, size)
    column = column if channels == 3 else column.mean(-1, keepdims=True).astype(np.uint8)
    return np.concatenate([np.broadcast_to(column, (len(clip), *column.shape)), clip], 2)


def fitting(candidates: tuple[str, ...], size: int, width: int) -> str:
    """The first of `candidates` that is at most `width` pixels wide, else the last."""
    fits = (string for string in candidates if text_width(string, size) <= width)
    return next(fits, candidates[-1])


def zoomed(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`image` [h, w, ...] with every pixel made larger, none blurred, to fit into height x width.

    By a whole factor where it fits; an image that is larger loses rows and columns.
    """
    h, w = image.shape[:2]
    factor = min(height // h, width // w)
    if factor:
        return image.repeat(factor, 0).repeat(factor, 1)
    ratio = min(height / h, width / w)
    rows, columns = (max(1, int(n * ratio)) for n in (h, w))
    return image[np.arange(rows) * h // rows][:, np.arange(columns) * w // columns]


def rgb(image: np.ndarray) -> np.ndarray:
    """An image [H, W, C] as [H, W, 3]; of other than 1 or 3 channels the last one, the newest of a
    stack of frames."""
    return image if image.shape[-1] == 3 else np.repeat(image[..., -1:], 3, -1)


def square(values: np.ndarray) -> np.ndarray:
    """Vectors [..., D] as squares [..., side, side], filled up with zeros."""
    size = values.shape[-1]
    side = int(np.ceil(np.sqrt(size)))
    padding = np.zeros((*values.shape[:-1], side * side - size), values.dtype)
    return np.concatenate([values, padding], -1).reshape(*values.shape[:-1], side, side)


def vector(canvas: np.ndarray, share: np.ndarray) -> None:
    """Fill the canvas with numbers `share` [D] in [0, 1]: bars, or many as a square of cells."""
    canvas[:] = FIELD
    if len(share) > MOST_BARS:
        centered(canvas, zoomed(heat(square(share)), *canvas.shape[:2]))
        return
    lines = np.arange(canvas.shape[0]) * len(share) // canvas.shape[0]
    ends = np.clip(share[lines], 0.02, 1) * canvas.shape[1]
    canvas[np.arange(canvas.shape[1]) < ends[:, None]] = BLUE
    gaps(canvas, len(share))


def centered(canvas: np.ndarray, image: np.ndarray) -> None:
    """Put `image` [h, w, 3] into the middle of `canvas`, which is at least as large."""
    top, left = ((n - m) // 2 for n, m in zip(canvas.shape[:2], image.shape[:2], strict=True))
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image


def border(canvas: np.ndarray, thickness: int, color: Color) -> None:
    """A frame along the inner edge."""
    t = thickness
    canvas[:t] = canvas[-t:] = color
    canvas[:, :t] = canvas[:, -t:] = color


def gaps(canvas: np.ndarray, lines: int) -> None:
    """Lines of background between `lines` bars that share the height, where there is room."""
    if len(canvas) >= 4 * lines:
        canvas[np.arange(1, lines) * len(canvas) // lines] = BACKGROUND


def curve(canvas: np.ndarray, heights: np.ndarray, thickness: int, color: Color) -> None:
    """A line through `heights` (rows of the canvas, one for each of its first columns)."""
    heights = np.clip(heights, 0, len(canvas) - thickness).astype(int)
    before = np.concatenate([heights[:1], heights[:-1]])
    low, high = np.minimum(heights, before), np.maximum(heights, before) + thickness
    rows = np.arange(len(canvas))[:, None]
    canvas[:, : len(heights)][(rows >= low) & (rows < high)] = color


def _stamp(canvas: np.ndarray, mask: np.ndarray, color: Color) -> None:
    """Blend `color` into the upper left corner of a canvas of one colour."""
    mask = mask[: canvas.shape[0], : canvas.shape[1]]
    if mask.size:
        back = (int(canvas[0, 0, 0]), int(canvas[0, 0, 1]), int(canvas[0, 0, 2]))
        area = canvas[: mask.shape[0], : mask.shape[1]]
        area[mask > 0] = _shades(color, back)[mask[mask > 0]]


def _shades(front: Color, back: Color) -> np.ndarray:
    """Colours uint8 [_SHADES + 1, 3] from `back` to `front`."""
    share = np.arange(_SHADES + 1)[:, None] / _SHADES
    return np.round(np.array(back) * (1 - share) + np.array(front) * share).astype(np.uint8)


@functools.lru_cache(4096)
def _mask(string: str, size: int) -> np.ndarray:
    """How much of each pixel the letters cover: whole numbers [h, w] from 0 to _SHADES."""
    font = _font(size)
    string = string.replace(" ", "  ")  # this font's own are hardly seen at small sizes
    ascent, descent = font.getmetrics()
    width = max(1, int(np.ceil(font.getlength(string))))
    image = Image.new("L", (width, ascent + descent))
    ImageDraw.Draw(image).text((0, ascent), string, 255, font, anchor="ls")
    return np.round(np.asarray(image) / 255 * _SHADES).astype(np.uint8)


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow brings this font along; it is the same on every machine.
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font
