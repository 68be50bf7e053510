"""What each variable of the latent is about: its mutual information with variables of the game."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

BINS = 10  # of equal content, for a game variable that has more values
SHIFTS = 20  # of the recording against itself, which show what chance alone gives
TOLD = 0.01  # of what there is to know; a variable that tells less of something is not about it


class Information(NamedTuple):
    """Mutual information of K latent variables with V variables of the game, bits."""

    names: tuple[str, ...]  # of the game's variables
    bits: np.ndarray  # [K, V], what chance alone gives taken off
    chance: np.ndarray  # [K, V]
    entropy: np.ndarray  # [V], of each game variable: the most that there is to know

    @property
    def share(self) -> np.ndarray:
        """`[K, V]`, of what there is to know about each game variable."""
        return self.bits / np.maximum(self.entropy, 1e-9)

    @property
    def about(self) -> np.ndarray:
        """The game variable of which each latent variable tells the largest share: int `[K]`.

        A variable that tells nothing has one, too; `share` says whether it counts (`TOLD`).
        """
        return self.share.argmax(1)

    @property
    def order(self) -> np.ndarray:
        """Latent variables sorted by what they are about, those that tell most first: int `[K]`."""
        return np.lexsort((-self.share.max(1), self.about))


def measure(classes: np.ndarray, game: Mapping[str, np.ndarray], seed: int = 0) -> Information:
    """Mutual information in recorded rows.

    Few rows make unrelated variables look related, the more so as neighbouring rows are alike. So
    the same is measured with the classes shifted in time against the game, where nothing but
    chance is left, and its mean is taken off.

    Args:
        classes: `[N, K]`, of the latent's variables.
        game: `[N]` each, of the game's.
    """
    binned = [to_bins(values) for values in game.values()]
    rng = np.random.default_rng(seed)
    rows = len(classes)
    shifts = rng.integers(rows // 4, max(rows // 4 + 1, 3 * rows // 4), SHIFTS)
    found = _matrix(classes, binned)
    chance = np.mean([_matrix(np.roll(classes, shift, 0), binned) for shift in shifts], 0)
    entropy = np.array([mutual_bits(values, values) for values in binned])
    return Information(tuple(game), np.maximum(0, found - chance), chance, entropy)


def _matrix(classes: np.ndarray, binned: list[np.ndarray]) -> np.ndarray:
    return np.array([[mutual_bits(column, values) for values in binned] for column in classes.T])


def mutual_bits(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information of two columns of whole numbers from 0 on, as often as they meet, bits."""
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    joint = counts / len(a)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    met = joint > 0
    return float((joint[met] * np.log2(joint[met] / independent[met])).sum())


def to_bins(values: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 on in place of values; where there are many, bins of equal content."""
    distinct, index = np.unique(values, return_inverse=True)
    if len(distinct) <= BINS:
        return index
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.searchsorted(edges, values, "right")


def summarize(found: Information) -> dict:
    """The numbers of `report.json`, latent variables in their own order."""
    best = found.share.max(1)
    return {
        "variables": list(found.names),
        "bits": found.bits.round(4).tolist(),
        "entropy_bits": found.entropy.round(4).tolist(),
        "chance_bits": float(found.chance.mean()),
        "about": [found.names[i] for i in found.about],
        "share": best.round(4).tolist(),
        "order": found.order.tolist(),
    }
