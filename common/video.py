"""Write clips as GIF or MP4 through imageio, in this process; files appear whole or not at all.

Shapes: `T` frames, `H x W` pixels, `C` channels (1 is gray, 3 is RGB).
"""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image

from common.checkpoint import write_atomically

# Pillow's work per frame grows with the cube of the palette's size: 4 ms at 128 colours, 11 ms at
# 192, 26 ms at 255. One index must stay free for "unchanged since the last frame".
MAX_COLORS = 192
SAMPLED_PIXELS = 200_000


def save_gif(path: str | Path, frames: np.ndarray, fps: float = 20) -> Path:
    """Write `encode_gif(frames, fps)` to `path`, whose folder is made when needed."""
    return _write(path, encode_gif(frames, fps))


def encode_gif(frames: np.ndarray, fps: float = 20) -> bytes:
    """An endlessly repeating GIF of `frames` [T, H, W, C] (uint8, or float in [0, 1]).

    All frames share one palette: the exact colours where there are few enough of them, as on most
    Atari screens, else a median cut, without dithering (which shimmers in motion). Pillow stores
    only the changed region of a frame, and equal frames in a row as one that is shown for longer.
    """
    indices, palette = _indexed(to_rgb(frames))
    return iio.imwrite(
        "<bytes>",
        indices,
        extension=".gif",
        plugin="pillow",
        mode="P",
        is_batch=True,
        palette=palette.tobytes(),
        duration=_durations(len(indices), fps),
        loop=0,
        optimize=True,
    )


def save_mp4(path: str | Path, frames: np.ndarray, fps: float = 20) -> Path:
    """Write `frames` [T, H, W, C] as H.264 video that every browser plays.

    Odd heights and widths are extended by one repeated line, as the pixel format asks for.
    """
    frames = to_rgb(frames)
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    data = iio.imwrite(
        "<bytes>",
        np.pad(frames, odd, mode="edge"),
        extension=".mp4",
        plugin="pyav",
        codec="libx264",
        fps=fps,
        out_pixel_format="yuv420p",
    )
    return _write(path, data)


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


def _durations(count: int, fps: float) -> list[int] | int:
    """Milliseconds per frame: multiples of the format's 10 ms that keep to `fps` on average."""
    ends = 10 * np.round(100 * np.arange(count + 1) / fps)
    # Browsers slow a frame of less than 20 ms down to 100 ms.
    durations = np.maximum(np.diff(ends), 20).astype(int).tolist()
    return durations if count > 1 else durations[0]


def _indexed(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RGB `frames` as palette indices uint8 [T, H, W] and the palette uint8 [n, 3]."""
    seen = np.zeros(1 << 24, bool)
    for frame in frames:
        seen[_packed(frame)] = True
    packed = np.flatnonzero(seen)
    colors = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], -1).astype(np.uint8)
    table = np.zeros(1 << 24, np.uint8)
    if len(colors) <= MAX_COLORS:
        palette, table[packed] = colors, np.arange(len(colors))
    else:
        palette = _median_cut(frames)
        table[packed] = _nearest(colors, palette)
    return np.stack([table[_packed(frame)] for frame in frames]), palette


def _packed(frame: np.ndarray) -> np.ndarray:
    r, g, b = np.moveaxis(frame.astype(np.uint32), -1, 0)
    return r << 16 | g << 8 | b


def _median_cut(frames: np.ndarray) -> np.ndarray:
    """Up to MAX_COLORS distinct colours uint8 [n, 3] that stand for a sample of the pixels."""
    pixels = frames.reshape(-1, 3)
    pixels = pixels[:: max(1, len(pixels) // SAMPLED_PIXELS)]
    image = Image.fromarray(np.ascontiguousarray(pixels)[None])
    image = image.quantize(MAX_COLORS, Image.Quantize.MEDIANCUT, kmeans=1)
    return np.unique(np.array(image.getpalette(), np.uint8).reshape(-1, 3), axis=0)


def _nearest(colors: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Index of the palette entry with the smallest squared distance, for each of `colors`."""
    palette = palette.astype(np.float32)
    offsets = (palette**2).sum(-1)
    chunks = np.array_split(colors.astype(np.float32), len(colors) // 65536 + 1)
    return np.concatenate([(offsets - 2 * chunk @ palette.T).argmin(-1) for chunk in chunks])
