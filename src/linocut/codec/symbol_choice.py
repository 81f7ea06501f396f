"""The symbols of a picture, tile by tile, as an effort level chooses them.

0 to 2:   latent of a tile --> symbols
3:        all tiles --as for 2--> last layer --> latent of a tile --> symbols for that layer
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linocut.codec.analysis import Analysed, latent_of
from linocut.codec.correction import NormalEquations, look_at, scale_of
from linocut.codec.refinement import Aim, refine
from linocut.codec.rotation import Rotation
from linocut.codec.tiling import Tile
from linocut.entropy.choice import CORRECTED, PRICE, REFINED, choose_symbols
from linocut.entropy.coder import Coder
from linocut.entropy.planes import step_of
from linocut.entropy.tables import Bins
from linocut.format.blocks import Numbers
from linocut.lab.networks.networks import Network

Chosen = tuple[Tile, list[NDArray[np.int32]], Bins | None]
"""A tile, its symbols (c, h, w) of each band, and their table indices where they are known."""


@dataclass
class Choice:
    """The symbols of one picture at one step. Iterating goes through the tiles once.

    Attributes:
        network: whose latent it is.
        codes: what will code the symbols.
        shared: rotation of all pictures; None where each has its own.
        analysed: the picture.
        grid: its tiles.
        index: of the step.
        effort: see `linocut.entropy.choice.EFFORTS`.
        about: facts of the model; they name the distortion that effort 3 lowers.
    """

    network: Network
    codes: Coder
    shared: Rotation | None
    analysed: Analysed
    grid: Sequence[Tile]
    index: int
    effort: int
    about: dict[str, object]

    def __post_init__(self) -> None:
        corrected = self.effort >= CORRECTED
        self._sums = NormalEquations.of(self.network) if corrected else None

    def __iter__(self) -> Iterator[Chosen]:
        """Every tile; those seen have their say in `correction`."""
        refining = self.effort == REFINED and self.codes.priced
        refined = self._refined() if refining else self._plain()
        for tile, symbols, bins in refined:
            if self._sums is not None:
                look_at(
                    self._sums, self.network, self.rotation, symbols, self.index,
                    self.analysed.picture, tile, len(self.grid),
                )  # fmt: skip
            yield tile, symbols, bins

    @property
    def rotation(self) -> Rotation:
        """Of this picture's latent."""
        used = self.shared or self.analysed.rotation
        assert used is not None
        return used

    def correction(self) -> Numbers | None:
        """What the last layer should be for the tiles seen; None where that is nothing new."""
        if self._sums is None:
            return None
        height, width = self.analysed.picture.shape[:2]
        numbers = self._sums.solve(PRICE * step_of(self.index) ** 2, height * width)
        return numbers if numbers.any() else None

    def _plain(self) -> Iterator[Chosen]:
        for number, tile in enumerate(self.grid):
            latent = self._latent(number, tile)
            yield tile, *choose_symbols(self.codes, latent, self.index, self.effort)

    def _refined(self) -> Iterator[Chosen]:
        aim = Aim.of(self.about)
        first = Choice(
            self.network, self.codes, self.shared, self.analysed, self.grid, self.index, CORRECTED,
            self.about,
        )  # fmt: skip
        for _ in first:
            pass
        numbers = first.correction()
        scale = None if numbers is None else scale_of(numbers)
        for number, tile in enumerate(self.grid):
            inside = self.analysed.picture[tile.top : tile.bottom, tile.left : tile.right]
            symbols = refine(
                self.network, self.rotation, self.codes, inside, self._latent(number, tile),
                self.index, aim, scale,
            )  # fmt: skip
            yield tile, symbols, None

    def _latent(self, number: int, tile: Tile) -> list[NDArray[np.float32]]:
        return latent_of(self.analysed, self.network, self.shared, number, tile)
