"""What the blocks of a file hold, as bytes: alpha, metadata, a correction, a whole picture.

Alpha, without loss:

    byte 0     method
    method 0   byte 1 is the opacity of every pixel
    method 1   zlib stream of the samples, row by row
    method 2   zlib stream of the differences to the sample above, modulo 256
    method 3   zlib stream of the differences of those to the one on their left, modulo 256
    method 4   zlib stream of one bit a pixel, 1 = 255 and 0 = 0, rows padded to whole bytes

The row above the first and the column left of the first are zero. The encoder keeps the smallest.

ICC profile and EXIF: size as u32, little-endian, then a zlib stream of that size.

A picture without loss: what the VP8L chunk of a WebP file holds (RFC 9649), without alpha.

The numbers of a correction (`linocut.codec.correction`), row by row: a row is a bit 0 where all its
numbers are zero, else 1 and its numbers. A number is a bit 0 where it is zero, else 1, its sign
(1: negative) and its magnitude in Elias's gamma code. Bits fill bytes from the highest down, the
last one padded with zeros.
"""

from __future__ import annotations

import zlib
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from linocut.errors import BitstreamError

AlphaArray = NDArray[np.uint8]

MOST_METADATA_BYTES = 1 << 22
"""Longest ICC profile or EXIF block that is kept or accepted."""

VP8L_SIDE_PX, VP8L_PIXELS = (1 << 14) - 1, 1 << 27
"""Longest side and largest area of a picture that is kept without loss; Pillow reads no larger."""

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


def pack_metadata(content: bytes) -> bytes:
    """A profile or EXIF of at most `MOST_METADATA_BYTES`, compressed."""
    return len(content).to_bytes(4, "little") + zlib.compress(content, 9)


def unpack_metadata(block: bytes, what: str) -> bytes:
    """What `pack_metadata` packed.

    Args:
        block: of a file.
        what: how error messages call it.

    Raises:
        BitstreamError: damaged, or too long.
    """
    size = int.from_bytes(block[:4], "little")
    if len(block) < 4 or size > MOST_METADATA_BYTES:
        raise BitstreamError(
            f"{what} block claims {size} bytes, expected at most {MOST_METADATA_BYTES}"
        )
    return inflate(block[4:], size, what)


def pack_lossless(rgb: NDArray[np.uint8]) -> bytes | None:
    """Colours (h, w, 3) uint8 exactly, or None: too large, or Pillow was built without WebP."""
    from PIL import Image, features

    height, width = rgb.shape[:2]
    if max(height, width) > VP8L_SIDE_PX or height * width > VP8L_PIXELS:
        return None
    if not features.check("webp"):
        return None
    file = BytesIO()
    Image.fromarray(rgb).save(file, "WEBP", lossless=True, quality=75, method=4)
    content = file.getvalue()
    if content[12:16] != b"VP8L":
        return None
    return content[20 : 20 + int.from_bytes(content[16:20], "little")]


def unpack_lossless(block: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """The colours (height, width, 3) uint8 that `pack_lossless` packed.

    Raises:
        BitstreamError: the block is damaged or holds another picture.
    """
    from PIL import Image, features
    from PIL.WebPImagePlugin import WebPImageFile  # `Image.open` would warn of large ones

    if not features.check("webp"):
        raise BitstreamError("the picture is kept as WebP, which this Pillow was built without")
    sides = int.from_bytes(block[1:5], "little")
    found = ((sides >> 14 & 0x3FFF) + 1, (sides & 0x3FFF) + 1)
    if len(block) < 5 or block[0] != 0x2F or found != (height, width):
        raise BitstreamError(
            f"the lossless block of {len(block)} bytes holds no picture of {width}x{height} px"
        )
    chunk = b"VP8L" + len(block).to_bytes(4, "little") + block + bytes(len(block) % 2)
    riff = b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk
    try:
        with WebPImageFile(BytesIO(riff)) as image:
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BitstreamError(f"the lossless block is damaged: {error}") from None


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
