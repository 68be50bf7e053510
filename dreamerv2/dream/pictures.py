"""Observations and what the decoder makes of them as pictures, and clips of what was seen.

Pictures are uint8 [H, W, 3], or [H, W, 1] for gray ones.
"""

import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from common.envs.minatar import board_colours
from common.log import paint, video

SIDE = 64  # pixels of the picture of a vector
SCREEN = 256  # pixels, the longest side of a game's screen as it is sent
CLIP_HEIGHT = 256  # pixels of a picture in a clip
_FONT = 13


class Painter:
    """Turns one kind of observation into pictures.

    board: rows, columns and channels of a vector that is MinAtar's board, else None. limits: the
      lowest and the highest value [D] of other vectors, which their drawing is scaled to.
    """

    def __init__(
        self,
        board: tuple[int, int, int] | None = None,
        limits: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self._board = board
        if limits:
            self._low, high = limits
            # A number that never changes would fill its bar with noise of the model.
            span = high - self._low
            self._span = np.maximum(span, max(1e-6, 0.1 * float(span.max())))

    def observed(self, value: np.ndarray) -> np.ndarray:
        """The picture of an observation as the environment gives it."""
        if value.ndim == 3:
            return value if value.shape[-1] in (1, 3) else value[..., -1:]
        return self._vector(_as_seen(value))

    def decoded(self, seen: np.ndarray) -> np.ndarray:
        """The picture of what the decoder expects: an image around 0, or a vector."""
        if seen.ndim == 3:
            return self.observed((np.clip(seen + 0.5, 0, 1) * 255 + 0.5).astype(np.uint8))
        return self._vector(seen)

    def scaled(self, seen: np.ndarray) -> np.ndarray:
        """What the decoder expects, in units in which a quarter is a difference that is seen.

        That is a quarter of a number's range; on a board, where something is or is not, a half.
        """
        if self._board:
            return seen / 2
        return seen if seen.ndim == 3 else (seen - self._low) / self._span

    def _vector(self, values: np.ndarray) -> np.ndarray:
        if self._board:
            return board_colours(values.reshape(self._board))
        canvas = np.empty((SIDE, SIDE, 3), np.uint8)
        paint.vector(canvas, (values - self._low) / self._span)
        return canvas


def vector_limits(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value [D] of observed vectors [T, D]; many numbers share one."""
    rows = _as_seen(rows)
    axis = 0 if rows.shape[1] <= paint.MOST_BARS else None
    low, high = (np.broadcast_to(f(rows, axis), rows.shape[1:]) for f in (np.min, np.max))
    return low, high


def _as_seen(vector: np.ndarray) -> np.ndarray:
    """Vectors as the model is given them."""
    return vector / np.float32(255) - 0.5 if vector.dtype == np.uint8 else vector


class Packed(NamedTuple):
    """A picture in little memory: some kilobytes for an Atari game's screen."""

    data: bytes
    shape: tuple[int, ...]

    def unpacked(self) -> np.ndarray:
        return np.frombuffer(zlib.decompress(self.data), np.uint8).reshape(self.shape)


def pack(picture: np.ndarray) -> Packed:
    return Packed(zlib.compress(np.ascontiguousarray(picture).tobytes(), 1), picture.shape)


def shrunk(screen: np.ndarray) -> np.ndarray:
    """A game's screen [H, W, 3], smaller by a whole factor where a side is above `SCREEN`."""
    factor = -(-max(screen.shape[:2]) // SCREEN)
    return np.asarray(Image.fromarray(screen).reduce(factor)) if factor > 1 else screen


def sheet(pictures: Sequence[np.ndarray]) -> bytes:
    """Pictures of one size side by side, as PNG."""
    image = Image.fromarray(np.concatenate([paint.rgb(p) for p in pictures], 1))
    with tempfile.SpooledTemporaryFile() as file:
        image.save(file, "png")
        file.seek(0)
        return file.read()


def clip_frames(moments: Sequence[tuple[Sequence[np.ndarray], str]]) -> list[np.ndarray]:
    """Frames [H, W, 3] of one size: each moment's pictures side by side above a line of text."""
    rows = [_side_by_side([_enlarged(paint.rgb(p)) for p in shown]) for shown, _ in moments]
    width = max(row.shape[1] for row in rows)
    frames = []
    for row, (_, caption) in zip(rows, moments, strict=True):
        frame = np.empty((CLIP_HEIGHT + paint.line_height(_FONT) + 4, width, 3), np.uint8)
        frame[:] = paint.BACKGROUND
        frame[:CLIP_HEIGHT, : row.shape[1]] = row
        paint.text(frame, 4, CLIP_HEIGHT + 2, caption, _FONT)
        frames.append(frame)
    return frames


def _side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((CLIP_HEIGHT, 8, 3), paint.BACKGROUND, np.uint8)
    return np.concatenate([part for p in pictures for part in (p, gap)][:-1], 1)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    """To `CLIP_HEIGHT`, every pixel made larger, none blurred."""
    height, width = picture.shape[:2]
    columns = round(width * CLIP_HEIGHT / height)
    rows = np.arange(CLIP_HEIGHT) * height // CLIP_HEIGHT
    return picture[rows][:, np.arange(columns) * width // columns]


def encode_clip(frames: Sequence[np.ndarray], kind: str, fps: float, comment: str) -> bytes:
    """Frames [H, W, 3] of one size as a `gif` or `mp4`."""
    with tempfile.TemporaryDirectory(prefix="dream") as directory:
        path = Path(directory) / f"dream.{kind}"
        gif = kind == "gif"
        palette = video.choose_palette(np.stack(frames), paint.ui_colors()) if gif else None
        with video.open_clip(path, fps, palette, comment) as add:
            for frame in frames:
                add(frame)
        return path.read_bytes()
