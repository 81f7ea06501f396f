"""What the coder knows before each symbol, and the small networks that choose a table from it.

    known symbols --levels--> context (inputs, n) --network--> (n,), which names a table of each

The context of a detail symbol is a vector of levels: logarithms, in sixteenths of an octave, of
magnitudes around it in its own plane, in its parents and in its siblings. That of a sign holds
signed levels of the same places. A `ContextNetwork` turns both into the number of a probability
table:

    x (inputs, n) --first--> >> 8, 0 .. 255 --second--> >> 8, 0 .. 255 --last--> (n,)

Everything is a whole number. All sums stay below 2^24, where float32 holds every whole number: here
the products run as float32 matrix products, which are fast in numpy and exact in any order of
summation. A decoder that computes with integers gets the same numbers.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.planes import (
    DIAGONAL,
    NEIGHBOURS_IN_BAND,
    NEIGHBOURS_IN_CHANNEL,
    OTHER_SIBLINGS,
    PARENTS,
    STRAIGHT,
    Integers,
    Pass,
    Plane,
)

Levels = NDArray[np.int16]

LARGEST_MAGNITUDE = 255
"""Magnitudes are capped here before they enter a context."""

BINS = 32
"""Probability tables of a plane."""

NEAR = (*STRAIGHT, *DIAGONAL)
FAR = ((0, -2), (0, 2), (-2, 0), (2, 0))
RING = tuple((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3) if abs(dy * dx) == 2)
MARGIN = 2

MAGNITUDE_INPUTS = 8 + 2 * (PARENTS + NEIGHBOURS_IN_BAND + NEIGHBOURS_IN_CHANNEL + OTHER_SIBLINGS)
SIGN_INPUTS = 12 + 5 + 2 * (NEIGHBOURS_IN_BAND + NEIGHBOURS_IN_CHANNEL)

LARGEST_WEIGHT = 1023
LARGEST_BIAS = 1 << 22
SHIFT = 8
ACTIVATION_CAP = 255
LARGEST_WIDTH = 48
"""48 * 1023 * 255 + 2^22 < 2^24."""

_ARRAYS = ("first", "first_bias", "second", "second_bias", "last", "last_bias")


def _level_table(largest: int) -> Levels:
    """Level of every number 0 .. largest: 16 log2(1 + number), piecewise linear, in integers."""
    table = np.zeros(largest + 1, dtype=np.int16)
    for number in range(largest + 1):
        octave = (number + 1).bit_length() - 1
        table[number] = 16 * octave + ((16 * (number + 1)) >> octave) - 16
    return table


_LEVEL = _level_table(9 * LARGEST_MAGNITUDE)


def levels_of(numbers: Integers) -> Levels:
    """Level of numbers 0 .. 9 * 255; see the module."""
    levels: Levels = _LEVEL[numbers]
    return levels


def signed_levels(numbers: Integers) -> Levels:
    """The level of the magnitude, with the number's sign."""
    levels: Levels = (np.sign(numbers) * _LEVEL[np.abs(numbers)]).astype(np.int16)
    return levels


class ContextState:
    """Symbols decoded so far, and the contexts of each pass derived from them.

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
        self._step_level = step_index // 4
        self._levels: dict[int, tuple[Levels, Levels]] = {}  # of magnitudes and 3x3 sums
        self._busy: dict[int, NDArray[np.bool_]] = {}  # whether those sums are not zero
        self._signed: dict[int, tuple[Levels, NDArray[np.int8]]] = {}  # levels, signs; padded
        self._own: Integers = np.zeros((0, 0), dtype=np.int32)
        self._index = -1

    def open(self, index: int) -> None:
        """Begin plane `index`."""
        height, width = self.shapes[index]
        padded = (height + 2 * MARGIN + 1, width + 2 * MARGIN + 1)
        self._own = np.zeros(padded, dtype=np.int32)
        self._signed[index] = np.zeros(padded, np.int16), np.zeros(padded, np.int8)
        self._index = index

    def put(self, place: Pass, symbols: Integers) -> None:
        """Make a decoded pass known."""
        values = np.minimum(np.maximum(symbols, -LARGEST_MAGNITUDE), LARGEST_MAGNITUDE)
        signs = np.sign(values).astype(np.int8)
        levels = signs * levels_of(np.abs(values))
        own_levels, own_signs = self._signed[self._index]
        inside = slice(MARGIN, -MARGIN - 1)
        self._own[inside, inside][place.rows, place.columns] = values
        own_levels[inside, inside][place.rows, place.columns] = levels
        own_signs[inside, inside][place.rows, place.columns] = signs

    def close(self, index: int) -> None:
        """End plane `index`: later planes see it as parent or sibling."""
        known = np.abs(self._own)
        sums = known[1:-2] + known[:-3] + known[2:-1]
        sums = (sums[:, 1:-2] + sums[:, :-3] + sums[:, 2:-1])[1:-1, 1:-1]
        inner = known[MARGIN : -MARGIN - 1, MARGIN : -MARGIN - 1]
        self._levels[index] = levels_of(inner), levels_of(sums)
        self._busy[index] = sums > 0

    def busy(self, index: int, place: Pass) -> NDArray[np.intp]:
        """Flat places of a pass of a detail plane around which some known symbol is not zero.

        Everywhere else `magnitude_contexts` is zero but for the step. A few places more may be
        named, never fewer.
        """
        plane, shape = self.planes[index], self.shapes[index]
        y, x = place.rows.start, place.columns.start
        height, width = place.shape(shape)
        found = np.zeros((height, width), dtype=bool)
        if place.kind:
            known = self._own != 0
            rows = np.zeros((height, known.shape[1]), dtype=bool)
            for top in range(y, y + 2 * MARGIN + 1):
                rows |= known[top::2][:height]
            for left in range(x, x + 2 * MARGIN + 1):
                found |= rows[:, left::2][:, :width]
        for parent in plane.parents:
            found |= self._busy[parent][: (shape[0] - y + 1) // 2, : (shape[1] - x + 1) // 2]
        for sibling in plane.siblings:
            if sibling is not None:
                found |= self._busy[sibling][place.rows, place.columns]
        return np.flatnonzero(found)

    def magnitude_contexts(
        self, index: int, place: Pass, chosen: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Levels before some symbols of a pass of a detail plane.

        Args:
            index: of the plane.
            place: the pass.
            chosen: flat places in it, (n,).

        Returns:
            Whole numbers, (MAGNITUDE_INPUTS, n).
        """
        plane, shape = self.planes[index], self.shapes[index]
        across = place.shape(shape)[1]
        y, x = place.rows.start + chosen // across * 2, place.columns.start + chosen % across * 2
        result = np.zeros((MAGNITUDE_INPUTS, len(chosen)), dtype=np.float32)
        result[0] = self._step_level
        if place.kind:
            for slot, offsets in enumerate((STRAIGHT[:2], STRAIGHT[2:], DIAGONAL, RING)):
                magnitude, signed = self._sums(y, x, offsets)
                result[1 + slot] = levels_of(magnitude)
                if offsets is not RING:
                    result[5 + slot] = levels_of(np.abs(signed))
        for slot, parent in enumerate(plane.parents):
            at = y // 2 * self.shapes[parent][1] + x // 2
            for offset, levels in enumerate(self._levels[parent]):
                result[8 + 2 * slot + offset] = levels.take(at)
        at = y * shape[1] + x
        for slot, sibling in enumerate(plane.siblings):
            if sibling is not None:
                for offset, levels in enumerate(self._levels[sibling]):
                    result[8 + 2 * (PARENTS + slot) + offset] = levels.take(at)
        return result

    def quiet_context(self) -> NDArray[np.float32]:
        """The context of a symbol with nothing but zeros around it, (MAGNITUDE_INPUTS, 1)."""
        result = np.zeros((MAGNITUDE_INPUTS, 1), dtype=np.float32)
        result[0] = self._step_level
        return result

    def _sums(
        self, y: NDArray[np.intp], x: NDArray[np.intp], offsets: Sequence[tuple[int, int]]
    ) -> tuple[Integers, Integers]:
        """Sums of magnitudes and of symbols of the own plane at these offsets from (y, x)."""
        row = self._own.shape[1]
        at = (y + MARGIN) * row + x + MARGIN
        magnitude, signed = np.zeros(len(at), np.int32), np.zeros(len(at), np.int32)
        for dy, dx in offsets:
            values = self._own.take(at + (dy * row + dx))
            signed += values
            magnitude += np.abs(values)
        return magnitude, signed

    def sign_contexts(
        self, index: int, place: Pass, chosen: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Signed levels around some symbols of a pass of a detail plane.

        Args:
            index: of the plane.
            place: the pass.
            chosen: flat places in it, (n,).

        Returns:
            Whole numbers, (SIGN_INPUTS, n). All change sign when all known symbols do.
        """
        plane, width = self.planes[index], place.shape(self.shapes[index])[1]
        y = place.rows.start + chosen // width * place.rows.step
        x = place.columns.start + chosen % width * place.columns.step
        result = np.zeros((SIGN_INPUTS, len(chosen)), dtype=np.float32)
        levels, signs = self._signed[index]
        row = levels.shape[1]
        at = (y + MARGIN) * row + x + MARGIN
        for slot, (dy, dx) in enumerate((*NEAR, *FAR)):
            result[slot] = levels.take(at + (dy * row + dx))
        own_signs = [signs.take(at + (dy * row + dx)) for dy, dx in NEAR]
        if plane.parents:
            parent = self._signed[plane.parents[-1]][0]
            parent_row = parent.shape[1]
            parent_at = (y // 2 + MARGIN) * parent_row + x // 2 + MARGIN
            for slot, (dy, dx) in enumerate(((0, 0), *STRAIGHT)):
                result[12 + slot] = parent.take(parent_at + (dy * parent_row + dx))
        nearest = plane.siblings[: NEIGHBOURS_IN_BAND + NEIGHBOURS_IN_CHANNEL]
        for slot, sibling in enumerate(nearest):
            if sibling is not None:
                other_levels, other_signs = self._signed[sibling]
                agreement = np.zeros(len(chosen), dtype=np.int8)
                for (dy, dx), own in zip(NEAR, own_signs, strict=True):
                    agreement += own * other_signs.take(at + (dy * row + dx))
                result[17 + 2 * slot] = other_levels.take(at)
                result[18 + 2 * slot] = signed_levels(agreement * other_signs.take(at))
        return result


def smooth_bin(kind: int, step_index: int) -> int:
    """Table index of a whole pass of a smooth plane: its kind and the octave of the step."""
    return min(step_index // 64, BINS // 3 - 1) * 3 + min(kind, 2)


@dataclass(frozen=True)
class ContextNetwork:
    """Two hidden layers, the first with weights and biases of its own for every plane.

    Attributes:
        first: int16 (planes, hidden, inputs).
        first_bias: int32 (planes, 4, hidden): by plane and kind of pass.
        second: int16 (hidden, hidden).
        second_bias: int32 (hidden,).
        last: int16 (hidden,).
        last_bias: int32 (planes, 4).
    """

    first: NDArray[np.int16]
    first_bias: NDArray[np.int32]
    second: NDArray[np.int16]
    second_bias: NDArray[np.int32]
    last: NDArray[np.int16]
    last_bias: NDArray[np.int32]

    def __post_init__(self) -> None:
        if self.first.ndim != 3:
            raise ValueError(f"context network: first is {self.first.shape}, expected 3 axes")
        planes, hidden, inputs = self.first.shape
        if max(hidden, inputs) > LARGEST_WIDTH:
            raise ValueError(
                f"context network: {inputs} inputs and {hidden} hidden numbers, expected at most "
                f"{LARGEST_WIDTH}, so that every sum stays exact"
            )
        biases = {"first_bias": (planes, 4, hidden), "second_bias": (hidden,)}
        expected = {"first": self.first.shape, "second": (hidden, hidden), "last": (hidden,)}
        expected |= biases | {"last_bias": (planes, 4)}
        for name in _ARRAYS:
            array = getattr(self, name)
            if array.shape != expected[name]:
                raise ValueError(
                    f"context network: {name} is {array.shape}, expected {expected[name]}"
                )
            limit = LARGEST_BIAS if name.endswith("bias") else LARGEST_WEIGHT
            largest = int(np.abs(array.astype(np.int64)).max(initial=0))
            if largest > limit:
                raise ValueError(
                    f"context network: {name} holds {largest}, expected at most {limit}"
                )

    def tensors(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays by name, for a model's file."""
        return {f"{name}.{array}": getattr(self, array) for array in _ARRAYS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], name: str) -> "ContextNetwork":
        """What `tensors` gave.

        Raises:
            KeyError: an array is missing.
            ValueError: shapes or sizes of numbers do not fit.
        """
        return cls(*(tensors[f"{name}.{array}"] for array in _ARRAYS))

    def __call__(self, x: NDArray[np.float32], plane: int, kind: int) -> NDArray[np.int32]:
        """x (inputs, n), whole numbers of magnitude up to 255 -> (n,)."""
        return self._rest(self._scaled[0][plane] @ x, plane, kind)

    def odd(self, x: NDArray[np.float32], plane: int, kind: int) -> NDArray[np.int32]:
        """f(x) - f(-x): changes its sign when all inputs do."""
        sums = self._scaled[0][plane] @ x
        return self._rest(sums.copy(), plane, kind) - self._rest(-sums, plane, kind)

    @functools.cached_property
    def _scaled(self) -> tuple[NDArray[np.float32], ...]:
        """Both hidden layers' weights and biases as floats / 2^8, which changes no digit of any."""
        layers = (self.first, self.first_bias[..., None], self.second, self.second_bias[:, None])
        return tuple(array.astype(np.float32) * np.float32(2.0**-SHIFT) for array in layers)

    def _rest(self, sums: NDArray[np.float32], plane: int, kind: int) -> NDArray[np.int32]:
        """From the first products on; overwrites them."""
        _, first_bias, second, second_bias = self._scaled
        hidden = _activation(sums, first_bias[plane, kind])
        hidden = _activation(second @ hidden, second_bias)
        total = self.last.astype(np.float32) @ hidden + np.float32(self.last_bias[plane, kind])
        result: NDArray[np.int32] = total.astype(np.int32)
        return result


def _activation(sums: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float32]:
    sums += bias
    np.floor(sums, out=sums)
    np.clip(sums, 0.0, ACTIVATION_CAP, out=sums)
    return sums
