"""One seed for a run, and others derived from it by purpose."""

import zlib

import numpy as np


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2^31) for one purpose; different purposes get unrelated ones."""
    words = [zlib.crc32(str(part).encode()) for part in purpose]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0] >> 1)
