"""What is coded, and in which order: bands of symbols, planes, and passes over each plane.

    latent (c, h, w) per band --quantise--> symbols --planes, coarse to fine--> passes of each plane

A plane is one channel of one band; planes come coarse to fine. Every plane is coded in passes over
its polyphase grid, so that each pass is one step over many symbols and sees the earlier passes on
all sides:

    detail planes, 4 passes         smooth planes: the same refinement from a grid of 8 down to 1,
    0 2 0 2                         each value predicted from the four nearest of the coarser grid
    3 1 3 1
    0 2 0 2
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from linocut.errors import DataError

Integers = NDArray[np.int32]
"""Symbols of a plane (h, w) or of a band (c, h, w)."""

Symbols = list[NDArray[np.int16]]
"""Symbols of a latent as decoders keep them: (c, h, w) for every band, cut to 16 bits."""

SPACING = 0.632
"""Distance of the levels of detail planes, in steps; see `linocut.entropy.trellis`."""

FINENESS = 0.76
"""The step of plain rounding, in steps, whose errors are about those of detail planes: what a
network that was trained on rounding is told."""

STEPS_PER_OCTAVE = 64
"""A file stores its step as an integer: step = 2^(index / 64) grey levels (1.1 % apart)."""

LARGEST_SYMBOL = 32_767
"""Largest magnitude of a symbol; the encoder clips what lies beyond."""

PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))
SMOOTH_GRID = 8

STRAIGHT = ((0, -1), (0, 1), (-1, 0), (1, 0))
DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))

NEIGHBOURS_IN_BAND = 2
"""Siblings in the same band: the two channels before."""
NEIGHBOURS_IN_CHANNEL = 2
"""Siblings of the same channel: in the two bands of the same stride before."""
OTHER_SIBLINGS = 4
PARENTS = 2


@dataclass(frozen=True)
class Band:
    """One tensor of a latent, (n, channels, h / stride, w / stride).

    Attributes:
        name: for people and tables.
        channels: c.
        stride: picture pixels per latent sample along each side.
        parent: index of the next coarser band of the same kind, or None.
        smooth: True when neighbouring values predict each other (the low-pass band of a wavelet).
    """

    name: str
    channels: int
    stride: int
    parent: int | None = None
    smooth: bool = False


def wavelet_bands(levels: int, channels: int = 3) -> tuple[Band, ...]:
    """Bands of a wavelet latent in coding order: LL, then HL, LH, HH from coarse to fine."""
    bands = [Band(f"LL{levels}", channels, 2**levels, smooth=True)]
    for level in range(levels, 0, -1):
        for orientation in ("HL", "LH", "HH"):
            parent = len(bands) - 3 if level < levels else None
            bands.append(Band(f"{orientation}{level}", channels, 2**level, parent))
    return tuple(bands)


def step_index(step: float) -> int:
    """The index of the grid step nearest to `step` (grey levels).

    Raises:
        DataError: outside 2^0 .. 2^10 grey levels.
    """
    if not 1.0 <= step <= 1024.0:
        raise DataError(f"quantisation step {step!r} is outside 1..1024 grey levels")
    return round(STEPS_PER_OCTAVE * float(np.log2(step)))


def step_of(index: int) -> float:
    """The step in grey levels of a grid index."""
    return float(2.0 ** (index / STEPS_PER_OCTAVE))


def spacing_of(step: float, smooth: bool) -> float:
    """Distance of neighbouring symbols in grey levels."""
    return step if smooth else SPACING * step


def dequantise(
    bands: Sequence[Band], symbols: Sequence[NDArray[np.integer]], step: float
) -> list[NDArray[np.float32]]:
    """Integer symbols of every band -> latent values in grey levels."""
    return [
        values.astype(np.float32) * np.float32(spacing_of(step, band.smooth))
        for band, values in zip(bands, symbols, strict=True)
    ]


@dataclass(frozen=True)
class Plane:
    """One channel of one band.

    Attributes:
        band: index of the band; channel: index within it.
        smooth: coded by prediction from a coarser grid.
        parents: planes one level coarser, seen at half resolution: channel 0 and the same channel.
        siblings: earlier planes of the same stride by role, None where there is none: the two
            channels before in the band, the same channel of the two bands before, four others.
    """

    band: int
    channel: int
    smooth: bool
    parents: tuple[int, ...]
    siblings: tuple[int | None, ...]


def planes_of(bands: Sequence[Band]) -> tuple[Plane, ...]:
    """The planes of a latent in coding order."""
    first = np.cumsum([0, *(band.channels for band in bands)]).tolist()
    planes: list[Plane] = []
    for index, band in enumerate(bands):
        peers = [i for i in range(index) if bands[i].stride == band.stride and not bands[i].smooth]
        for channel in range(band.channels):
            parents: tuple[int, ...] = ()
            if band.parent is not None:
                parents = tuple(sorted({first[band.parent], first[band.parent] + channel}))
            near = [first[index] + channel - d if channel >= d else None for d in (1, 2)]
            alike = [first[i] + channel for i in reversed(peers) if channel < bands[i].channels]
            alike = alike[:NEIGHBOURS_IN_CHANNEL]
            earlier = [first[i] + c for i in peers for c in range(bands[i].channels)]
            earlier += range(first[index], first[index] + channel)
            others = [p for p in reversed(earlier) if p not in near and p not in alike]
            siblings = [
                *near,
                *_filled(alike, NEIGHBOURS_IN_CHANNEL),
                *_filled(others, OTHER_SIBLINGS),
            ]
            if band.smooth:
                siblings = [None] * len(siblings)
            planes.append(Plane(index, channel, band.smooth, parents, tuple(siblings)))
    return tuple(planes)


def _filled(found: Sequence[int], count: int) -> list[int | None]:
    """The first `count`, and None for what is missing."""
    return [*found[:count], *[None] * (count - len(found))]


class Pass(NamedTuple):
    """One grid of a plane. kind: its place in PASSES; rows and columns: where it lies."""

    kind: int
    rows: slice
    columns: slice

    def shape(self, plane: tuple[int, int]) -> tuple[int, int]:
        """(h, w) of the pass in a plane of this shape."""
        return len(range(plane[0])[self.rows]), len(range(plane[1])[self.columns])

    def size(self, plane: tuple[int, int]) -> int:
        """Number of its symbols."""
        height, width = self.shape(plane)
        return height * width


def plane_passes(plane: Plane, shape: tuple[int, int]) -> Iterator[Pass]:
    """The passes of a plane in coding order, without empty ones."""
    height, width = shape
    if not plane.smooth:
        grids = [(kind, dy, dx, 2) for kind, (dy, dx) in enumerate(PASSES)]
    else:
        grids = [(0, 0, 0, SMOOTH_GRID)]
        size = SMOOTH_GRID
        while size > 1:
            half = size // 2
            grids += [
                (kind, dy * half, dx * half, size) for kind, (dy, dx) in enumerate(PASSES) if kind
            ]
            size = half
    for kind, dy, dx, size in grids:
        if dy < height and dx < width:
            yield Pass(kind, slice(dy, None, size), slice(dx, None, size))


def smooth_prediction(values: Integers, place: Pass) -> Integers:
    """Prediction of one pass of a smooth plane from the grid points already known.

    Args:
        values: the plane (h, w), known where earlier passes went.
        place: the pass. Kind 0 predicts zero, 1 the four diagonal neighbours' mean, 2 and 3 the
            four straight ones'.
    """
    height, width = values.shape
    ys, xs = np.arange(height)[place.rows], np.arange(width)[place.columns]
    if place.kind == 0:
        return np.zeros((len(ys), len(xs)), dtype=np.int32)
    half = int(place.rows.step) // 2
    total = np.zeros((len(ys), len(xs)), dtype=np.int64)
    known = np.zeros((len(ys), len(xs)), dtype=np.int64)
    for dy, dx in DIAGONAL if place.kind == 1 else STRAIGHT:
        y, x = ys + dy * half, xs + dx * half
        inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
        total += np.where(inside, values[np.clip(y, 0, height - 1)][:, np.clip(x, 0, width - 1)], 0)
        known += inside
    mean: Integers = ((2 * total + known) // (2 * np.maximum(known, 1))).astype(np.int32)
    return mean
