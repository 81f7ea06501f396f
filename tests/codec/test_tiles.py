"""Tiles part a picture exactly; windows hold what lies within reach of them."""

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linocut.codec.segments import Lost
from linocut.codec.tiles import join, padded, tiles_of, windows
from linocut.entropy.planes import wavelet_bands
from linocut.format.bitstream import TILE_PX

SIDES = st.integers(1, 3 * TILE_PX + 5)


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, st.sampled_from([8, 32, 256]), st.integers(0, 1024))
def test_tiles_cover_the_padded_picture_exactly_once(width, height, multiple, reach):
    grid = list(tiles_of(width, height, multiple, reach))
    right, bottom = padded(width, multiple), padded(height, multiple)
    assert sum((t.bottom - t.top) * (t.right - t.left) for t in grid) == right * bottom
    rows = sorted({(t.top, t.bottom) for t in grid})
    columns = sorted({(t.left, t.right) for t in grid})
    assert {(t.top, t.bottom, t.left, t.right) for t in grid} == {
        (*row, *column) for row in rows for column in columns
    }
    for edges, end in ((rows, bottom), (columns, right)):
        assert [a for a, _ in edges] == [0, *(b for _, b in edges[:-1])]
        assert edges[-1][1] == end
    assert [(t.row, t.column) for t in grid] == sorted((t.row, t.column) for t in grid)


@settings(deadline=None, max_examples=50)
@given(SIDES, SIDES, st.sampled_from([8, 32, 256]), st.integers(0, 4000))
def test_windows_hold_the_tile_and_its_reach_but_no_tile_beyond_the_next(
    width, height, multiple, reach
):
    right, bottom = padded(width, multiple), padded(height, multiple)
    for tile in tiles_of(width, height, multiple, reach):
        top, left, low, far = tile.window
        assert top == max(0, tile.top - min(padded(reach, multiple), TILE_PX))
        assert left == max(0, tile.left - min(padded(reach, multiple), TILE_PX))
        assert low == min(bottom, tile.bottom + min(padded(reach, multiple), TILE_PX))
        assert far == min(right, tile.right + min(padded(reach, multiple), TILE_PX))
        assert all(edge % multiple == 0 for edge in tile.window)


def test_multiples():
    assert [padded(side, 32) for side in (1, 32, 33)] == [32, 32, 64]


@pytest.mark.parametrize("reach", [0, 64, 200])
def test_joined_windows_are_cut_from_the_whole_latent(reach):
    bands = wavelet_bands(3)
    width, height = 2 * TILE_PX + 100, TILE_PX + 300
    grid = list(tiles_of(width, height, 8, reach))
    rng = np.random.default_rng(0)
    sides = padded(height, 8), padded(width, 8)
    whole = [
        rng.integers(-99, 99, (b.channels, sides[0] // b.stride, sides[1] // b.stride))
        for b in bands
    ]

    def cut(top, left, bottom, right):
        return [
            values[:, top // b.stride : bottom // b.stride, left // b.stride : right // b.stride]
            for b, values in zip(bands, whole, strict=True)
        ]

    decoded = {
        (t.row, t.column): [v.astype(np.int16) for v in cut(t.top, t.left, t.bottom, t.right)]
        for t in grid
    }
    for tile in grid:
        for joined, expected in zip(
            join(decoded, tile, grid, bands), cut(*tile.window), strict=True
        ):
            np.testing.assert_array_equal(joined, expected)


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (1, 4), (5, 1), (4, 3)])
def test_every_tile_is_decoded_once_and_two_rows_of_them_are_held(columns, rows):
    bands = wavelet_bands(3)
    grid = list(tiles_of(columns * TILE_PX - 8, rows * TILE_PX - 8, 8, 16))
    calls, alive, most = [], {}, 0

    def decode(number, tile):
        nonlocal most
        calls.append(number)
        sides = (tile.bottom - tile.top), (tile.right - tile.left)
        symbols = [
            np.full((b.channels, sides[0] // b.stride, sides[1] // b.stride), number, np.int16)
            for b in bands
        ]
        alive[number] = weakref.ref(symbols[0])
        most = max(most, sum(reference() is not None for reference in alive.values()))
        return symbols, Lost(number % 2, 1)

    total = Lost(0, 0)
    for number, (tile, window, lost) in enumerate(windows(grid, decode, bands)):
        assert tile == grid[number]
        inner = (tile.top - tile.window[0]) // 2, (tile.left - tile.window[1]) // 2
        assert window[-1][0, inner[0], inner[1]] == number
        total = total.and_more(lost)
    assert total == Lost(len(grid) // 2, len(grid))
    assert sorted(calls) == list(range(len(grid)))
    assert most <= 2 * columns + 3
