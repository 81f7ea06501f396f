"""Tiles of a picture: coded alone, but seen by the networks with surroundings.

    |<- reach ->|<-- tile, 1024 px -->|<- reach ->|    a window: what a network sees

    picture --pad, cut--> windows --analysis--> latents of tiles --rotate--> kept, or made on demand
    symbols of tiles --join--> symbols of windows

Windows end with the picture. Latents of a tile are cut from the analysis of its window; pixels of a
tile from the synthesis of its window, whose latents come from the neighbouring tiles. Nothing is
blended: with enough reach both sides of a border agree.

A megapixel's latent takes 12 MB. That of a picture of 100 megapixels, which a search for a size
looks at a dozen times, is neither kept in memory nor computed again each time: it lies in a file
without a name.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from linocut.codec import rotation
from linocut.codec.rotation import Rotation
from linocut.codec.segments import Lost
from linocut.codec.transforms import Latent, Picture, Transforms
from linocut.entropy.planes import Band, Integers, Symbols
from linocut.errors import DataError
from linocut.format.bitstream import TILE_PX, tile_grid

CACHED_PIXELS = 2**24
"""Pictures up to this size keep their latents in memory."""

FITTED_TILES = 16
"""So many tiles of a larger picture take part in fitting its own rotation."""


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
    transforms: Transforms,
    shared: Rotation | None,
    picture: Picture,
    grid: Sequence[Tile],
    *,
    once: bool,
) -> Analysed:
    """Everything about a picture that does not depend on the step.

    Args:
        transforms: with an analysis.
        shared: the model's rotation; None fits one to the picture.
        picture: uint8 (h, w, 3).
        grid: all its tiles.
        once: there will be one encoding only, so that nothing of a large picture is kept.
    """
    bands = transforms.geometry.bands
    large = picture.shape[0] * picture.shape[1] > CACHED_PIXELS
    if shared is not None and large and once:
        return Analysed(picture, None, None)
    keep: Callable[[Iterable[Latent]], Sequence[Latent]] = LatentStore if large else list
    raw: Iterable[Latent] = (analyse_window(transforms, picture, tile) for tile in grid)
    own = None
    if shared is None:
        raw = keep(raw)
        some = raw[:: -(-len(raw) // FITTED_TILES)] if large else raw
        own = rotation.fit(bands, some, centre=False)
        own = Rotation.unpack(own.pack(), bands)
    used = shared or own
    assert used is not None
    return Analysed(picture, keep(used.transform(latent) for latent in raw), own)


def latent_of(
    analysed: Analysed, transforms: Transforms, shared: Rotation | None, number: int, tile: Tile
) -> Latent:
    """The rotated latent of one tile; arguments as for `analyse`."""
    if analysed.latents is not None:
        return analysed.latents[number]
    if shared is None:
        raise DataError("a picture this large needs a model with a rotation of its own")
    return shared.transform(analyse_window(transforms, analysed.picture, tile))


def analyse_window(transforms: Transforms, picture: Picture, tile: Tile) -> Latent:
    """Latent of one tile, bands (c, h, w), from its window of the picture (h, w, 3)."""
    top, left, bottom, right = tile.window
    latent = []
    window = padded_to(picture[top:bottom, left:right], bottom - top, right - left)
    for band, values in zip(transforms.geometry.bands, transforms.analysis(window), strict=True):
        y, x = (tile.top - top) // band.stride, (tile.left - left) // band.stride
        h, w = (tile.bottom - tile.top) // band.stride, (tile.right - tile.left) // band.stride
        latent.append(values[:, y : y + h, x : x + w])
    return latent


def padded_to(picture: Picture, height: int, width: int) -> Picture:
    """A picture with its last row and column repeated until it has this size."""
    missing = (height - picture.shape[0], width - picture.shape[1])
    if not any(missing):
        return picture
    return np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


@dataclass(frozen=True)
class Tile:
    """A tile and its window, all in px of the padded picture.

    Attributes:
        row, column: position in the grid.
        top, left, bottom, right: the tile.
        window: top, left, bottom, right of what a network sees.
    """

    row: int
    column: int
    top: int
    left: int
    bottom: int
    right: int
    window: tuple[int, int, int, int]


def padded(side: int, multiple: int) -> int:
    """The next multiple."""
    return -(-side // multiple) * multiple


def tiles_of(width: int, height: int, multiple: int, reach: int) -> Iterator[Tile]:
    """The tiles of a picture, row by row.

    Args:
        width: of the picture, px.
        height: of the picture, px.
        multiple: sides are padded to it.
        reach: surroundings that a window includes, px; rounded up to a multiple, and at most one
            tile, because windows are joined from a tile and its neighbours.
    """
    rows, columns = tile_grid(width, height)
    right_end, bottom_end = padded(width, multiple), padded(height, multiple)
    reach = min(padded(reach, multiple), TILE_PX)
    for row in range(rows):
        for column in range(columns):
            top, left = row * TILE_PX, column * TILE_PX
            bottom, right = min(top + TILE_PX, bottom_end), min(left + TILE_PX, right_end)
            window = (
                max(top - reach, 0),
                max(left - reach, 0),
                min(bottom + reach, bottom_end),
                min(right + reach, right_end),
            )
            yield Tile(row, column, top, left, bottom, right, window)


def windows(
    grid: Sequence[Tile], decode: Callable[[int, Tile], tuple[Symbols, Lost]], bands: Sequence[Band]
) -> Iterator[tuple[Tile, list[Integers], Lost]]:
    """Every tile, the symbols of its window, and what was lost of tiles not decoded before.

    What no window needs any more is let go.

    Args:
        grid: all tiles of the picture, row by row.
        decode: gives the symbols of a tile, by its number and itself, and what was lost; called
            once for each.
        bands: the shape of the latent.
    """
    rows, columns = grid[-1].row + 1, grid[-1].column + 1
    decoded: dict[tuple[int, int], Symbols] = {}
    for tile in grid:
        near = [
            (row, column)
            for row in range(max(tile.row - 1, 0), min(tile.row + 2, rows))
            for column in range(max(tile.column - 1, 0), min(tile.column + 2, columns))
        ]
        total = Lost(0, 0)
        for row, column in near:
            number = row * columns + column
            if (row, column) not in decoded:
                decoded[row, column], lost = decode(number, grid[number])
                total = total.and_more(lost)
        neighbours = [grid[row * columns + column] for row, column in near]
        yield tile, join(decoded, tile, neighbours, bands), total
        done = (tile.column - 1, tile.column) if tile.column == columns - 1 else (tile.column - 1,)
        for column in done:
            decoded.pop((tile.row - 1, column), None)


def join(
    decoded: Mapping[tuple[int, int], Symbols],
    tile: Tile,
    grid: Sequence[Tile],
    bands: Sequence[Band],
) -> list[Integers]:
    """Symbols of a tile's window, put together from the tile and its neighbours.

    Args:
        decoded: symbols of at least the tile and its eight neighbours, by (row, column).
        tile: whose window is wanted.
        grid: tiles of the picture, among them those.
        bands: the shape of the latent.

    Returns:
        int32 (c, h, w) for each band.
    """
    top, left, bottom, right = tile.window
    near = [t for t in grid if abs(t.row - tile.row) <= 1 and abs(t.column - tile.column) <= 1]
    window = []
    for index, band in enumerate(bands):
        s = band.stride
        values = np.zeros((band.channels, (bottom - top) // s, (right - left) // s), np.int32)
        for other in near:
            y0, y1 = max(other.top, top), min(other.bottom, bottom)
            x0, x1 = max(other.left, left), min(other.right, right)
            if y0 >= y1 or x0 >= x1:
                continue
            there = decoded[other.row, other.column][index]
            values[:, (y0 - top) // s : (y1 - top) // s, (x0 - left) // s : (x1 - left) // s] = (
                there[
                    :,
                    (y0 - other.top) // s : (y1 - other.top) // s,
                    (x0 - other.left) // s : (x1 - other.left) // s,
                ]
            )
        window.append(values)
    return window


class LatentStore(Sequence[Latent]):
    """A list of latents, each a list of bands (c, h, w), that lies in a temporary file.

    Args:
        latents: written one by one.

    Raises:
        DataError: the folder for temporary files has no room.
    """

    def __init__(self, latents: Iterable[Latent]) -> None:
        self._places: list[list[tuple[int, tuple[int, ...]]]] = []
        self._file = tempfile.TemporaryFile(prefix="linocut-")  # noqa: SIM115 (closed by __del__)
        try:
            for latent in latents:
                self._places.append([self._write(band) for band in latent])
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"{tempfile.gettempdir()} has no room for the latent of a picture this large "
                f"({error.strerror}); the environment variable TMPDIR names another folder"
            ) from None

    def _write(self, band: NDArray[np.float32]) -> tuple[int, tuple[int, ...]]:
        start = self._file.tell()
        self._file.write(np.ascontiguousarray(band, dtype=np.float32).data)
        return start, band.shape

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> Latent: ...
    @overload
    def __getitem__(self, number: slice) -> list[Latent]: ...
    def __getitem__(self, number: int | slice) -> Latent | list[Latent]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        return list(self._read(self._places[number]))

    def _read(self, places: list[tuple[int, tuple[int, ...]]]) -> Iterator[NDArray[np.float32]]:
        for start, shape in places:
            self._file.seek(start)
            band = np.frombuffer(self._file.read(4 * math.prod(shape)), dtype=np.float32)
            yield band.reshape(shape)

    def __del__(self) -> None:
        self._file.close()
