"""How the encoder chooses its symbols: the path through the trellis that weighs error and bits.

    minimise over paths the sum of    (r - r_hat)^2 / step^2 + price * bits(symbol | context)

Symbols are decided pass by pass in coding order, with the coder's own tables and contexts, so every
price is the real one; what a symbol does to later passes is left out. A sign counts as one bit. The
decoder is unchanged.

Sources: Karczewicz et al., "Rate distortion optimized quantization", VCEG-AH21, 2008; for the path,
see `linocut.entropy.trellis`.
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
"""0 has the least error at its step, 1 weighs every symbol's bits against its error, 2 suits the
decoder to the picture besides (`linocut.codec.correction`), 3 asks the decoder for better symbols
(`linocut.lab.fitting.refinement`).
"""

DEFAULT_EFFORT = 2

PRICE = 0.08
"""Squared error, in units of step^2, that one bit is worth."""
LEAST_PRICE = 0.006
"""The same for effort 0: of paths with about the same error the cheaper one."""


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
    return optimise(coder, latent, step_index, PRICE if effort else LEAST_PRICE)


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
