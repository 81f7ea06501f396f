"""The alpha channel of a picture as bytes, without loss.

    byte 0     method
    method 0   byte 1 is the opacity of every pixel
    method 1   zlib stream of the samples, row by row
    method 2   zlib stream of the differences to the sample above, modulo 256
    method 3   zlib stream of the differences of those to the one on their left, modulo 256
    method 4   zlib stream of one bit a pixel, 1 = 255 and 0 = 0, rows padded to whole bytes

The row above the first and the column left of the first are zero. The encoder keeps the smallest.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from linocut.errors import BitstreamError

AlphaArray = NDArray[np.uint8]

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
