"""TensorBoard's event files, by its own writer: that needs no TensorFlow and no device."""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.text import summary_v2 as text_summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from common.log import video
from common.log.logger import Clips, Scalars, warn_of_gif


class TensorBoardOutput:
    """Event files in DIR: scalars, and clips as animated GIFs among the images.

    group: the section of the page that a metric belongs to, by its name.
    texts: shown under Text, by title. hparams: numbers and strings under HParams, by which runs
      of one parent folder can be compared. Both are written once.
    """

    def __init__(
        self,
        directory: str | Path,
        fps: float = 20,
        group: Callable[[str], str] = lambda name: "scalars",
        texts: Mapping[str, str] | None = None,
        hparams: Mapping[str, Any] | None = None,
    ):
        self._writer = EventFileWriter(str(directory))
        self._fps, self._group = fps, group
        try:
            for title, text in (texts or {}).items():
                self._add(0, text_summary.text_pb(title, text))
            if hparams:
                plain = {k: v if isinstance(v, int | float) else str(v) for k, v in hparams.items()}
                self._add(0, hparams_summary.hparams_pb(plain))
        except BaseException:
            with contextlib.suppress(Exception):
                self.close()  # it has a thread
            raise

    def write(self, step: int, scalars: Scalars, clips: Clips) -> None:
        values = [
            summary_pb2.Summary.Value(tag=f"{self._group(name)}/{name}", simple_value=value)
            for name, value in scalars.items()
        ]
        for name, frames in clips.items():
            try:
                image = self._image(frames)
            except Exception as error:
                warn_of_gif(name, error)
                continue
            values.append(summary_pb2.Summary.Value(tag=name, image=image))
        self._add(step, summary_pb2.Summary(value=values))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, summary: summary_pb2.Summary) -> None:
        event = event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
        self._writer.add_event(event)

    def _image(self, frames: np.ndarray) -> summary_pb2.Summary.Image:
        return summary_pb2.Summary.Image(
            height=frames.shape[1],
            width=frames.shape[2],
            colorspace=3,
            encoded_image_string=video.encode_gif(frames, self._fps),
        )
