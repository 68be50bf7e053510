"""The sections of the report: each makes its pictures and its numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.device import usable_cores
from common.envs import is_remote
from common.log.video import save_gif
from dreamerv2.latent import (
    board,
    figures,
    fix,
    information,
    interpolate,
    probe,
    sweep,
    usage,
)
from dreamerv2.latent.collect import Recording
from dreamerv2.latent.model import LatentModel
from dreamerv2.run.restore import Saved

SWEPT_STATES = 16
# Those whose variables can be known, from the memory or from the game itself.
KNOWN_GAMES = (*(f"atari_{name}" for name in probe.RAM), "minatar_breakout")


class UnavailableError(ValueError):
    """A section that this run cannot have; says why."""


class Study(NamedTuple):
    """What every section works on."""

    model: LatentModel
    saved: Saved
    steps: int  # agent steps of all episodes together, at most
    recording: Recording
    out: Path  # where the pictures go
    seed: int
    show: Callable[[str], None]

    @property
    def counts(self) -> np.ndarray:
        """How often each cell was on, int [K, C]."""
        return usage.cell_counts(self.recording.latents.classes, self.model.classes)


def usage_section(study: Study) -> dict:
    """Which cells are ever on."""
    recording, size = study.recording, study.model.classes
    posterior = usage.measure(recording.latents.classes, size)
    prior = usage.measure(recording.prior_classes, size)
    figures.usage_heatmap(study.out / "usage.png", posterior, prior)
    figures.usage_variables(study.out / "usage_variables.png", posterior, prior)
    return usage.summarize(posterior, prior, recording.most_likely)


def sweep_section(study: Study) -> dict:
    """What single variables do."""
    model, latents = study.model, study.recording.latents
    rows = np.linspace(0, len(latents.classes) - 1, SWEPT_STATES + 2).astype(int)[1:-1]
    counts = study.counts
    states = latents.take(rows)
    result = sweep.sweep(model.decode, model.respond, states, counts, model.discrete_actions)
    figures.sweep_grid(study.out / "sweep.png", result, counts)
    figures.sweep_maps(study.out / "sweep_maps.png", result)
    figures.sweep_effects(study.out / "sweep_effects.png", result, counts)
    # Each state gets halves of the one half the list further: another phase or another game.
    others = latents.take(np.roll(rows, SWEPT_STATES // 2))
    halves = sweep.halves_of_state(model.decode, states, others)
    numbers = sweep.summarize(result, counts) | {"image_change_by_half": halves}
    if _has_rules(study):
        numbers["board"] = sweep.summarize_board(result, counts)
    return numbers


def interpolate_section(study: Study) -> dict:
    """What lies between two latents."""
    recording, out = study.recording, study.out
    assert recording.images is not None  # `check` has seen to it
    if not len(interpolate.walk_starts(recording.latents.classes, recording.episode)):
        raise UnavailableError("interpolate: no episode is long enough for a walk; raise --steps")
    result = interpolate.interpolate(
        study.model.decode,
        recording.latents,
        recording.prior_log_probs,
        recording.images,
        recording.episode,
        seed=study.seed,
    )
    numbers = interpolate.summarize(result)
    for i, example in enumerate(result.examples):
        figures.interpolate_strip(out / f"interpolate_{i}.png", example)
    save_gif(out / "interpolate.gif", figures.interpolate_frames(result.examples[0]), fps=8)
    figures.interpolate_distance(out / "interpolate_distance.png", result, numbers)
    figures.interpolate_plausibility(out / "interpolate_plausibility.png", result)
    if _has_rules(study):
        numbers["board"] = {name: board.summarize(x) for name, x in result.decoded.items()}
    return numbers | {"examples": len(result.examples)}


def _has_rules(study: Study) -> bool:
    """Whether what is decoded can be held against the game's rules."""
    return study.model.is_board and study.saved.config.task == "minatar_breakout"


def _game_variables(study: Study) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Variables of the game, `[N]` each, and the rows in which all of them mean something."""
    recording, config = study.recording, study.saved.config
    if recording.variables:
        return recording.variables, np.arange(len(recording.episode))
    assert recording.ram is not None  # `check` has seen to it
    variables, valid = probe.game_variables(
        recording.ram,
        recording.episode,
        config.task.removeprefix("atari_"),
        config.action_repeat,
    )
    return variables, np.flatnonzero(valid)


def probe_section(study: Study) -> dict:
    """What a small network can read out of the state."""
    recording = study.recording
    variables, rows = _game_variables(study)
    rows = probe.thinned(rows)
    split = probe.split_by_episode(recording.episode[rows], study.seed)
    if split is None:
        raise UnavailableError(
            f"probe: {len(rows)} rows of {len(np.unique(recording.episode[rows]))} episodes have a "
            f"ball in play, expected {probe.MIN_ROWS} of {probe.MIN_EPISODES}; play more with "
            "--episodes and --steps"
        )
    targets = np.stack([values[rows] for values in variables.values()], -1)
    errors = probe.probe(_probe_inputs(study, rows), targets, split, study.seed, study.show)
    unit = "pixels" if study.saved.config.task.startswith("atari_") else "cells"
    figures.probe_errors(study.out / "probe.png", errors, list(variables), unit)
    split_rows = split._asdict()
    return {
        "variables": list(variables),
        "errors": {
            name: {
                kind: dict(zip(variables, values.tolist(), strict=True))
                for kind, values in kinds.items()
            }
            for name, kinds in errors.items()
        },
        "rows": {name: int(chosen.sum()) for name, chosen in split_rows.items()},
        "episodes": {
            name: len(np.unique(recording.episode[rows][chosen]))
            for name, chosen in split_rows.items()
        },
    }


def _probe_inputs(study: Study, rows: np.ndarray) -> dict[str, np.ndarray]:
    latents = study.recording.latents.take(rows)
    discrete = np.eye(study.model.classes, dtype=np.float32)[latents.classes].reshape(len(rows), -1)
    inputs = {
        "discrete": discrete,
        "deter": latents.deter,
        "full": np.concatenate([discrete, latents.deter], -1),
    }
    if study.recording.images is not None:
        inputs["pixels"] = study.recording.images[rows]
    return inputs


def information_section(study: Study) -> dict:
    """What each variable is about."""
    variables, rows = _game_variables(study)
    if len(rows) < probe.MIN_ROWS:
        raise UnavailableError(
            f"information: {len(rows)} rows have a ball in play, expected {probe.MIN_ROWS}; play "
            "more with --episodes and --steps"
        )
    game = {name: values[rows] for name, values in variables.items()}
    found = information.measure(study.recording.latents.classes[rows], game, study.seed)
    figures.information(study.out / "information.png", found)
    return {**information.summarize(found), "rows": len(rows)}


def fix_section(study: Study) -> dict:
    """What whole games lose when one variable never changes."""
    games = len(study.recording.returns)
    steps = max(1, study.steps // games)
    found = fix.measure(
        *(study.model, study.saved.env, study.counts, games, steps, study.seed, study.show),
        at_once=usable_cores() if is_remote(study.saved.config.task) else fix.AT_ONCE,
    )
    numbers = fix.summarize(found, study.seed)
    figures.fixed_returns(study.out / "fix.png", numbers)
    return numbers


def check(section: str, model: LatentModel) -> None:
    """Whether a section can be made at all, before anything is played.

    Raises:
        UnavailableError: it cannot.
    """
    config = model.agent.config
    if section in ("sweep", "interpolate") and model.image_key is None:
        pattern = config.decoder.cnn_keys
        raise UnavailableError(
            f"{section} needs an agent that decodes images or MinAtar's board; decoder.cnn_keys "
            f"{pattern!r} matches none"
        )
    if section in ("probe", "information") and config.task not in KNOWN_GAMES:
        raise UnavailableError(
            f"{section} needs the game's variables, which are not known of {config.task}, only of "
            f"{', '.join(KNOWN_GAMES)}"
        )


MAKERS: dict[str, Callable[[Study], dict]] = {
    "usage": usage_section,
    "sweep": sweep_section,
    "interpolate": interpolate_section,
    "probe": probe_section,
    "information": information_section,
    "fix": fix_section,
}
