"""What goes into and comes out of the two halves of the codec."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linocut.rotation import Rotation
from linocut.segments import Damage

Picture = NDArray[np.uint8]


@dataclass
class Analysed:
    """A picture on its way to a file: what `encode` needs at any step.

    Attributes:
        picture: uint8 (h, w, 3).
        latents: rotated latents of each tile, or None where they are computed on demand: of a large
            picture that is encoded once.
        rotation: the picture's own rotation, if the model works that way.
    """

    picture: Picture
    latents: Sequence[list[NDArray[np.float32]]] | None
    rotation: Rotation | None


@dataclass(frozen=True)
class Decoded:
    """What `decode` found in a file.

    Attributes:
        picture: uint8 (h, w, 3).
        damage: what was lost of a file of the resilient layout; None for the plain one.
    """

    picture: Picture
    damage: Damage | None
