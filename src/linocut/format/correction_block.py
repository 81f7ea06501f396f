"""The numbers of a correction (`linocut.codec.correction`) as a block of a file.

Row by row. A row is a bit 0 where all its numbers are zero, else 1 and its numbers. A number is a
bit 0 where it is zero, else 1, its sign (1: negative) and its magnitude in Elias's gamma code. Bits
fill bytes from the highest down, the last one padded with zeros.
"""

import numpy as np
from numpy.typing import NDArray

from linocut.errors import BitstreamError
from linocut.lab.networks.networks import Network

LARGEST = 127
ROWS = 5
"""The three colours, luma in quiet places, luma in busy ones."""

Numbers = NDArray[np.int8]


def code_lengths(numbers: NDArray[np.integer]) -> NDArray[np.int64]:
    """Bits of every number in a file."""
    octave = np.floor(np.log2(np.maximum(np.abs(numbers), 1))).astype(np.int64)
    return np.where(numbers == 0, 1, 3 + 2 * octave)


def pack(numbers: Numbers) -> bytes:
    """Numbers (5, c) -> a block."""
    bits = ""
    for row in numbers.tolist():
        bits += "1" if any(row) else "0"
        for number in row if any(row) else ():
            magnitude = f"{abs(number):b}"
            bits += f"1{int(number < 0)}{'0' * (len(magnitude) - 1)}{magnitude}" if number else "0"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)


def unpack(block: bytes, network: Network) -> Numbers:
    """A block -> numbers (5, c) for the network.

    Raises:
        BitstreamError: the block is not one, or the network has no such layer.
    """
    if network.last_layer is None:
        raise BitstreamError(
            f"the file corrects a last layer, which the architecture {network.architecture} lacks"
        )
    channels = network.last_layer.in_channels
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
