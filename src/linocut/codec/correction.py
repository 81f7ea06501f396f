"""The last layer of the decoder, fitted to each picture: a few dozen small numbers in the file.

    x_hat = linear path + sum over features c of factor[c] share[c]
    factor = 1 + s[k, c] / 4                                        for colour k = 0, 1, 2
           + quiet s[3, c] / 4 + busy s[4, c] / 4                   for luma, by place

A decoder is trained for all pictures, so for one it repairs some things too little and others too
much. How strongly each feature should speak is a least-squares problem, and the encoder solves it:
in whole numbers s, with every bit of theirs paid for like those of symbols. The decoder scales the
weights of its last layer. The network says where a picture is quiet and where busy
(`linocut.codec.transforms.Transforms.look`); `linocut.format.bitstream` has how s lies in a file.

Related: van Rozendaal, Huijben, Cohen, "Overfitting for fun and profit: instance-adaptive data
compression", 2021, which sends updates of whole networks, found by training.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.codec.rotation import Rotation
from linocut.codec.tiles import Tile, padded_to
from linocut.codec.transforms import Geometry, Latent, Picture, Transforms
from linocut.entropy.coder import Coder
from linocut.entropy.planes import Integers
from linocut.errors import BitstreamError
from linocut.format.bitstream import LARGEST, ROWS, Numbers, code_lengths, unpack_correction

QUANTUM = 0.25
GROUPS = ((0, 3, 4), (1,), (2,))
"""Rows that make the same samples, so that they are solved for together."""
STRIP = 48
"""Rows of pixels that are looked at together."""
WHOLE_TILES = 4
"""Of a picture of more tiles than that only the middle of each is looked at."""
FRAME = 64
"""Pixels along a cut that are not looked at: what a network sees there is not what it will see."""
LOOKED_AT = 115_000
"""Pixels of a tile that decide, about: of larger ones strips are left out."""
UNSEEN_BITS = 4
"""What a number has to be worth above its code where pixels were left out, in bits for each pixel
that nobody saw and each one that somebody did: it also suits the noise of those seen."""
_MOST = 0.75
"""Share of a part beyond which it is looked at as a whole."""
_RIDGE = 1e-4
_SWEEPS = 12


_Look = tuple[int, int, list[tuple[int, int]]]
_Strip = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


@dataclass
class NormalEquations:
    """Sums over the pixels seen so far, for the features of one network; one entry a group.

    Attributes:
        gram: (n c, n c), products of the shares of two features, for a group of n rows.
        moment: (n c), products of shares and errors.
        pixels: how many.
    """

    gram: list[NDArray[np.float64]]
    moment: list[NDArray[np.float64]]
    pixels: int = 0

    @classmethod
    def of(cls, geometry: Geometry) -> NormalEquations | None:
        """Empty ones, or None: the network has no layer that a picture could have of its own."""
        if geometry.features is None:
            return None
        sizes = [len(rows) * geometry.features for rows in GROUPS]
        return cls([np.zeros((size, size)) for size in sizes], [np.zeros(size) for size in sizes])

    def add(
        self, transforms: Transforms, latent: Latent, step: float, picture: Picture,
        frame: Sequence[int] = (0, 0, 0, 0),
    ) -> None:  # fmt: skip
        """Look at a tile.

        Args:
            transforms: with the decoder.
            latent: dequantised, bands (c, h, w) in grey levels.
            step: that networks are told, grey levels.
            picture: uint8 (h, w, 3), what the tile should be; at most as large as its latent says.
            frame: pixels to leave out at the top, left, bottom and right, even numbers.
        """
        height, width = (length // 2 * 2 for length in picture.shape[:2])
        top, left, bottom, right = frame[0], frame[1], height - frame[2], width - frame[3]
        if top >= bottom or left >= right:
            return
        band = transforms.geometry.bands[0]
        sides = [length * band.stride for length in latent[0].shape[1:]]
        wanted, linear = padded_to(picture, *sides), transforms.linear(latent)
        columns = slice(left // 2, right // 2)
        strips = _strips(top, bottom, right - left)

        def look(part: _Look) -> list[_Strip]:
            first, last, inside = part
            features, missing, places = transforms.look(
                linear[:, first:last], latent, step, wanted[first:last]
            )
            framed = np.pad(features, ((0, 0), (1, 1), (1, 1)))
            framed = framed[:, :, columns.start : columns.stop + 2]
            found = []
            for low, high in inside:
                start, end = (low - first) // 2, (high - first) // 2
                found.append((
                    framed[:, start : end + 2], missing[:, start:end, columns],
                    places[:, start:end, columns],
                ))  # fmt: skip
            return found

        looks = _looks(strips, sides[0], transforms.geometry.frame)
        with _map(transforms.at_once) as every:
            seen = [strip for part in every(look, looks) for strip in part]
            for found in every(lambda s: transforms.sums(s[0], s[1], s[2], step), seen):
                for colour in range(len(GROUPS)):
                    self.gram[colour] += found[colour]
                    self.moment[colour] += found[len(GROUPS) + colour]
        self.pixels += sum(high - low for low, high in strips) * (right - left)

    def solve(self, price: float, pixels: int) -> Numbers:
        """Whole numbers (5, c) of least squared error and bits together.

        Args:
            price: squared error that a bit is worth, grey levels squared.
            pixels: of the picture, for which those seen stand.
        """
        seen = self.pixels / pixels
        unseen = UNSEEN_BITS * max(1.0 / seen - 1.0, 0.0) if seen else 0.0
        numbers = np.zeros((ROWS, len(self.moment[-1])), dtype=np.int8)
        for rows, gram, moment in zip(GROUPS, self.gram, self.moment, strict=True):
            numbers[list(rows)] = _solve(gram, moment, len(rows), price * seen, unseen)
        return numbers


@contextlib.contextmanager
def _map(threads: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map` with that many calls at a time; results in order, so that sums do not depend on it."""
    if threads < 2:
        yield map
        return
    with ThreadPoolExecutor(threads) as pool:
        yield pool.map


def _strips(top: int, bottom: int, width: int) -> list[tuple[int, int]]:
    """First and last rows, px, even, of strips that are as many pixels as decide, or of all rows.

    Strips of a part are spread over it evenly.
    """
    rows = bottom - top
    count = round(LOOKED_AT / width / STRIP)
    if count * STRIP >= rows:
        return [(start, min(start + STRIP, bottom)) for start in range(top, bottom, STRIP)]
    count = max(count, 1)
    starts = [top + (2 * i + 1) * rows // (2 * count) - STRIP // 2 for i in range(count)]
    return [(max(start // 2 * 2, top), min(start // 2 * 2 + STRIP, bottom)) for start in starts]


def _looks(strips: list[tuple[int, int]], height: int, frame: int | None) -> list[_Look]:
    """First and last rows, px, for which features are made at once, and the strips among them.

    One strip after the other, or all at once. Rows are multiples of 4.

    Args:
        strips: whose features are needed.
        height: of what there is.
        frame: see `Geometry`.
    """
    if frame is None or len(strips) * (STRIP + 2 * frame) > _MOST * height:
        return [(0, height, strips)]
    looks = []
    for low, high in strips:
        first, last = (low - frame) // 4 * 4, -(-(high + frame) // 4) * 4
        looks.append((max(first, 0), min(last, height), [(low, high)]))
    return looks


def _solve(
    gram: NDArray[np.float64], moment: NDArray[np.float64], rows: int, price: float, unseen: float
) -> NDArray[np.int64]:
    """Numbers of a group, (rows, c); rows not worth their bits are left out, the worst first."""
    row_of = np.repeat(np.arange(rows), len(moment) // rows)
    kept = set(range(rows))

    def numbers_of(some: set[int]) -> tuple[float, NDArray[np.int64]]:
        numbers = np.zeros(len(moment), dtype=np.int64)
        chosen = np.flatnonzero(np.isin(row_of, list(some)))
        if len(chosen):
            part = gram[np.ix_(chosen, chosen)]
            numbers[chosen] = _descend(part, moment[chosen], price, unseen)
        s = QUANTUM * numbers
        bits = unseen * int(np.count_nonzero(numbers))
        bits += sum(int(code_lengths(numbers[row_of == row]).sum()) for row in some)
        return float(s @ gram @ s - 2.0 * moment @ s) + price * bits, numbers

    cost, best = numbers_of(kept)
    while kept:
        fewer = [(*numbers_of(kept - {row}), row) for row in sorted(kept)]
        least, numbers, row = min(fewer, key=lambda one: one[0])
        if least > cost:
            break
        cost, best = least, numbers
        kept.remove(row)
    return best.reshape(rows, -1)


def _descend(
    gram: NDArray[np.float64], moment: NDArray[np.float64], price: float, unseen: float
) -> NDArray[np.int64]:
    """Coordinate descent from the rounded least-squares solution."""
    count = len(moment)
    power = gram.diagonal().copy()
    exact = np.linalg.solve(gram + (_RIDGE * power.mean() + 1e-9) * np.eye(count), moment)
    numbers = np.clip(np.rint(exact / QUANTUM), -LARGEST, LARGEST).astype(np.int64)
    left = moment - gram @ (QUANTUM * numbers)
    weights = (power * (QUANTUM**2 / max(price, 1e-9))).tolist()
    indices = np.flatnonzero(power > 0).tolist()
    for _ in range(_SWEEPS):
        changed = False
        for index in indices:
            now = int(numbers[index])
            best = now + float(left[index] / power[index]) / QUANTUM
            if now == 0 and abs(best) <= 0.5:
                continue  # most are: no other is near
            chosen = _cheapest(best, now, weights[index], unseen)
            if chosen != now:
                numbers[index], changed = chosen, True
                left -= gram[index] * (QUANTUM * (chosen - now))
        if not changed:
            break
    return numbers


def _cheapest(best: float, now: int, bits_per_square: float, unseen: float) -> int:
    """The whole number near `best` of least distance, weighed in bits, and code length.

    `unseen`: bits that any number but 0 costs besides.
    """
    near = max(min(round(best), LARGEST), -LARGEST)
    shorter = (1 << max(abs(near).bit_length() - 1, 0)) - 1  # the largest of the next shorter code
    tried = (now, near, shorter if near > 0 else -shorter, 0)
    costs = [
        bits_per_square * (number - best) ** 2
        + 2 * abs(number).bit_length()
        + 1
        + (unseen if number else 0.0)
        for number in tried
    ]
    return tried[costs.index(min(costs))]


def look_at(
    sums: NormalEquations, transforms: Transforms, used: Rotation, codes: Coder,
    symbols: Sequence[Integers], index: int, picture: Picture, tile: Tile, tiles: int,
) -> None:  # fmt: skip
    """Let one of a picture's tiles have its say.

    Args:
        sums: added to.
        transforms: with the decoder.
        used: the rotation of its latent.
        codes: what will code the symbols.
        symbols: of the tile, bands (c, h, w).
        index: of the step.
        picture: uint8 (h, w, 3), the whole.
        tile: which tile.
        tiles: how many the picture has.
    """
    geometry = transforms.geometry
    top, left, bottom, right = middle(tile, picture.shape[:2], geometry.multiple, tiles)
    y, x = tile.top, tile.left
    inside = [
        band[:, (top - y) // s : (bottom - y) // s, (left - x) // s : (right - x) // s]
        for band, s in zip(symbols, (band.stride for band in geometry.bands), strict=True)
    ]
    height, width = picture.shape[:2]
    cut = (top > 0, left > 0, bottom < height, right < width)
    frame = tuple(FRAME if side else 0 for side in cut)
    latent = used.inverse_transform(codes.dequantise(inside, index))
    sums.add(transforms, latent, codes.told_step(index), picture[top:bottom, left:right], frame)


def middle(tile: Tile, shape: Sequence[int], unit: int, tiles: int) -> tuple[int, int, int, int]:
    """The part of a tile to look at: all of it, or its middle.

    The middles of many tiles are together as large as four tiles, but none is so small that
    nothing is left inside of its frame.

    Args:
        tile: of a picture.
        shape: (h, w) of the picture, not padded.
        unit: sides and places are multiples of it, px.
        tiles: how many the picture has.

    Returns:
        top, left, bottom, right in px of the padded picture.
    """
    if tiles <= WHOLE_TILES:
        return tile.top, tile.left, tile.bottom, tile.right
    ends = []
    for low, high, length in zip(
        (tile.top, tile.left), (tile.bottom, tile.right), shape, strict=True
    ):
        inside = min(high, length) - low
        wanted = max(math.sqrt(WHOLE_TILES / tiles) * inside, min(inside, 4 * FRAME))
        side = max(round(wanted / unit), 1) * unit
        start = low + max(inside - side, 0) // 2 // unit * unit
        ends.append((start, start + side))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


def numbers_of(block: bytes, geometry: Geometry) -> Numbers:
    """The numbers (5, c) of a file's block for a network.

    Raises:
        BitstreamError: the block is not one, or the network has no such layer.
    """
    if geometry.features is None:
        raise BitstreamError("the file corrects a last layer, which its model lacks")
    return unpack_correction(block, geometry.features)


def scale_of(numbers: Numbers) -> NDArray[np.float32]:
    """What `linocut.codec.transforms.Transforms.synthesis` takes, (5, c)."""
    base = np.array([1, 1, 1, 0, 0], dtype=np.float32)[:, None]
    return base + np.float32(QUANTUM) * numbers.astype(np.float32)
