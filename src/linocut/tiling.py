"""Cuts padded pictures into tiles that are coded alone, each seen by the networks with its surroundings.

    |<- reach ->|<-- tile, 1024 px -->|<- reach ->|      what a network sees, clipped at the picture's border

Latents of a tile are cut from the analysis of its window; pixels of a tile from the synthesis of its window, whose
latents come from the neighbouring tiles. Nothing is blended: with enough reach both sides of a border agree.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from linocut.bitstream import TILE_PX, tile_grid


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
        width, height: of the picture, px.
        multiple: sides are padded to it.
        reach: surroundings that a window includes, px; rounded up to a multiple.
    """
    rows, columns = tile_grid(width, height)
    right_end, bottom_end = padded(width, multiple), padded(height, multiple)
    reach = padded(reach, multiple)
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
