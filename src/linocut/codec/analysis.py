"""A picture -> the rotated latents of its tiles, kept, or made again whenever they are needed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linocut.codec import latent_store, rotation
from linocut.codec.latent_store import Latent
from linocut.codec.rotation import Rotation
from linocut.codec.tiling import Tile
from linocut.codec.windows import Picture, analyse_window
from linocut.errors import DataError
from linocut.lab.networks.networks import Network


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
    latents: Sequence[Latent] | None
    rotation: Rotation | None


def analyse(
    network: Network, shared: Rotation | None, picture: Picture, grid: Sequence[Tile], *, once: bool
) -> Analysed:
    """Everything about a picture that does not depend on the step.

    Args:
        network: with an analysis.
        shared: the model's rotation; None fits one to the picture.
        picture: uint8 (h, w, 3).
        grid: all its tiles.
        once: there will be one encoding only, so that nothing of a large picture is kept.
    """
    large = picture.shape[0] * picture.shape[1] > latent_store.CACHED_PIXELS
    if shared is not None and large and once:
        return Analysed(picture, None, None)
    keep: Callable[[Iterable[Latent]], Sequence[Latent]] = (
        latent_store.LatentStore if large else list
    )
    raw: Iterable[Latent] = (analyse_window(network, picture, tile) for tile in grid)
    own = None
    if shared is None:
        raw = keep(raw)
        some = raw[:: -(-len(raw) // latent_store.FITTED_TILES)] if large else raw
        own = rotation.fit(network.bands, some, centre=False)
        own = Rotation.unpack(own.pack(), network.bands)
    used = shared or own
    assert used is not None
    return Analysed(picture, keep(used.transform(latent) for latent in raw), own)


def latent_of(
    analysed: Analysed, network: Network, shared: Rotation | None, number: int, tile: Tile
) -> list[NDArray[np.float32]]:
    """The rotated latent of one tile; arguments as for `analyse`."""
    if analysed.latents is not None:
        return analysed.latents[number]
    if shared is None:
        raise DataError("a picture this large needs a model with a rotation of its own")
    return shared.transform(analyse_window(network, analysed.picture, tile))
