"""One latent variable at a time through all its classes: what changes, and how much."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dreamerv2.latent.board import KINDS, flipped
from dreamerv2.latent.model import Latents, Response

# A change of a pixel by a tenth of the range between black and white can be seen.
VISIBLE = 25.5  # gray levels

Decode = Callable[[Latents], np.ndarray]


class Sweep(NamedTuple):
    """Effects of putting variable k of state s to class c and nothing else; 0 where it had c."""

    current: np.ndarray  # int32 [S, K], the classes that the states had
    pixel: np.ndarray  # [S, K, C], mean absolute change of the image, gray levels
    largest: np.ndarray  # [S, K, C], largest absolute change of a pixel, gray levels
    value: np.ndarray  # [S, K, C], absolute change of the critic's value
    reward: np.ndarray  # [S, K, C], absolute change of the predicted reward
    # [S, K, C], share of probability that moves to other actions, 0 to 1; of continuous actions how
    # far the most likely one moves, mean of its numbers, 0 to 2
    policy: np.ndarray
    maps: np.ndarray  # [K, H, W], mean absolute change per pixel, gray levels
    tiles: np.ndarray  # [K, C, H, W, channels], the images of state 0
    flipped: np.ndarray  # int [S, K, C, channels], pixels that cross the middle gray
    discrete: bool  # whether actions are chosen from a list, with a probability each


def sweep(
    decode: Decode,
    respond: Callable[[Latents], Response],
    states: Latents,
    counts: np.ndarray,
    discrete: bool = True,
) -> Sweep:
    """Sweeps every variable of `states` (S of them) through its classes.

    counts: `[K, C]`, how often each cell was used; `maps` averages over classes in use. discrete:
    what the policy of a response is: probabilities, or else numbers in [-1, 1].
    """
    size = counts.shape[1]
    images, response = decode(states), respond(states)
    changes: dict[str, list] = {
        name: [] for name in ("pixel", "largest", "value", "reward", "policy")
    }
    maps, tiles, flips = [], [], []
    for variable in range(counts.shape[0]):
        swept = sweep_variable(states, variable, size)
        swept_images = decode(swept).reshape(len(images), size, *images.shape[1:])
        difference = 255 * np.abs(swept_images - images[:, None])
        changes["pixel"].append(difference.mean((2, 3, 4)))
        changes["largest"].append(difference.max((2, 3, 4)))
        for name, change in _response_changes(respond(swept), response, size, discrete).items():
            changes[name].append(change)
        weight = others_in_use(states.classes, counts)[:, variable]
        total = np.tensordot(weight, difference.mean(-1), 2)
        maps.append(total / max(1, weight.sum()))
        tiles.append(swept_images[0])
        flips.append(flipped(swept_images, images[:, None]))
    stacked = {name: np.stack(values, 1) for name, values in changes.items()}
    pictures = {"maps": np.stack(maps), "tiles": np.stack(tiles), "flipped": np.stack(flips, 1)}
    return Sweep(states.classes, **stacked, **pictures, discrete=discrete)


def sweep_variable(states: Latents, variable: int, size: int) -> Latents:
    """Every state with one variable at each of `size` classes, `[S * size, ...]`."""
    swept = states.take(np.repeat(np.arange(len(states.classes)), size))
    swept.classes[:, variable] = np.tile(np.arange(size), len(states.classes))
    return swept


def _response_changes(
    swept: Response, base: Response, size: int, discrete: bool
) -> dict[str, np.ndarray]:
    """Absolute changes `[S, size]` of value, reward and policy."""

    def change(name):
        before, after = getattr(base, name), getattr(swept, name)
        return np.abs(after.reshape(len(before), size, *before.shape[1:]) - before[:, None])

    policy = change("policy")
    moved = policy.sum(-1) / 2 if discrete else policy.mean(-1)  # the total variation distance
    return {"value": change("value"), "reward": change("reward"), "policy": moved}


def others_in_use(current: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """bool [S, K, C]: the classes that a variable has in some row, the current one left out."""
    is_current = current[..., None] == np.arange(counts.shape[1])
    return (counts > 0) & ~is_current


def per_variable(change: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Mean `[K]` of `change` where `which`, both `[S, K, C]`; 0 for a variable without any."""
    return (change * which).sum((0, 2)) / np.maximum(1, which.sum((0, 2)))


def summarize(result: Sweep, counts: np.ndarray) -> dict:
    """The numbers of `report.json`; `_all` counts classes that no row has, too.

    Continuous actions have no probabilities that could flip: None.
    """
    used = others_in_use(result.current, counts)
    every = others_in_use(result.current, np.ones_like(counts))
    flips = _mean_where(result.policy > 0.5, used) if result.discrete else None
    invisible = result.largest <= VISIBLE
    return {
        "states": len(result.current),
        "visible_gray_levels": VISIBLE,
        "invisible_fraction": _mean_where(invisible, used),
        "invisible_fraction_all": _mean_where(invisible, every),
        **{
            f"{name}_change": per_variable(getattr(result, name), used).round(5).tolist()
            for name in ("pixel", "value", "reward", "policy")
        },
        "pixel_change_all": per_variable(result.pixel, every).round(5).tolist(),
        "policy_flips_fraction": flips,
    }


def summarize_board(result: Sweep, counts: np.ndarray) -> dict:
    """What swaps to a class in use do to the cells of a board, for `report.json`.

    `cells_changed` of the whole board and `by_variable`, and by kind of object, for swaps that
    change any; `unchanged_fraction`: those that change none.
    """
    used = others_in_use(result.current, counts)
    total = result.flipped.sum(-1)
    changes = used & (total > 0)
    return {
        "unchanged_fraction": _mean_where(total == 0, used),
        "cells_changed": _mean_where(total, changes),
        "by_variable": per_variable(total, used).round(4).tolist(),
        "kinds": {
            kind: {
                "fraction": _mean_where(result.flipped[..., i] > 0, used),
                "by_variable": per_variable(result.flipped[..., i], used).round(4).tolist(),
            }
            for i, kind in enumerate(KINDS)
        },
    }


def _mean_where(values: np.ndarray, which: np.ndarray) -> float | None:
    return float(values[which].mean()) if which.any() else None


def halves_of_state(decode: Decode, states: Latents, others: Latents) -> dict[str, float]:
    """How the image changes, in gray levels, when half of the state is that of another row.

    Says where the picture is kept: `classes` swaps all K variables and keeps `deter`, `deter` the
    reverse, `both` is the distance between the two rows' images.
    """
    images = decode(states)
    mixed = {
        "classes": Latents(others.classes, states.deter),
        "deter": Latents(states.classes, others.deter),
        "both": others,
    }
    return {k: float(255 * np.abs(decode(v) - images).mean()) for k, v in mixed.items()}
