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

from linocut.entropy.coder import Coder
from linocut.entropy.planes import Integers
from linocut.entropy.tables import Bins
from linocut.errors import DataError

CORRECTED, REFINED = 2, 3
EFFORTS = (0, 1, CORRECTED, REFINED)
"""0 rounds to nearest, 1 has a dead zone, 2 weighs every symbol's bits against its error and suits
the decoder to the picture (`linocut.codec.correction`), 3 asks the decoder for better symbols
besides (`linocut.lab.fitting.refinement`).
"""

DEFAULT_EFFORT = 2
ROUNDING = {0: 0.5, 1: 0.42}
"""Rounding offsets of the simple levels; see `linocut.entropy.planes.quantise`."""

PRICE = 0.08
"""Squared error, in units of step^2, that one bit is worth."""


def choose_symbols(
    coder: Coder, latent: Sequence[NDArray[np.float32]], step_index: int, effort: int
) -> tuple[list[Integers], Bins | None]:
    """Quantise a rotated latent with one of the levels of `EFFORTS`, without asking the decoder.

    Returns:
        int32 (c, h, w) for each band, and the table indices where they were met on the way.

    Raises:
        DataError: there is no such level.
    """
    if effort not in EFFORTS:
        raise DataError(f"effort is {effort}, expected one of {list(EFFORTS)}")
    if effort in ROUNDING:
        return coder.quantise(latent, step_index, ROUNDING[effort]), None
    return optimise(coder, latent, step_index)


def optimise(
    coder: Coder,
    latent: Sequence[NDArray[np.float32]],
    step_index: int,
    price: float = PRICE,
) -> tuple[list[Integers], Bins | None]:
    """Quantise a rotated latent.

    Args:
        coder: whose tables and contexts set the prices.
        latent: bands (c, h, w), grey levels.
        step_index: index of the quantisation step.
        price: see `PRICE`.

    Returns:
        int32 (c, h, w) for each band, and the table indices of these symbols.
    """
    return coder.optimise(latent, step_index, price)
