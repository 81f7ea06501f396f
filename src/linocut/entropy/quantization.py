"""Uniform quantisation of latents, and the step grid that files store."""

import numpy as np
from numpy.typing import NDArray

from linocut.errors import DataError

STEPS_PER_OCTAVE = 64
"""A file stores its step as an integer: step = 2^(index / 64) grey levels (1.1 % apart)."""

LARGEST_SYMBOL = 32_767
"""Largest magnitude of a symbol; the encoder clips what lies beyond."""


def step_index(step: float) -> int:
    """The index of the grid step nearest to `step` (grey levels).

    Raises:
        DataError: outside 2^0 .. 2^10 grey levels.
    """
    if not 1.0 <= step <= 1024.0:
        raise DataError(f"quantisation step {step!r} is outside 1..1024 grey levels")
    return round(STEPS_PER_OCTAVE * float(np.log2(step)))


def step_of(index: int) -> float:
    """The step in grey levels of a grid index."""
    return float(2.0 ** (index / STEPS_PER_OCTAVE))


def quantise(r: NDArray[np.float32], step: float, rounding: float = 0.5) -> NDArray[np.int32]:
    """Latent values -> integer symbols: sign(r) * floor(|r| / step + rounding).

    Args:
        r: any shape, grey levels.
        step: grey levels.
        rounding: 0.5 rounds to nearest; less widens the zero bin (a dead zone).
    """
    symbols = np.floor(np.abs(r) / np.float32(step) + np.float32(rounding))
    signed: NDArray[np.int32] = (np.sign(r) * np.minimum(symbols, LARGEST_SYMBOL)).astype(np.int32)
    return signed


def dequantise(symbols: NDArray[np.int32], step: float) -> NDArray[np.float32]:
    """Integer symbols -> latent values in grey levels."""
    return symbols.astype(np.float32) * np.float32(step)
