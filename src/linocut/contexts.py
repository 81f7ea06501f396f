"""What the coder knows before each symbol: integer contexts of what is already decoded.

A latent is coded plane by plane (one channel of one band), coarse to fine, and every plane in
passes over its
polyphase grid, so that each pass is one vectorised step and sees the earlier passes on all sides:

    detail planes, 4 passes         smooth planes: the same refinement from a grid of 8 down to 1,
    0 2 0 2                         each value predicted from the four nearest of the coarser grid
    3 1 3 1
    0 2 0 2

The context of a detail symbol is sum_k w_k f_k in integers: f_k are magnitudes already known (own
neighbours, parent,
sibling planes of the same stride), w_k integer weights fitted on training latents. It predicts the
mean magnitude,
in units of 1/256; its logarithm picks the probability table. Nothing here is floating point.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linocut.latents import Band

Integers = NDArray[np.int32]

PASSES = ((0, 0), (1, 1), (0, 1), (1, 0))
SMOOTH_GRID = 8
LARGEST_MAGNITUDE = 255
"""Magnitudes are capped here before they enter a context."""

WEIGHT_UNIT = 256
BINS = 28
THRESHOLDS: Integers = np.array(
    [round(float(WEIGHT_UNIT * 0.01 * 2 ** (0.45 * i))) for i in range(BINS - 1)], dtype=np.int32
)
"""Bin b holds contexts in THRESHOLDS[b-1] <= context < THRESHOLDS[b]: 0.01 to 33 of mean magnitude.
"""

_BIN_OF = np.searchsorted(THRESHOLDS, np.arange(THRESHOLDS[-1] + 1), side="right").astype(np.uint8)

OWN_FEATURES = ("horizontal", "vertical", "diagonal", "ring")
MARGIN = 2


@dataclass(frozen=True)
class Plane:
    """One channel of one band.

    Attributes:
        band: index of the band; channel: index within it.
        smooth: coded by prediction from a coarser grid.
        parents: planes one level coarser, seen at half resolution.
        siblings: earlier planes of the same stride.
    """

    band: int
    channel: int
    smooth: bool
    parents: tuple[int, ...]
    siblings: tuple[int, ...]

    @property
    def features(self) -> int:
        """Number of context features: 2 constants, the own ones, 2 for each parent and sibling."""
        return 2 + len(OWN_FEATURES) + 2 * (len(self.parents) + len(self.siblings))


def planes_of(bands: Sequence[Band]) -> tuple[Plane, ...]:
    """The planes of a latent in coding order."""
    first = np.cumsum([0, *(band.channels for band in bands)])
    planes: list[Plane] = []
    for index, band in enumerate(bands):
        for channel in range(band.channels):
            parents: tuple[int, ...] = ()
            if band.parent is not None:
                parents = tuple(
                    sorted({int(first[band.parent]), int(first[band.parent]) + channel})
                )
            siblings = tuple(
                p
                for p in range(len(planes))
                if bands[planes[p].band].stride == band.stride and not planes[p].smooth
            )
            planes.append(Plane(index, channel, band.smooth, parents, siblings[-11:]))
    return tuple(planes)


def plane_passes(plane: Plane, shape: tuple[int, int]) -> Iterator[tuple[int, slice, slice]]:
    """Passes of a plane as (kind, rows, columns), without empty ones; kinds 0..3 are PASSES."""
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
            yield kind, slice(dy, None, size), slice(dx, None, size)


def smooth_prediction(values: Integers, kind: int, rows: slice, columns: slice) -> Integers:
    """Prediction of one pass of a smooth plane from the grid points already known.

    Args:
        values: the plane (h, w), known where earlier passes went.
        rows: of the pass.
        columns: of the pass.
        kind: pass kind; 0 predicts zero, 1 the four diagonal neighbours' mean, 2 and 3 the four
            straight ones'.
    """
    height, width = values.shape
    ys, xs = np.arange(height)[rows], np.arange(width)[columns]
    if kind == 0:
        return np.zeros((len(ys), len(xs)), dtype=np.int32)
    half = int(rows.step) // 2
    offsets = (
        ((-1, -1), (-1, 1), (1, -1), (1, 1)) if kind == 1 else ((-1, 0), (1, 0), (0, -1), (0, 1))
    )
    total = np.zeros((len(ys), len(xs)), dtype=np.int64)
    known = np.zeros((len(ys), len(xs)), dtype=np.int64)
    for dy, dx in offsets:
        y, x = ys + dy * half, xs + dx * half
        inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
        total += np.where(inside, values[np.clip(y, 0, height - 1)][:, np.clip(x, 0, width - 1)], 0)
        known += inside
    mean: Integers = ((2 * total + known) // (2 * np.maximum(known, 1))).astype(np.int32)
    return mean


_INVERSE_STEP = [round(2**18 * 2 ** (-i / 64)) for i in range(64)]


def inverse_step(step_index: int) -> int:
    """2^18 / step in integers: expected magnitudes go with it where nothing else is known."""
    octave, rest = divmod(step_index, 64)
    return _INVERSE_STEP[rest] >> octave >> 6


class ContextState:
    """Magnitudes decoded so far, and the features of each pass derived from them.

    Args:
        planes: the layout.
        shapes: (h, w) of every plane.
        step_index: index of the quantisation step.
    """

    def __init__(
        self, planes: Sequence[Plane], shapes: Sequence[tuple[int, int]], step_index: int
    ) -> None:
        self.planes = tuple(planes)
        self.shapes = tuple(shapes)
        self.step_index = step_index
        self._boxes: dict[int, Integers] = {}
        self._magnitudes: dict[int, Integers] = {}
        self._own: Integers = np.zeros((0, 0), dtype=np.int32)

    def open(self, index: int) -> None:
        """Begin plane `index`."""
        height, width = self.shapes[index]
        self._own = np.zeros((height + 2 * MARGIN + 1, width + 2 * MARGIN + 1), dtype=np.int32)

    def put(self, rows: slice, columns: slice, symbols: Integers) -> None:
        """Make a decoded pass known."""
        inner = self._own[MARGIN : -MARGIN - 1, MARGIN : -MARGIN - 1]
        inner[rows, columns] = np.minimum(np.abs(symbols), LARGEST_MAGNITUDE)

    def close(self, index: int) -> None:
        """End plane `index`: later planes see it as parent or sibling."""
        own = self._own
        self._magnitudes[index] = own[MARGIN : -MARGIN - 1, MARGIN : -MARGIN - 1]
        rows = own[1:-2] + own[:-3] + own[2:-1]
        self._boxes[index] = (rows[:, 1:-2] + rows[:, :-3] + rows[:, 2:-1])[1:-1, 1:-1]

    def features(self, index: int, kind: int, rows: slice, columns: slice) -> list[Integers | int]:
        """Features of one pass in a fixed order; scalars stand for constant arrays.

        Returns:
            `Plane.features` entries, each an int or an array of the pass's shape.
        """
        plane = self.planes[index]
        height, width = self.shapes[index]
        result: list[Integers | int] = [1, inverse_step(self.step_index)]
        y, x = rows.start, columns.start

        def at(dy: int, dx: int) -> Integers:
            top, left = MARGIN + y + dy, MARGIN + x + dx
            return self._own[top : top + height - y : 2, left : left + width - x : 2]

        if kind == 0:
            result += [0, 0, 0, 0]
        else:
            diagonal = at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1) if kind != 2 else 0
            horizontal = at(0, -1) + at(0, 1) if kind != 1 else 0
            vertical = at(-1, 0) + at(1, 0) if kind != 1 else 0
            if kind == 1:
                ring: Integers | int = 0
            elif kind == 2:
                ring = at(-2, -1) + at(-2, 1) + at(2, -1) + at(2, 1)
                ring = ring + at(-1, -2) + at(-1, 2) + at(1, -2) + at(1, 2)
            else:
                ring = at(-1, -2) + at(-1, 2) + at(1, -2) + at(1, 2)
                ring = ring + at(-2, -1) + at(-2, 1) + at(2, -1) + at(2, 1)
            result += [horizontal, vertical, diagonal, ring]
        for parent in plane.parents:
            for source in (self._magnitudes[parent], self._boxes[parent]):
                result.append(_half_resolution(source, y, x, height, width))
        for sibling in plane.siblings:
            for source in (self._magnitudes[sibling], self._boxes[sibling]):
                result.append(source[rows, columns])
        return result


def _half_resolution(source: Integers, y: int, x: int, height: int, width: int) -> Integers:
    """Values of a plane of half the size at the places of a grid that starts at y, x."""
    return source[: (height - y + 1) // 2, : (width - x + 1) // 2]


def context_sum(
    features: Sequence[Integers | int], weights: Integers, shape: tuple[int, int]
) -> Integers:
    """sum_k w_k f_k, an int32 array of the pass's shape; features of weight zero cost nothing."""
    constant = 0
    total = np.zeros(shape, dtype=np.int32)
    for feature, weight in zip(features, weights.tolist(), strict=True):
        if weight == 0:
            continue
        if isinstance(feature, int):
            constant += feature * weight
        else:
            total += feature * np.int32(weight)
    total += np.int32(min(constant, 2**28))
    return total


def context_bins(contexts: Integers) -> NDArray[np.uint8]:
    """Table index of every context, 0 .. BINS - 1."""
    bins: NDArray[np.uint8] = _BIN_OF[np.minimum(contexts, THRESHOLDS[-1])]
    return bins


def smooth_bin(kind: int, step_index: int) -> int:
    """Table index of a whole pass of a smooth plane: its kind and the octave of the step."""
    return min(step_index // 64, BINS // 3 - 1) * 3 + min(kind, 2)
