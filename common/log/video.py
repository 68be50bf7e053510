"""Write clips as GIF or MP4, in this process; files appear whole or not at all.

A GIF is put together here, with Pillow for its compression; MP4 goes through imageio's pyav plugin.

Shapes: `T` frames, `H x W` pixels, `C` channels (1 is gray, 3 is RGB).
"""

import contextlib
import io
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import imageio.v3 as iio
import numpy as np
from PIL import Image

from common.files import write_atomically

FORMATS = (".gif", ".mp4")
# A GIF's palette has 256 entries; one stays free for "unchanged since the last frame".
MAX_COLORS = 255
SAMPLED_PIXELS = 60_000


def save_gif(path: str | Path, frames: np.ndarray, fps: float = 20) -> Path:
    """Write `encode_gif(frames, fps)` to `path`, whose folder is made when needed."""
    return _write(path, encode_gif(frames, fps))


def encode_gif(frames: np.ndarray, fps: float = 20) -> bytes:
    """An endlessly repeating GIF of `frames` [T, H, W, C] (uint8, or float in [0, 1]).

    All frames share one palette: the exact colours where there are few enough of them, as on most
    Atari screens, else a median cut.
    """
    frames = to_rgb(frames)
    file = io.BytesIO()
    with GIFWriter(file, choose_palette(frames), fps) as writer:
        for frame in frames:
            writer.add(frame)
    return file.getvalue()


def showable(frames: np.ndarray) -> np.ndarray:
    """Images [..., C] as they can be shown: of other than 1 or 3 channels the last one, the newest
    of a stack of frames."""
    return frames if frames.shape[-1] in (1, 3) else frames[..., -1:]


@contextlib.contextmanager
def open_clip(
    path: str | Path, fps: float, palette: np.ndarray | None, comment: str = ""
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that takes frames uint8 [H, W, 3] one by one, for clips larger than memory.

    path: ends in one of `FORMATS`. palette: uint8 [n, 3], what a GIF uses; others need none.
      comment: kept inside the file. The file appears when the block ends well. MP4 frames with an
      odd height or width are extended by one repeated line, as the pixel format asks for.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"clip {path}: expected a name that ends in {' or '.join(FORMATS)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        assert palette is not None
        with write_atomically(path) as file, GIFWriter(file, palette, fps, comment) as writer:
            yield writer.add
        return
    # FFmpeg wants a name, not an open file.
    target = Path(os.path.realpath(path))  # a link stays one, and what is behind it is replaced
    with tempfile.TemporaryDirectory(prefix=".clip", dir=target.parent) as directory:
        temporary = Path(directory) / path.name
        with iio.imopen(temporary, "w", plugin="pyav") as video:
            video.init_video_stream("libx264", fps=fps, pixel_format="yuv420p")
            video.container_metadata["comment"] = comment
            yield lambda frame: video.write_frame(_even(frame))
        temporary.replace(target)


class GIFWriter:
    """Writes an endlessly repeating GIF to `file`, frame by frame, keeping only the last one.

    Why not a library's: for a film of 808 pictures of 608x543 this makes 1.2 MB and the process
    needs 110 MiB at most. Pillow's own writer makes 4.3 MB and needs 305 MiB with the same palette;
    imageio's makes 1.3 times this size and needs 922 MiB for the first 400 pictures.

    Of each frame the rectangle that changed is stored, with unchanged pixels transparent in it, and
    equal frames in a row as one that is shown for longer. There is no dithering: it shimmers in
    motion. A colour that is not in `palette` (uint8 [n, 3], n at most `MAX_COLORS`) becomes the
    nearest one that is.
    """

    def __init__(self, file: IO[bytes], palette: np.ndarray, fps: float, comment: str = ""):
        if not 0 < len(palette) <= MAX_COLORS:
            raise ValueError(f"a palette has 1 to {MAX_COLORS} colours, got {len(palette)}")
        self._file, self._palette, self._fps = file, palette, fps
        self._comment = comment.encode("ascii", "replace")
        self._table = np.full(1 << 24, -1, np.int16)
        self._table[_packed(palette)] = np.arange(len(palette))
        self._shown: np.ndarray | None = None
        self._frames = 0
        # Hundredths of a second: where the frame that is held back starts, and where it ends.
        self._start = self._end = 0
        self._held = b""

    def __enter__(self) -> "GIFWriter":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self._flush()
            self._file.write(b";")

    def add(self, frame: np.ndarray) -> None:
        """Append a frame uint8 [H, W, 3]."""
        indices = self._indexed(frame)
        if self._shown is None:
            self._file.write(self._header(*indices.shape))
            self._held = _image_block(indices, 0, 0)
        elif (changed := indices != self._shown).any():
            self._flush()
            self._held = _changed_block(indices, changed, len(self._palette))
        self._shown = indices
        self._frames += 1
        # Multiples of the format's 10 ms that keep to the speed on average. Browsers slow a frame
        # of less than 20 ms down to 100 ms.
        self._end = max(round(100 * self._frames / self._fps), self._end + 2)

    def _flush(self) -> None:
        duration = min(self._end - self._start, 0xFFFF)
        keep, transparent = 1 << 2, 1
        control = struct.pack("<BHB", keep | transparent, duration, len(self._palette))
        self._file.write(b"!\xf9\x04" + control + b"\0" + self._held)
        self._start = self._end

    def _header(self, height: int, width: int) -> bytes:
        colors = np.zeros((256, 3), np.uint8)
        colors[: len(self._palette)] = self._palette
        header = b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0) + colors.tobytes()
        header += b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"  # repeat for ever
        if self._comment:
            parts = [self._comment[i : i + 255] for i in range(0, len(self._comment), 255)]
            header += b"!\xfe" + b"".join(bytes([len(p)]) + p for p in parts) + b"\0"
        return header

    def _indexed(self, frame: np.ndarray) -> np.ndarray:
        """Palette indices uint8 [H, W]."""
        packed = _packed(frame)
        indices = self._table[packed]
        if indices.min() < 0:
            new = np.unique(packed[indices < 0])
            self._table[new] = _nearest(_unpacked(new), self._palette)
            indices = self._table[packed]
        return indices.astype(np.uint8)


def _changed_block(indices: np.ndarray, changed: np.ndarray, transparent: int) -> bytes:
    """The smallest rectangle with all of `changed` [H, W] in it."""
    rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
    area = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    region = np.where(changed[area], indices[area], np.uint8(transparent))
    return _image_block(region, rows[0], columns[0])


def _image_block(region: np.ndarray, top: int, left: int) -> bytes:
    height, width = region.shape
    data = Image.fromarray(region).tobytes("gif", "L")
    return b"," + struct.pack("<HHHHBB", left, top, width, height, 0, 8) + data + b"\0"


def choose_palette(pixels: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
    """At most `MAX_COLORS` distinct colours uint8 [n, 3] for `pixels` uint8 [..., 3].

    They are exact where they are few enough. Otherwise those of `keep` [..., 3] are exact if that
    leaves a quarter for the rest, which is chosen by median cut.
    """
    keep = np.zeros((0, 3), np.uint8) if keep is None else distinct(keep)
    everything = distinct(np.concatenate([keep, distinct(pixels)]))
    if len(everything) <= MAX_COLORS:
        return everything
    if len(keep) > MAX_COLORS * 3 // 4:
        return _median_cut(np.concatenate([pixels.reshape(-1, 3), keep]), MAX_COLORS)
    rest = _median_cut(pixels.reshape(-1, 3), MAX_COLORS - len(keep))
    return distinct(np.concatenate([keep, rest]))


def distinct(pixels: np.ndarray) -> np.ndarray:
    """The distinct colours [n, 3] of `pixels` uint8 [..., 3], much faster than `np.unique`."""
    seen = np.zeros(1 << 24, bool)
    pixels = pixels.reshape(-1, 3)
    for chunk in np.array_split(pixels, len(pixels) // (1 << 20) + 1):
        seen[_packed(chunk)] = True
    return _unpacked(np.flatnonzero(seen))


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """`frames` as uint8; floats are taken as [0, 1], clipped, and not-a-number is black."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8:
        return frames
    if not np.issubdtype(frames.dtype, np.floating):
        raise ValueError(f"Frames must be uint8 or float, not {frames.dtype}.")
    frames = np.nan_to_num(frames.astype(np.float32), posinf=1.0, neginf=0.0)
    return (frames.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def to_rgb(frames: np.ndarray) -> np.ndarray:
    """`frames` [T, H, W, 1 or 3] as uint8 [T, H, W, 3]; ValueError for any other shape."""
    frames = to_uint8(frames)
    if frames.ndim != 4 or 0 in frames.shape or frames.shape[-1] not in (1, 3):
        raise ValueError(f"A clip has the shape [T, H, W, 1 or 3], not {list(frames.shape)}.")
    return np.broadcast_to(frames, (*frames.shape[:3], 3))


def _write(path: str | Path, data: bytes) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        file.write(data)
    return path


def _even(frame: np.ndarray) -> np.ndarray:
    """`frame` [H, W, 3] with its last row and column repeated where their number is odd."""
    height, width, _ = frame.shape
    if height % 2 or width % 2:
        frame = np.pad(frame, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    return frame


def _packed(pixels: np.ndarray) -> np.ndarray:
    """Colours [..., 3] as numbers of 24 bits."""
    r, g, b = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    return r << 16 | g << 8 | b


def _unpacked(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1).astype(np.uint8)


def _median_cut(pixels: np.ndarray, colors: int) -> np.ndarray:
    """Up to `colors` distinct ones uint8 [n, 3] that stand for a sample of `pixels` [N, 3]."""
    pixels = pixels[:: max(1, len(pixels) // SAMPLED_PIXELS)]
    image = Image.fromarray(np.ascontiguousarray(pixels)[None])
    image = image.quantize(colors, Image.Quantize.MEDIANCUT, kmeans=1)
    return np.unique(np.array(image.getpalette(), np.uint8).reshape(-1, 3)[:colors], axis=0)


def _nearest(colors: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Index of the palette entry with the smallest squared distance, for each of `colors`."""
    palette = palette.astype(np.float32)
    offsets = (palette**2).sum(-1)
    chunks = np.array_split(colors.astype(np.float32), len(colors) // 65536 + 1)
    return np.concatenate([(offsets - 2 * chunk @ palette.T).argmin(-1) for chunk in chunks])
