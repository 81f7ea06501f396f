"""What the blocks of a file hold: the alpha plane and the correction of the last layer, as bytes.

Alpha, without loss:

    byte 0     method
    method 0   byte 1 is the opacity of every pixel
    method 1   zlib stream of the samples, row by row
    method 2   zlib stream of the differences to the sample above, modulo 256
    method 3   zlib stream of the differences of those to the one on their left, modulo 256
    method 4   zlib stream of one bit a pixel, 1 = 255 and 0 = 0, rows padded to whole bytes

The row above the first and the column left of the first are zero. The encoder keeps the smallest.

The numbers of a correction (`linocut.codec.correction`), row by row: a row is a bit 0 where all its
numbers are zero, else 1 and its numbers. A number is a bit 0 where it is zero, else 1, its sign
(1: negative) and its magnitude in Elias's gamma code. Bits fill bytes from the highest down, the
last one padded with zeros.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from linocut.errors import BitstreamError

AlphaArray = NDArray[np.uint8]

Numbers = NDArray[np.int8]
"""Of a correction, (5, c)."""

LARGEST = 127
ROWS = 5
"""The three colours, luma in quiet places, luma in busy ones."""

_CONSTANT, _PLAIN, _DOWN, _PLANE, _BITS = range(5)


def pack_alpha(alpha: AlphaArray) -> bytes:
    """Opacity (h, w) uint8 as bytes."""
    first = int(alpha.flat[0])
    if (alpha == first).all():
        return bytes([_CONSTANT, first])
    if np.isin(alpha, (0, 255)).all():
        return bytes([_BITS]) + zlib.compress(np.packbits(alpha > 0, axis=1).tobytes(), 9)
    down = np.diff(alpha, axis=0, prepend=np.uint8(0))
    plane = np.diff(down, axis=1, prepend=np.uint8(0))
    streams = [
        bytes([method]) + zlib.compress(np.ascontiguousarray(samples).data, 9)
        for method, samples in ((_PLAIN, alpha), (_DOWN, down), (_PLANE, plane))
    ]
    return min(streams, key=len)


def unpack_alpha(data: bytes, height: int, width: int) -> AlphaArray:
    """The opacity (height, width) uint8 that `pack_alpha` packed.

    Raises:
        BitstreamError: the bytes are not what `pack_alpha` writes for that size.
    """
    if not data:
        raise BitstreamError("alpha block is empty, expected a method and samples")
    method = data[0]
    if method == _CONSTANT:
        if len(data) != 2:
            raise BitstreamError(f"constant alpha has {len(data)} bytes, expected 2")
        return np.full((height, width), data[1], np.uint8)
    if method > _BITS:
        raise BitstreamError(f"alpha method is {method}, expected 0 to {_BITS}")
    row = (width + 7) // 8 if method == _BITS else width
    rows = np.frombuffer(inflate(data[1:], height * row, "alpha"), np.uint8).reshape(height, row)
    if method == _BITS:
        return np.unpackbits(rows, axis=1, count=width) * np.uint8(255)
    if method == _PLANE:
        rows = np.cumsum(rows, axis=1, dtype=np.uint8)
    if method in {_DOWN, _PLANE}:
        rows = np.cumsum(rows, axis=0, dtype=np.uint8)
    return rows.copy()


def code_lengths(numbers: NDArray[np.integer]) -> NDArray[np.int64]:
    """Bits of every number in a file."""
    octave = np.floor(np.log2(np.maximum(np.abs(numbers), 1))).astype(np.int64)
    return np.where(numbers == 0, 1, 3 + 2 * octave)


def pack_correction(numbers: Numbers) -> bytes:
    """Numbers (5, c) -> a block."""
    bits = ""
    for row in numbers.tolist():
        bits += "1" if any(row) else "0"
        for number in row if any(row) else ():
            magnitude = f"{abs(number):b}"
            bits += f"1{int(number < 0)}{'0' * (len(magnitude) - 1)}{magnitude}" if number else "0"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)


def unpack_correction(block: bytes, channels: int) -> Numbers:
    """A block -> numbers (5, c), c being the channels that the last layer reads.

    Raises:
        BitstreamError: the block is not one.
    """
    if 8 * len(block) > ROWS * (1 + channels * (2 + 2 * LARGEST.bit_length())) + 7:
        raise BitstreamError(
            f"the correction has {len(block)} bytes, too many for {ROWS * channels} numbers"
        )
    bits = _Bits(block)
    rows = [
        [bits.number() for _ in range(channels)] if bits.take() else [0] * channels
        for _ in range(ROWS)
    ]
    bits.end()
    return np.array(rows, dtype=np.int8)


def inflate(data: bytes, size: int, what: str) -> bytes:
    """Decompress one zlib stream that must hold exactly `size` bytes; memory stays within that.

    Raises:
        BitstreamError: damaged, shorter, longer, or followed by other bytes.
    """
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, size + 1)
    except zlib.error as error:
        raise BitstreamError(f"{what} block is damaged: {error}") from None
    if len(plain) != size or not stream.eof or stream.unused_data:
        raise BitstreamError(f"{what} block does not hold exactly the {size} bytes expected")
    return plain


class _Bits:
    """Takes bits off the front of a block."""

    def __init__(self, block: bytes) -> None:
        self._bits, self._position = "".join(f"{byte:08b}" for byte in block), 0
        self._name = f"the correction of {len(block)} bytes"

    def take(self) -> bool:
        """The next bit."""
        self._position += 1
        if self._position > len(self._bits):
            raise BitstreamError(f"{self._name} is cut off")
        return self._bits[self._position - 1] == "1"

    def number(self) -> int:
        """The next number."""
        if not self.take():
            return 0
        negative, digits, magnitude = self.take(), 0, 1
        while not self.take():
            digits += 1
        if digits >= LARGEST.bit_length():
            raise BitstreamError(f"{self._name} holds a number beyond {LARGEST}")
        for _ in range(digits):
            magnitude = 2 * magnitude + self.take()
        return -magnitude if negative else magnitude

    def end(self) -> None:
        """Nothing but padding may be left."""
        rest = self._bits[self._position :]
        if len(rest) > 7 or "1" in rest:
            raise BitstreamError(f"{self._name} is followed by others")
