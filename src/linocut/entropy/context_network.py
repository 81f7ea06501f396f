"""Small networks in whole numbers: the levels around a symbol -> a number that chooses its table.

    x (inputs, n) --first--> >> 8, 0 .. 255 --second--> >> 8, 0 .. 255 --last--> (n,)

All sums stay below 2^24, where float32 holds every whole number: the products run as float32 matrix
products, which are fast everywhere, and are exact in any order of summation. A decoder that
computes with integers gets the same numbers.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_WEIGHT = 1023
LARGEST_BIAS = 1 << 22
SHIFT = 8
ACTIVATION_CAP = 255
LARGEST_WIDTH = 48
"""48 * 1023 * 255 + 2^22 < 2^24."""

_ARRAYS = ("first", "first_bias", "second", "second_bias", "last", "last_bias")


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
