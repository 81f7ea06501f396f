"""The symbols of a picture, tile by tile, as an effort level chooses them.

0 to 2:   latent of a tile --> symbols
3:        all tiles --as for 2--> last layer --> latent of a tile --> symbols for that layer

Level 3 follows gradients of the decoder, which PyTorch computes: it asks
`linocut.lab.fitting.refinement` for them by name, the one thing of the lab that the codec may use.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from linocut.codec.correction import NormalEquations, look_at, scale_of
from linocut.codec.rotation import Rotation
from linocut.codec.tiles import Analysed, Tile, latent_of
from linocut.codec.transforms import Latent, Picture, Transforms
from linocut.entropy.choice import CORRECTED, DEFAULT_EFFORT, PRICE, REFINED, choose_symbols
from linocut.entropy.coder import Coder
from linocut.entropy.planes import Integers, step_of
from linocut.entropy.tables import Bins
from linocut.errors import ConfigError
from linocut.format.bitstream import Numbers
from linocut.models.folders import About

Chosen = tuple[Tile, list[Integers], Bins | None]
"""A tile, its symbols (c, h, w) of each band, and their table indices where they are known."""


_SQUARE = 16
_STRONG, _STRONG_SHARE = 64.0, 1 / 64
"""Mean change from pixel to pixel in a square that photographs hardly have, grey levels; and the
share of such squares that makes a picture another kind."""
_WEAK, _WEAK_SHARE = 3.0, 0.9
"""The same for squares without detail."""

REFINEMENT = "linocut.lab.fitting.refinement"
"""Offers `Refiner`; needs PyTorch."""


@dataclass(frozen=True)
class EncodeOptions:
    """How a picture becomes a file, besides the step.

    Attributes:
        effort: see `linocut.entropy.choice.EFFORTS`.
        extras: further blocks by kind; see `linocut.format.bitstream`.
        resilient: write the layout that survives bit errors.
    """

    effort: int = DEFAULT_EFFORT
    extras: Mapping[int, bytes] = field(default_factory=dict)
    resilient: bool = False


@dataclass
class Choice:
    """The symbols of one picture at one step. Iterating goes through the tiles once.

    Attributes:
        transforms: of the network whose latent it is.
        codes: what will code the symbols.
        shared: rotation of all pictures; None where each has its own.
        analysed: the picture.
        grid: its tiles.
        index: of the step.
        effort: see `linocut.entropy.choice.EFFORTS`.
        about: facts of the model; they name the distortion that effort 3 lowers.
    """

    transforms: Transforms
    codes: Coder
    shared: Rotation | None
    analysed: Analysed
    grid: Sequence[Tile]
    index: int
    effort: int
    about: About

    def __post_init__(self) -> None:
        corrected = self.effort >= CORRECTED or is_unlike_photographs(self.analysed.picture)
        self._sums = NormalEquations.of(self.transforms.geometry) if corrected else None

    def __iter__(self) -> Iterator[Chosen]:
        """Every tile; those seen have their say in `correction`."""
        refining = self.effort == REFINED and self.codes.priced
        refined = self._refined() if refining else self._plain()
        for tile, symbols, bins in refined:
            if self._sums is None:
                yield tile, symbols, bins
                continue
            with _aside(self.transforms.at_once > 1) as run:
                run(
                    look_at, self._sums, self.transforms, self.rotation, self.codes, symbols,
                    self.index, self.analysed.picture, tile, len(self.grid),
                )  # fmt: skip
                yield tile, symbols, bins  # coded meanwhile

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
        refiner = _refinement().Refiner(self.transforms, self.rotation, self.codes, self.about)
        first = Choice(
            self.transforms, self.codes, self.shared, self.analysed, self.grid, self.index,
            CORRECTED, self.about,
        )  # fmt: skip
        for _ in first:
            pass
        numbers = first.correction()
        scale = None if numbers is None else scale_of(numbers)
        for number, tile in enumerate(self.grid):
            inside = self.analysed.picture[tile.top : tile.bottom, tile.left : tile.right]
            latent = self._latent(number, tile)
            yield tile, refiner.refine(inside, latent, self.index, scale), None

    def _latent(self, number: int, tile: Tile) -> Latent:
        return latent_of(self.analysed, self.transforms, self.shared, number, tile)


@contextlib.contextmanager
def _aside(thread: bool) -> Iterator[Callable[..., object]]:
    """What runs a function: at once, or in a thread that has ended when the context does."""
    if not thread:
        yield lambda function, *arguments: function(*arguments)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[Any]] = []
        yield lambda function, *arguments: waiting.append(pool.submit(function, *arguments))
        for one in waiting:
            one.result()


def is_unlike_photographs(picture: Picture) -> bool:
    """Whether a picture has regular patterns of strong contrast, or hardly anything but ramps.

    A network trained on photographs harms such pictures: a checkerboard had 20 dB where the linear
    path alone reaches 33, and less at some finer steps than at coarser ones. They get a last layer
    of their own at every level of effort. Looks at squares of green.

    Args:
        picture: uint8 (h, w, 3).
    """
    green = picture[..., 1]
    height, width = (length // _SQUARE * _SQUARE for length in green.shape)
    if not height or not width:
        return False
    shape = (height // _SQUARE, _SQUARE, width // _SQUARE, _SQUARE)
    changes = [np.zeros((shape[0], shape[2]), np.float32) for _ in range(2)]
    for start in range(0, height, _SQUARE):  # of large pictures, too, little is held
        rows = green[start : start + _SQUARE, :width].astype(np.int16)
        for axis, change in enumerate(changes):
            steps = np.abs(np.diff(rows, axis=axis, append=np.take(rows, [-1], axis)))
            squares = steps.reshape(_SQUARE, shape[2], _SQUARE)
            change[start // _SQUARE] = squares.mean((0, 2), dtype=np.float32)
    strongest = np.maximum(*changes)
    patterned = float((strongest > _STRONG).mean()) >= _STRONG_SHARE
    return patterned or float((strongest < _WEAK).mean()) >= _WEAK_SHARE


def _refinement() -> Any:
    try:
        return importlib.import_module(REFINEMENT)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"effort {REFINED} follows gradients, which needs {error.name}: "
            'pip install "linocut[lab]"; lower efforts do not need it'
        ) from None
