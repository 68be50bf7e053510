"""Plays with an agent, looks at its latent section by section, and writes the report."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dreamerv2.latent import SECTIONS, report
from dreamerv2.latent.collect import Recording, collect
from dreamerv2.latent.model import LatentModel
from dreamerv2.latent.sections import MAKERS, Study, UnavailableError, check
from dreamerv2.play.episodes import load_agent
from dreamerv2.run.restore import Saved

show = functools.partial(print, flush=True)


def load_model(saved: Saved, sections: Sequence[str]) -> LatentModel:
    """The agent; UnavailableError where a section that is asked for cannot be made of it."""
    model = LatentModel(load_agent(saved))
    for section in sections:
        check(section, model)
    return model


def write_report(
    saved: Saved,
    model: LatentModel,
    out: Path,
    sections: Sequence[str],
    episodes: int,
    steps: int,
    seed: int,
) -> None:
    """Plays, makes the sections (all, if none is named), and writes everything into `out`.

    Raises:
        UnavailableError: a section that was asked for by name cannot be made.
    """
    recording = collect(model, saved.env, episodes, steps, seed, show)
    study = Study(model, saved, steps, recording, out, seed, show)
    numbers = {}
    for section in sections or SECTIONS:
        start = time.monotonic()
        try:
            check(section, model)
            numbers[section] = MAKERS[section](study)
        except UnavailableError as error:
            if sections:
                raise
            numbers[section] = {"unavailable": str(error)}
            show(f"{section}: not available: {error}")
        else:
            show(f"{section}: done in {time.monotonic() - start:.0f} s")
    report.write(out, describe(saved, recording), numbers)
    show(f"Written: {out / 'report.md'}")


def describe(saved: Saved, recording: Recording) -> dict[str, Any]:
    """What was looked at, for the head of the report."""
    config = saved.config
    return {
        "task": config.task,
        "features": config.features,
        "variables": config.rssm.stoch,
        "classes": config.rssm.discrete,
        "deter": config.rssm.deter,
        "agent_steps": saved.agent_steps,
        "action_repeat": config.action_repeat,
        "env_frames": saved.env_frames,
        "episodes": len(recording.returns),
        "rows": len(recording.episode),
        "mean_return": sum(recording.returns) / len(recording.returns),
        "episodes_cut": recording.cut,
    }
