"""Metrics and clips for Weights & Biases (https://docs.wandb.ai), with the extra `wandb`.

WANDB_MODE=offline writes to LOGDIR/wandb alone; `wandb sync` sends that later.
"""

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.files import write_atomically
from common.log import video
from common.log.logger import Clips, Scalars, warn_of_gif

STEP = "env_frames"


class WandbOutput:
    """One run of a project. A logdir keeps the run's id, so that a resumed run goes on there.

    group: the section of the page that a metric belongs to, by its name.

    Raises ValueError where the package is missing or the run cannot be started.
    """

    def __init__(
        self,
        project: str,
        logdir: Path,
        group: Callable[[str], str],
        config: Mapping[str, Any],
        fps: int = 20,
    ):
        try:
            import wandb
        except ImportError as error:
            raise ValueError(
                f"wandb {project!r}: the package is missing; in a checkout, pip install -e "
                "'.[wandb]'"
            ) from error
        self._wandb, self._group, self._fps = wandb, group, fps
        logdir.mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(
                project=project,
                dir=str(logdir),
                name=logdir.name,
                id=_run_id(logdir / "wandb.id"),
                resume="allow",
                config=dict(config),
            )
        except wandb.errors.Error as error:
            raise ValueError(f"wandb {project!r}: {' '.join(str(error).split())}") from error
        # A resumed run goes back a little; wandb's own step may only grow.
        self._run.define_metric("*", step_metric=STEP)

    def write(self, step: int, scalars: Scalars, clips: Clips) -> None:
        row: dict[str, Any] = {f"{self._group(name)}/{name}": v for name, v in scalars.items()}
        for name, frames in clips.items():
            path = Path(self._run.dir) / f"{step:012d}-{name}.gif"
            try:
                video.save_gif(path, frames, self._fps)
            except Exception as error:
                warn_of_gif(path.name, error)
                continue
            row[f"clips/{name}"] = self._wandb.Video(str(path), format="gif")
        self._run.log({STEP: step, **row})

    def close(self) -> None:
        self._run.finish()


def _run_id(path: Path) -> str:
    """The id in a file; a new one is written there."""
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    number = uuid.uuid4().hex[:8]
    with write_atomically(path) as file:
        file.write(number.encode())
    return number
