"""Cuts padded pictures into tiles: coded alone, but seen by the networks with surroundings.

    |<- reach ->|<-- tile, 1024 px -->|<- reach ->|    a window: what a network sees

Windows end with the picture. Latents of a tile are cut from the analysis of its window; pixels of a
tile from the synthesis of its window, whose latents come from the neighbouring tiles. Nothing is
blended: with enough reach both sides of a border agree.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.planes import Band, Symbols
from linocut.format.bitstream import TILE_PX, tile_grid


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


def tiles(width: int, height: int, multiple: int, reach: int) -> Iterator[Tile]:
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
    grid: Sequence[Tile], decode: Callable[[int, Tile], Symbols], bands: Sequence[Band]
) -> Iterator[tuple[Tile, list[NDArray[np.int32]]]]:
    """Every tile with the symbols of its window; what no window needs any more is let go.

    Args:
        grid: all tiles of the picture, row by row.
        decode: gives the symbols of a tile, by its number and itself; called once for each.
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
        for row, column in near:
            number = row * columns + column
            if (row, column) not in decoded:
                decoded[row, column] = decode(number, grid[number])
        yield (
            tile,
            join(decoded, tile, [grid[row * columns + column] for row, column in near], bands),
        )
        done = (tile.column - 1, tile.column) if tile.column == columns - 1 else (tile.column - 1,)
        for column in done:
            decoded.pop((tile.row - 1, column), None)


def join(
    decoded: Mapping[tuple[int, int], Symbols],
    tile: Tile,
    grid: Sequence[Tile],
    bands: Sequence[Band],
) -> list[NDArray[np.int32]]:
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
