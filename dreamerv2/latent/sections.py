"""The sections of the report: each makes its pictures and its numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.log.video import save_gif
from dreamerv2.latent import figures, interpolate, probe, sweep, usage
from dreamerv2.latent.collect import Recording
from dreamerv2.latent.model import LatentModel
from dreamerv2.run.restore import Saved

SWEPT_STATES = 16


class UnavailableError(ValueError):
    """A section that this run cannot have; says why."""


class Study(NamedTuple):
    """What every section works on."""

    model: LatentModel
    saved: Saved
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
    result = sweep.sweep(model.decode, model.respond, latents.take(rows), counts)
    figures.sweep_grid(study.out / "sweep.png", result, counts)
    figures.sweep_maps(study.out / "sweep_maps.png", result)
    figures.sweep_effects(study.out / "sweep_effects.png", result, counts)
    # Each state gets halves of the one half the list further: another phase or another game.
    others = latents.take(np.roll(rows, SWEPT_STATES // 2))
    halves = sweep.halves_of_state(model.decode, latents.take(rows), others)
    return sweep.summarize(result, counts) | {"image_change_by_half": halves}


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
    return numbers | {"examples": len(result.examples)}


def probe_section(study: Study) -> dict:
    """What a small network can read out of the state."""
    recording, config = study.recording, study.model.agent.config
    assert recording.ram is not None  # `check` has seen to it
    variables, valid = probe.game_variables(
        recording.ram,
        recording.episode,
        config.task.removeprefix("atari_"),
        config.action_repeat,
    )
    rows = probe.thinned(np.flatnonzero(valid))
    split = probe.split_by_episode(recording.episode[rows], study.seed)
    if split is None:
        raise UnavailableError(
            f"probe: {len(rows)} rows of {len(np.unique(recording.episode[rows]))} episodes have a "
            f"ball in play, expected {probe.MIN_ROWS} of {probe.MIN_EPISODES}; play more with "
            "--episodes and --steps"
        )
    targets = np.stack([values[rows] for values in variables.values()], -1)
    errors = probe.probe(_probe_inputs(study, rows), targets, split, study.seed, study.show)
    figures.probe_errors(study.out / "probe.png", errors, list(variables))
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


def check(section: str, model: LatentModel) -> None:
    """Whether a section can be made at all, before anything is played.

    Raises:
        UnavailableError: it cannot.
    """
    config = model.agent.config
    if section in ("sweep", "interpolate") and model.image_key is None:
        pattern = config.decoder.cnn_keys
        raise UnavailableError(
            f"{section} needs an agent that decodes images; decoder.cnn_keys {pattern!r} matches "
            "none"
        )
    if section == "probe" and "ram" not in model.agent.obs_space:
        raise UnavailableError(
            f"probe reads the game's variables from RAM, which {config.task} does not have"
        )
    game = config.task.removeprefix("atari_")
    if section == "probe" and game not in probe.RAM:
        known = ", ".join(f"atari_{name}" for name in probe.RAM)
        raise UnavailableError(f"probe: the RAM of {config.task} is not mapped, only {known}")


MAKERS: dict[str, Callable[[Study], dict]] = {
    "usage": usage_section,
    "sweep": sweep_section,
    "interpolate": interpolate_section,
    "probe": probe_section,
}
