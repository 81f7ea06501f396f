"""The trained part of the entropy coder: context networks and probability tables, in integers.

Frequencies sum to 2^16, and they reach the range coder as whole numbers that it reproduces exactly:
no rounding decides a bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.contexts import BINS, MAGNITUDE_INPUTS, SIGN_INPUTS, ContextNetwork
from linocut.entropy.planes import Integers

LITERALS = 16
TOKENS = LITERALS + 2 * 13
"""Tokens 0..15 are magnitudes; 16, 17 cover 16..23 and 24..31, 18, 19 cover 32..47 and 48..63, and
so on.
"""

TOKEN_LIMIT = 1 << 17
"""Magnitudes below this have a token."""

FREQUENCY_BITS = 16

COST_UNIT = 1 << 20
"""Ideal code lengths are counted in 2^-20 bit: the same sums in any order."""

BIN_SHIFT = 13
"""A magnitude's table is its context network's output / 2^13, cut to 0 .. BINS - 1."""
SIGN_CLASSES = 4
"""Signs of symbols 1, 2, 3, and of more have tables of their own."""
SIGN_BINS = 16
SIGN_SHIFT = 13
"""A sign's bin is the magnitude of its context network's output / 2^13, at most SIGN_BINS - 1."""

Bins = NDArray[np.uint8]
"""Table indices of all symbols of a latent, plane by plane, flat."""

TOKEN_START: Integers = np.array(
    [*range(LITERALS), *((16 << i) + half * (8 << i) for i in range(13) for half in (0, 1))],
    dtype=np.int32,
)
TOKEN_EXTRA_BITS: Integers = np.array(
    [0] * LITERALS + [3 + i for i in range(13) for _ in (0, 1)], dtype=np.int32
)


_TOKEN_OF: Integers = np.repeat(np.arange(TOKENS, dtype=np.int32), [*np.diff(TOKEN_START), 1])[
    :TOKEN_LIMIT
]
"""Token of every magnitude below the start of the last interval; that interval is the rest."""


def tokens_of(magnitudes: Integers) -> Integers:
    """The token of every magnitude (0 .. 2^17 - 1)."""
    tokens: Integers = _TOKEN_OF[np.minimum(magnitudes, len(_TOKEN_OF) - 1)]
    return tokens


@dataclass(frozen=True)
class EntropyTables:
    """The trained, integer part of the entropy coder.

    Attributes:
        magnitude: levels around a symbol -> number of its table.
        sign: signed levels around it -> its likely sign, and how likely.
        frequencies: uint16 (planes, 2, BINS, TOKENS), by quantiser: every row sums to 2^16,
            no zero.
        agreement: uint16 (SIGN_CLASSES, SIGN_BINS): 2^16 times the chance that a sign is the
            predicted one.
        occupied: uint16 (planes, octaves of the step): 2^16 times the chance that a plane holds a
            symbol.
    """

    magnitude: ContextNetwork
    sign: ContextNetwork
    frequencies: NDArray[np.uint16]
    agreement: NDArray[np.uint16]
    occupied: NDArray[np.uint16]

    def __post_init__(self) -> None:
        planes = len(self.frequencies)
        expected = {
            "frequencies": (planes, 2, BINS, TOKENS),
            "agreement": (SIGN_CLASSES, SIGN_BINS),
            "occupied": (planes, *self.occupied.shape[1:2]),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"the table {name} is {found}, expected {shape}")
        for name, count in (("magnitude", MAGNITUDE_INPUTS), ("sign", SIGN_INPUTS)):
            found = getattr(self, name).first.shape
            if (found[0], found[2]) != (planes, count):
                raise ValueError(
                    f"the {name} network is for {found[0]} planes and {found[2]} inputs, "
                    f"expected {planes} and {count}"
                )
        sums = self.frequencies.astype(np.int64).sum(-1)
        if (sums != 1 << FREQUENCY_BITS).any() or (self.frequencies == 0).any():
            raise ValueError("every frequency table must be free of zeros and sum to 65536")
        if (self.agreement == 0).any() or (self.occupied == 0).any():
            raise ValueError("the tables agreement and occupied must be free of zeros")

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All arrays by name, for a model's file."""
        return {
            **self.magnitude.tensors("tables.magnitude"),
            **self.sign.tensors("tables.sign"),
            "tables.frequencies": self.frequencies,
            "tables.agreement": self.agreement,
            "tables.occupied": self.occupied,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "EntropyTables":
        """What `tensors` gave.

        Raises:
            KeyError: an array is missing.
            ValueError: shapes or numbers do not fit.
        """
        return cls(
            ContextNetwork.from_tensors(tensors, "tables.magnitude"),
            ContextNetwork.from_tensors(tensors, "tables.sign"),
            tensors["tables.frequencies"],
            tensors["tables.agreement"],
            tensors["tables.occupied"],
        )

    def occupancy(self, plane: int, step_index: int) -> int:
        """2^16 times the chance that a plane holds a symbol."""
        return int(self.occupied[plane, min(step_index // 64, self.occupied.shape[1] - 1)])

    @cached_property
    def lengths(self) -> NDArray[np.float32]:
        """Ideal bits of every token, (planes, 2, BINS, TOKENS)."""
        bits = FREQUENCY_BITS - np.log2(self.frequencies.astype(np.float64))
        return bits.astype(np.float32)

    @cached_property
    def costs(self) -> Integers:
        """Ideal cost of every token with its extra bits left out, (planes, 2, BINS, TOKENS)."""
        return _costs(self.frequencies)

    @cached_property
    def sign_costs(self) -> Integers:
        """Ideal cost of a sign that is (0) or is not (1) the likely one, (tables, 2)."""
        agrees = self.agreement.ravel().astype(np.int64)
        return _costs(np.stack([agrees, (1 << FREQUENCY_BITS) - agrees], 1))


def _costs(frequencies: NDArray[Any]) -> Integers:
    """Code lengths in 2^-20 bit."""
    bits = FREQUENCY_BITS - np.log2(frequencies.astype(np.float64))
    costs: Integers = np.rint(bits * COST_UNIT).astype(np.int32)
    return costs
