"""Wrong bits for tests of what survives them."""

import numpy as np


def flipped(data, rate, seed, start=0):
    """Bits from byte `start` on flipped at a rate."""
    rng = np.random.default_rng(seed)
    mask = np.packbits(rng.random((len(data), 8)) < rate, axis=1)[:, 0]
    mask[:start] = 0
    return (np.frombuffer(data, np.uint8) ^ mask).tobytes()
