"""How the encoder chooses its symbols, from plain rounding to rate-distortion optimisation.

    minimise over m in {nearest, nearest - 1, 0}:    (|r| / step - m)^2 + price * bits(m | context)

Symbols are decided pass by pass in coding order, with the coder's own tables and contexts, so every
price is the real one; what a symbol does to later contexts is left out. The decoder is unchanged.
Source: Karczewicz et al., "Rate distortion optimized quantization", VCEG-AH21, 2008, in its greedy
form.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from linocut.contexts import ContextState
from linocut.entropy import EntropyCoder
from linocut.entropy_tables import FREQUENCY_BITS, TOKEN_EXTRA_BITS, tokens_of
from linocut.errors import DataError
from linocut.planes import plane_passes
from linocut.quantization import LARGEST_SYMBOL, quantise, step_of

REFINED = 3
EFFORTS = (0, 1, 2, REFINED)
"""0 rounds to nearest, 1 has a dead zone, 2 weighs every symbol's bits against its error,
3 asks the decoder besides: see `linocut.refinement`.
"""

DEFAULT_EFFORT = 2
ROUNDING = {0: 0.5, 1: 0.42}
"""Rounding offsets of the simple levels; see `linocut.quantization.quantise`."""

PRICE = 0.08
"""Squared error, in units of step^2, that one bit is worth."""


def choose_symbols(
    coder: EntropyCoder, latent: Sequence[NDArray[np.float32]], step_index: int, effort: int
) -> list[NDArray[np.int32]]:
    """Quantise a rotated latent with one of the levels of `EFFORTS`, without asking the decoder.

    Raises:
        DataError: there is no such level.
    """
    if effort not in EFFORTS:
        raise DataError(f"effort is {effort}, expected one of {list(EFFORTS)}")
    if effort in ROUNDING:
        return [quantise(band, step_of(step_index), ROUNDING[effort]) for band in latent]
    return optimise(coder, latent, step_index)


def optimise(
    coder: EntropyCoder,
    latent: Sequence[NDArray[np.float32]],
    step_index: int,
    price: float = PRICE,
) -> list[NDArray[np.int32]]:
    """Quantise a rotated latent.

    Args:
        coder: whose tables and contexts set the prices.
        latent: bands (c, h, w), grey levels.
        step_index: index of the quantisation step.
        price: see `PRICE`.

    Returns:
        int32 (c, h, w) for each band.
    """
    result = [np.zeros(band.shape, dtype=np.int32) for band in latent]
    shapes = [band.shape[1:] for band in latent for _ in range(len(band))]
    state = ContextState(coder.planes, shapes, step_index)
    for index, plane in enumerate(coder.planes):
        scaled = latent[plane.band][plane.channel] / np.float32(step_of(step_index))
        values = result[plane.band][plane.channel]
        state.open(index)
        if plane.smooth:
            values[:] = np.clip(np.rint(scaled), -LARGEST_SYMBOL, LARGEST_SYMBOL)
        else:
            frequencies = coder.tables.frequencies[index].astype(np.float64)
            bits = (FREQUENCY_BITS - np.log2(frequencies)).astype(np.float32)
            for place in plane_passes(plane, values.shape):
                exact = scaled[place.rows, place.columns]
                bins = coder.table_indices(state, index, place)
                chosen = _choose(np.abs(exact).ravel(), bits[bins], price).reshape(exact.shape)
                values[place.rows, place.columns] = np.where(exact < 0, -chosen, chosen)
                state.put(place, values[place.rows, place.columns])
        state.close(index)
    return result


def _choose(u: NDArray[np.float32], bits: NDArray[np.float32], price: float) -> NDArray[np.int32]:
    """The cheapest magnitude for each u (n,), given the bits (n, tokens) of every token."""
    nearest = np.minimum(np.rint(u), LARGEST_SYMBOL).astype(np.int32)
    best = np.zeros_like(nearest)
    cost = u * u + np.float32(price) * bits[:, 0]
    open_ = np.flatnonzero(nearest)  # all others stay 0
    for lower in (1, 0):
        m = nearest[open_] - lower
        tokens = tokens_of(m)
        length = bits[open_, tokens] + TOKEN_EXTRA_BITS[tokens] + (m > 0)
        candidate = (u[open_] - m) ** 2 + np.float32(price) * length
        better = candidate < cost[open_]
        best[open_[better]] = m[better]
        cost[open_[better]] = candidate[better]
    return best
