"""Which of the K x C cells of the latent are used, and how evenly."""

from typing import NamedTuple

import numpy as np


class Usage(NamedTuple):
    """Counts of the cells, and how the share of never-used ones fell while they were counted."""

    counts: np.ndarray  # int [K, C]: in how many rows the variable had the class
    seen: np.ndarray  # int [P]: after so many rows,
    never_used: np.ndarray  # float [P]: this share of the cells had not been used


def measure(classes: np.ndarray, size: int) -> Usage:
    """Usage in rows `classes` `[N, K]` of `size` classes, in the order of the rows."""
    variables = np.arange(classes.shape[1])
    first_use = np.full((classes.shape[1], size), len(classes))
    for row in reversed(range(len(classes))):
        first_use[variables, classes[row]] = row
    seen = np.unique(np.geomspace(1, len(classes), 60).astype(int))
    never_used = np.array([(first_use >= rows).mean() for rows in seen])
    return Usage(cell_counts(classes, size), seen, never_used)


def cell_counts(classes: np.ndarray, size: int) -> np.ndarray:
    """How often each of `size` classes occurs in each column of `classes` `[N, K]`: int [K, C]."""
    return np.stack([np.bincount(column, minlength=size) for column in classes.T])


def entropy_bits(counts: np.ndarray) -> np.ndarray:
    """Entropy of each variable's class frequencies, float [K]; log2 C for even use."""
    frequency = counts / counts.sum(-1, keepdims=True)
    logs = np.log2(frequency, out=np.zeros_like(frequency), where=frequency > 0)
    return np.abs(-(frequency * logs).sum(-1))  # abs: no -0.0


def summarize(posterior: Usage, prior: Usage, most_likely: np.ndarray) -> dict:
    """The numbers of `report.json`.

    most_likely: `[N, K]`, the class that each posterior favours, whatever was drawn.

    A dead variable had one and the same class in all rows. `effective_classes` is 2^entropy: the
    number of classes, used evenly, that would have this entropy.
    """
    counts = posterior.counts
    entropy = entropy_bits(counts)
    modes = cell_counts(most_likely, counts.shape[1])
    half = int(posterior.seen[-1]) // 2
    return {
        "rows": int(counts[0].sum()),
        "cells": counts.size,
        "never_used_fraction": float((counts == 0).mean()),
        "never_used_fraction_prior": float((prior.counts == 0).mean()),
        "never_used_fraction_half": float(np.interp(half, posterior.seen, posterior.never_used)),
        "never_most_likely_fraction": float((modes == 0).mean()),
        "cells_used_once": int((counts == 1).sum()),
        "entropy_bits": entropy.round(4).tolist(),
        "entropy_bits_prior": entropy_bits(prior.counts).round(4).tolist(),
        "effective_classes": (2**entropy).round(3).tolist(),
        "classes_used": (counts > 0).sum(-1).tolist(),
        "dead_variables": np.flatnonzero((counts > 0).sum(-1) == 1).tolist(),
        "never_used_by_rows": [
            [int(rows), round(float(a), 5), round(float(b), 5)]
            for rows, a, b in zip(
                posterior.seen, posterior.never_used, prior.never_used, strict=True
            )
        ],
    }
