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

from linocut.entropy.coder import Bins, EntropyCoder
from linocut.entropy.contexts import ContextState
from linocut.entropy.planes import LARGEST_SYMBOL, plane_passes, quantise, step_of
from linocut.entropy.tables import TOKEN_EXTRA_BITS, tokens_of
from linocut.errors import DataError

CORRECTED, REFINED = 2, 3
EFFORTS = (0, 1, CORRECTED, REFINED)
"""0 rounds to nearest, 1 has a dead zone, 2 weighs every symbol's bits against its error and suits
the decoder to the picture (`linocut.codec.correction`), 3 asks the decoder for better symbols
besides (`linocut.codec.refinement`).
"""

DEFAULT_EFFORT = 2
ROUNDING = {0: 0.5, 1: 0.42}
"""Rounding offsets of the simple levels; see `linocut.entropy.planes.quantise`."""

PRICE = 0.08
"""Squared error, in units of step^2, that one bit is worth."""


def choose_symbols(
    coder: EntropyCoder, latent: Sequence[NDArray[np.float32]], step_index: int, effort: int
) -> tuple[list[NDArray[np.int32]], Bins | None]:
    """Quantise a rotated latent with one of the levels of `EFFORTS`, without asking the decoder.

    Returns:
        int32 (c, h, w) for each band, and the table indices where they were met on the way.

    Raises:
        DataError: there is no such level.
    """
    if effort not in EFFORTS:
        raise DataError(f"effort is {effort}, expected one of {list(EFFORTS)}")
    if effort in ROUNDING:
        return [quantise(band, step_of(step_index), ROUNDING[effort]) for band in latent], None
    return optimise(coder, latent, step_index)


def optimise(
    coder: EntropyCoder,
    latent: Sequence[NDArray[np.float32]],
    step_index: int,
    price: float = PRICE,
) -> tuple[list[NDArray[np.int32]], Bins]:
    """Quantise a rotated latent.

    Args:
        coder: whose tables and contexts set the prices.
        latent: bands (c, h, w), grey levels.
        step_index: index of the quantisation step.
        price: see `PRICE`.

    Returns:
        int32 (c, h, w) for each band, and the table indices of these symbols.
    """
    result = [np.zeros(band.shape, dtype=np.int32) for band in latent]
    met: dict[tuple[int, int], NDArray[np.uint8]] = {}
    shapes = [band.shape[1:] for band in latent for _ in range(len(band))]
    state = ContextState(coder.planes, shapes, step_index)
    for index, plane in enumerate(coder.planes):
        scaled = latent[plane.band][plane.channel] / np.float32(step_of(step_index))
        values = result[plane.band][plane.channel]
        state.open(index)
        if plane.smooth:
            values[:] = np.clip(np.rint(scaled), -LARGEST_SYMBOL, LARGEST_SYMBOL)
        else:
            for place in plane_passes(plane, values.shape):
                exact = scaled[place.rows, place.columns]
                bins = met[index, place.kind] = coder.table_indices(state, index, place)
                lengths = coder.tables.lengths[index]
                chosen = _choose(np.abs(exact).ravel(), bins, lengths, price).reshape(exact.shape)
                values[place.rows, place.columns] = np.where(exact < 0, -chosen, chosen)
                state.put(place, values[place.rows, place.columns])
        state.close(index)
    return result, met


def _choose(
    u: NDArray[np.float32],
    bins: NDArray[np.uint8],
    lengths: NDArray[np.float32],
    price: float,
) -> NDArray[np.int32]:
    """The cheapest magnitude for each u (n,), given its table and the bits (BINS, TOKENS)."""
    best = np.zeros(u.shape, dtype=np.int32)
    open_ = np.flatnonzero(u > 0.5)  # all others stay 0
    u, bins = u[open_], bins[open_]
    nearest = np.minimum(np.rint(u), LARGEST_SYMBOL).astype(np.int32)
    chosen = np.zeros_like(nearest)
    cost = u * u + np.float32(price) * lengths[bins, 0]
    for lower in (1, 0):
        m = nearest - lower
        tokens = tokens_of(m)
        bits = lengths[bins, tokens] + TOKEN_EXTRA_BITS[tokens] + (m > 0)
        candidate = (u - m) ** 2 + np.float32(price) * bits
        better = candidate < cost
        chosen[better] = m[better]
        cost[better] = candidate[better]
    best[open_] = chosen
    return best
