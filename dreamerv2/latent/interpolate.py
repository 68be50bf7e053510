"""From one latent to another, one variable at a time: is there anything in between?"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from dreamerv2.latent.model import Latents
from dreamerv2.latent.usage import cell_counts

Decode = Callable[[Latents], np.ndarray]
ORDERS = ("given", "random", "greedy")
EXAMPLES = 3  # pairs that are shown


def walk(start: np.ndarray, end: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Classes `[M + 1, K]` from `start` to `end` `[K]`; variable `order[i]` changes in step i."""
    steps = np.repeat(start[None], len(order) + 1, 0)
    for i, variable in enumerate(order):
        steps[i + 1 :, variable] = end[variable]
    return steps


def differing(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The variables that have another class in `end`; their number is the Hamming distance."""
    return np.flatnonzero(start != end)


def walk_order(
    kind: str, decode: Decode, start: Latents, end: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """In which order the variables that differ change.

    kind: `given` by index, `random`, or `greedy`: next the variable whose change moves the image
    least.
    start: one state, `[1, ...]`. end: classes `[K]`.
    """
    left = differing(start.classes[0], end)
    if kind == "given":
        return left
    if kind == "random":
        return rng.permutation(left)
    current, image, order = start.classes[0].copy(), decode(start)[0], []
    while len(left):
        candidates = np.repeat(current[None], len(left), 0)
        candidates[np.arange(len(left)), left] = end[left]
        images = decode(start.with_classes(candidates))
        best = np.abs(images - image).mean((1, 2, 3)).argmin()
        current, image = candidates[best], images[best]
        order.append(left[best])
        left = np.delete(left, best)
    return np.array(order)


class Pairs(NamedTuple):
    """Pairs of rows."""

    first: np.ndarray  # int [P]
    second: np.ndarray  # int [P]


def near_and_far_pairs(episode: np.ndarray, count: int, rng: np.random.Generator) -> Pairs:
    """Half of the pairs lie anywhere, half in one episode and near, at most 256 rows apart."""
    first, second = rng.integers(len(episode), size=(2, count))
    near = np.arange(count) % 2 == 0
    gap = np.exp(rng.uniform(0, np.log(256), count)).astype(int)
    close = np.minimum(first + gap, len(episode) - 1)
    second = np.where(near & (episode[close] == episode[first]), close, second)
    keep = first != second
    return Pairs(first[keep], second[keep])


def walk_starts(classes: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Rows from which one may walk to the row K further: the same episode, and something differs.

    K rows, so that a real trajectory between the two has about as many steps as a walk.
    """
    gap = classes.shape[1]
    first = np.arange(max(0, len(episode) - gap))
    first = first[episode[first] == episode[first + gap]]
    return first[(classes[first] != classes[first + gap]).any(-1)]


def distances(decode: Decode, latents: Latents, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Hamming distance and image distance (of what is decoded, gray levels) per pair, [P] both."""
    hamming = (latents.classes[pairs.first] != latents.classes[pairs.second]).sum(-1)
    difference = decode(latents.take(pairs.first)) - decode(latents.take(pairs.second))
    return hamming, 255 * np.abs(difference).mean((1, 2, 3))


def changed_distances(
    decode: Decode, states: Latents, counts: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The same for states of which 1 to K variables were changed at random, on the same `deter`.

    The new class of a variable is drawn among those that it has in some row (`counts > 0`), so that
    variables with one class stay; the Hamming distance counts what did change.
    """
    changed = states.classes.copy()
    for row in changed:
        for variable in rng.permutation(len(row))[: rng.integers(1, len(row) + 1)]:
            used = np.flatnonzero(counts[variable])
            used = used[used != row[variable]]
            if len(used):
                row[variable] = rng.choice(used)
    difference = decode(states) - decode(Latents(changed, states.deter))
    hamming = (changed != states.classes).sum(-1)
    return hamming, 255 * np.abs(difference).mean((1, 2, 3))


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's; None where one of the two does not vary."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(spearmanr(a, b).statistic)


def best_log_prob(classes: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    """Log-probability `[N]`, in nats, of latents under whichever of several priors favours each.

    classes: `[N, K]`. log_probs: `[M, K, C]`, priors reached from real states.
    """
    return cross_log_probs(classes, log_probs).max(-1)


def cross_log_probs(classes: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    """Log-probability `[N, M]` of every latent under every prior."""
    size = log_probs.shape[-1]
    onehot = np.eye(size, dtype=np.float32)[classes].reshape(len(classes), -1)
    return onehot @ log_probs.reshape(len(log_probs), -1).T


def own_log_prob(classes: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    """Log-probability `[N]` of each latent under the prior of its own row, `[N, K, C]`."""
    return np.take_along_axis(log_probs, classes[..., None], -1)[..., 0].sum(-1)


def shuffled(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Latents whose variables come from different rows: each is as usual, together they are not."""
    return np.stack([rng.permutation(column) for column in classes.T], 1)


def nearest_distance(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Distance of each image to the nearest of `known`, gray levels: [N]."""
    flat, flat_known = (x.reshape(len(x), -1) for x in (images, known))
    return 255 * cdist(flat, flat_known, "cityblock").min(-1) / flat.shape[1]


def is_between(position: np.ndarray) -> np.ndarray:
    """Whether a step of a walk is far from both of its ends."""
    return (position > 0.25) & (position < 0.75)


class Walks(NamedTuple):
    """Walks of one order, joined: every step of every pair."""

    position: np.ndarray  # [S], 0 at the start, 1 at the end
    log_prob: np.ndarray  # [S], nats, under the favouring prior of real states
    nearest: np.ndarray  # [S], distance to the nearest image of a real state, gray levels

    def between(self) -> "Walks":
        """The inner half of all walks, where neither end is near."""
        inner = is_between(self.position)
        return Walks(*(values[inner] for values in self))


class Example(NamedTuple):
    """Pictures between the two real rows of one pair, each `[steps, H, W, channels]` in [0, 1]."""

    walks: dict[str, np.ndarray]  # by order
    mix: np.ndarray  # linear mix of the two frames' pixels
    seen: np.ndarray  # what happened, decoded
    real: np.ndarray  # what really happened


class Interpolation(NamedTuple):
    """All that the section found."""

    pairs: tuple[np.ndarray, np.ndarray]  # Hamming and image distance of real rows
    changed: tuple[np.ndarray, np.ndarray]  # the same, variables changed at random
    walks: dict[str, Walks]  # by order
    mix: np.ndarray  # `nearest` of linear mixes, inner half
    real_own: np.ndarray  # log-probability of real latents under their own prior
    real: Walks  # real latents against the same priors and images as the walks
    shuffled: np.ndarray  # `log_prob` of shuffled latents
    known: int  # rows that latents and images were held against
    examples: list[Example]
    decoded: dict[
        str, np.ndarray
    ]  # images [S, H, W, channels]: inner half by order, real, shuffled


class Judge:
    """Says how usual latents and images are, by the priors and images of some real states.

    decode: of images. latents, log_probs: the known states and the priors reached in them.
    """

    def __init__(self, decode: Decode, latents: Latents, log_probs: np.ndarray):
        self._log_probs = log_probs
        self._known = decode(latents)

    def __call__(self, classes: np.ndarray, images: np.ndarray, position: np.ndarray) -> Walks:
        log_prob = best_log_prob(classes, self._log_probs)
        return Walks(position, log_prob, nearest_distance(images, self._known))


def interpolate(
    decode: Decode,
    latents: Latents,
    log_probs: np.ndarray,
    frames: np.ndarray,
    episode: np.ndarray,
    *,
    seed: int,
    pairs: int = 2000,
    walks: int = 24,
    known: int = 500,
) -> Interpolation:
    """Walks between recorded rows.

    log_probs: `[N, K, C]`, the prior of each row. frames: uint8 `[N, H, W, channels]`, what was
    really seen. pairs, walks: how many are tried. known: rows that in-between latents are held
    against; as many others show what real latents score there.

    There must be a row from which to walk, see `walk_starts`.
    """
    rng = np.random.default_rng(seed)
    counts = cell_counts(latents.classes, log_probs.shape[-1])
    rows = rng.permutation(len(episode))
    half = min(known, len(rows) // 2)
    seen, others = rows[:half], rows[half : 2 * half]
    judge = Judge(decode, latents.take(seen), log_probs[seen])
    first = rng.permutation(walk_starts(latents.classes, episode))[:walks]
    chosen = Pairs(first, first + latents.classes.shape[1])
    walked, mixes, examples, decoded = _walk_all(decode, latents, frames, chosen, judge, rng)
    some = latents.take(others)
    mingled = Latents(shuffled(some.classes, rng), some.deter)
    decoded |= {"real": decode(some), "shuffled": decode(mingled)}
    return Interpolation(
        pairs=distances(decode, latents, near_and_far_pairs(episode, pairs, rng)),
        changed=changed_distances(decode, some, counts, rng),
        walks=walked,
        mix=mixes,
        real_own=own_log_prob(some.classes, log_probs[others]),
        real=judge(some.classes, decoded["real"], np.zeros(len(others))),
        shuffled=best_log_prob(mingled.classes, log_probs[seen]),
        known=len(seen),
        examples=examples,
        decoded=decoded,
    )


def _walk_all(decode, latents, frames, pairs, judge, rng):
    """Walks of each order over all pairs, `nearest` of the pixel mixes, the first examples, and the
    images of the inner half of the walks."""
    walked: dict[str, list] = {order: [] for order in ORDERS}
    decoded: dict[str, list] = {order: [] for order in ORDERS}
    mixes: list = []
    examples: list = []
    for first, second in zip(*pairs, strict=True):
        start, end = latents.take([first]), latents.classes[second]
        images = {}
        for order in ORDERS:
            path = walk(start.classes[0], end, walk_order(order, decode, start, end, rng))
            images[order] = decode(start.with_classes(path))
            position = np.linspace(0, 1, len(path))
            walked[order].append(judge(path, images[order], position))
            decoded[order].append(images[order][is_between(position)])
        share = np.linspace(0, 1, len(path))[:, None, None, None]
        real = frames[first : second + 1] / np.float32(255)
        mix = (1 - share) * real[0] + share * real[-1]
        mixes.append(judge(path, mix, position).between().nearest)
        if len(examples) < EXAMPLES:
            seen = decode(latents.take(np.arange(first, second + 1)))
            examples.append(Example(images, mix, seen, real))
    joined = {k: Walks(*map(np.concatenate, zip(*v, strict=True))) for k, v in walked.items()}
    images = {order: np.concatenate(group) for order, group in decoded.items()}
    return joined, np.concatenate(mixes), examples, images


def summarize(result: Interpolation) -> dict:
    """The numbers of `report.json`; log-probabilities in nats, distances in gray levels."""
    usual = float(np.quantile(result.real.log_prob, 0.05))
    inner = {order: walks.between() for order, walks in result.walks.items()}
    log_probs = {order: walks.log_prob for order, walks in inner.items()}
    nearest = {order: walks.nearest for order, walks in inner.items()}
    log_probs |= {"real_own_prior": result.real_own, "real": result.real.log_prob}
    nearest |= {"real": result.real.nearest, "pixel_mix": result.mix}
    return {
        "pairs": len(result.pairs[0]),
        "known": result.known,
        "rank_correlation": rank_correlation(*result.pairs),
        "rank_correlation_changed": rank_correlation(*result.changed),
        "log_prob": medians(log_probs | {"shuffled": result.shuffled}),
        "nearest_image": medians(nearest),
        "implausible_fraction": {
            order: _mean(walks.log_prob < usual) for order, walks in inner.items()
        },
        "implausible_below": usual,
    }


def medians(values: dict[str, np.ndarray]) -> dict[str, float | None]:
    return {k: float(np.median(v)) if len(v) else None for k, v in values.items()}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
