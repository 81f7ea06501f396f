"""Symbols in codes of B bits each: what a file of `ncode` holds in place of entropy-coded symbols.

    latent in -128 .. 128 --2^B cells of one width--> symbols --plane by plane--> bytes

The width is the step, 2^(8 - B), so the file's step index says what B is. Symbol k is the cell from
k * step to (k + 1) * step, k from -2^(B-1) to 2^(B-1) - 1; its code is k + 2^(B-1), most
significant bit first, plane by plane and row by row. The rate does not depend on the picture, and a
wrong bit changes one sample.

Source: Santurkar, Budden, Shavit, "Generative compression", PCS 2018.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.planes import STEPS_PER_OCTAVE, Band, Integers, planes_of, step_of
from linocut.errors import BitstreamError

HALF_RANGE = 128.0
"""Latents lie within this on both sides of zero, grey levels."""

MOST_BITS = 8


def index_of(bits: int) -> int:
    """Index of the step that gives codes of so many bits."""
    return STEPS_PER_OCTAVE * (MOST_BITS - bits)


def bits_of(step_index: int) -> int:
    """Bits of a code.

    Raises:
        BitstreamError: no number of bits has this step.
    """
    bits, odd = divmod(MOST_BITS * STEPS_PER_OCTAVE - step_index, STEPS_PER_OCTAVE)
    if odd or not 1 <= bits <= MOST_BITS:
        raise BitstreamError(
            f"step index {step_index} is not that of codes of 1 to {MOST_BITS} bits"
        )
    return bits


class FixedCodes:
    """Encodes and decodes the symbols of one latent, where others have an `EntropyCoder`.

    Args:
        bands: the latent's bands.
    """

    layered = False
    priced = False

    def __init__(self, bands: Sequence[Band]) -> None:
        self.bands = tuple(bands)
        self.planes = planes_of(bands)

    def nearest_index(self, step_index: int) -> int:
        """The index, of those that a number of bits has, that is nearest to another."""
        bits = MOST_BITS - round(step_index / STEPS_PER_OCTAVE)
        return index_of(min(max(bits, 1), MOST_BITS))

    def dequantise(
        self, symbols: Sequence[NDArray[np.integer[Any]]], step_index: int
    ) -> list[NDArray[np.float32]]:
        """Cells -> their lower ends, grey levels."""
        step = np.float32(step_of(step_index))
        return [band.astype(np.float32) * step for band in symbols]

    def told_step(self, step_index: int) -> float:
        """The width of the cells."""
        return step_of(step_index)

    def quantise(self, latent: Sequence[NDArray[np.float32]], step_index: int) -> list[Integers]:
        """Latent (c, h, w) of every band -> the cells in which its samples lie."""
        half = 1 << bits_of(step_index) >> 1
        scale = np.float32(half / HALF_RANGE)
        cells = [np.floor(band * scale).astype(np.int32) for band in latent]
        return [np.clip(band, -half, half - 1) for band in cells]

    def optimise(
        self, latent: Sequence[NDArray[np.float32]], step_index: int, _price: float
    ) -> tuple[list[Integers], None]:
        """`quantise`, for all codes cost as much; nothing is learned on the way."""
        return self.quantise(latent, step_index), None

    def encode_counted(
        self, latent: Sequence[Integers], step_index: int, _bins: object = None
    ) -> tuple[bytes, NDArray[np.float64]]:
        """Symbols (c, h, w) of every band -> bytes, and the bits of every plane."""
        bits = bits_of(step_index)
        half = 1 << bits >> 1
        codes = np.concatenate([band.ravel() for band in latent]) + half
        places = np.arange(bits - 1, -1, -1)
        packed: bytes = np.packbits((codes[:, None] >> places & 1).astype(np.uint8)).tobytes()
        return packed, self.estimate_bits(latent, step_index)

    def estimate_bits(
        self, latent: Sequence[Integers], step_index: int, _bins: object = None
    ) -> NDArray[np.float64]:
        """Bits of every plane, (planes,)."""
        sizes = [plane.size for band in latent for plane in band]
        return np.array(sizes, dtype=np.float64) * bits_of(step_index)

    def decode(
        self, data: bytes, height: int, width: int, step_index: int, bands: int | None = None
    ) -> list[Integers]:
        """Bytes -> symbols, int32 (c, h, w) for every band.

        Args:
            data: what `encode_counted` gave; wrong bits in it are wrong symbols and nothing else.
            height: of the padded picture, px.
            width: of the padded picture, px.
            step_index: as given to `encode`.
            bands: None; codes of fixed length are decoded as a whole.

        Raises:
            BitstreamError: the bytes are not as many as such a latent has.
        """
        if bands is not None:
            raise BitstreamError("codes of fixed length have no resilient layout")
        bits = bits_of(step_index)
        shapes = [(b.channels, height // b.stride, width // b.stride) for b in self.bands]
        sizes = [int(np.prod(shape)) for shape in shapes]
        expected = -(-sum(sizes) * bits // 8)
        if len(data) != expected:
            raise BitstreamError(
                f"the payload has {len(data)} bytes, {sum(sizes)} codes of {bits} bits "
                f"have {expected}"
            )
        flat = np.unpackbits(np.frombuffer(data, np.uint8))[: sum(sizes) * bits]
        places = 1 << np.arange(bits - 1, -1, -1)
        symbols = flat.reshape(-1, bits).astype(np.int32) @ places - (1 << bits >> 1)
        parts = np.split(symbols.astype(np.int32), np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
