"""The .lino file, version 1: fields <-> bytes. docs/bitstream.md says the same in prose.

    offset  bytes    field
    0       4        magic, "LINO"
    4       1        version, 1
    5       4        CRC-32 of everything after this field, little-endian
    9       varint   number of bytes after this field
            varint   width, px
            varint   height, px
            varint   step index: the quantisation step is 2^(index / 64) grey levels
            1        flags: bit 0 resilient, the rest 0
            8        model id: the first 8 bytes of the SHA-256 of the model
            blocks   kind (1 byte, 1..255), length (varint), bytes; the list ends with kind 0.
                     A decoder may skip even kinds that it does not know, and must refuse odd ones.
            tiles    for each tile of 1024 x 1024 px, row by row: length (varint), bytes

A varint is little-endian base 128: seven bits a byte, the high bit set on all but the last.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from linocut.errors import BitstreamError

MAGIC = b"LINO"
VERSION = 1
TILE_PX = 1024
MAX_PIXELS = 2**28
"""Largest picture a decoder accepts unless told otherwise, about 268 megapixels."""

MAX_SIDE_PX = 2**24
MAX_STEP_INDEX = 640
FLAG_RESILIENT = 1

ALPHA, ICC_PROFILE, ROTATION, EXIF, HINTS = 1, 2, 3, 4, 6
"""Kinds of blocks: alpha plane, ICC profile, rotation of the latent, EXIF, and hints (bit 0: the
picture was grey).
"""

_MUST_UNDERSTAND = frozenset({ALPHA, ROTATION})


@dataclass(frozen=True)
class LinoFile:
    """The fields of a file.

    Attributes:
        width, height: of the picture, px.
        step_index: index of the quantisation step.
        model_id: 8 bytes.
        tiles: payload of every tile, row by row.
        extras: blocks by kind.
        flags: see the module's head.
    """

    width: int
    height: int
    step_index: int
    model_id: bytes
    tiles: Sequence[bytes]
    extras: Mapping[int, bytes] = field(default_factory=dict)
    flags: int = 0

    @property
    def payload_bytes(self) -> int:
        """Bytes of all tiles together."""
        return sum(len(tile) for tile in self.tiles)


def tile_grid(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tiles."""
    return -(-height // TILE_PX), -(-width // TILE_PX)


def pack(file: LinoFile) -> bytes:
    """Fields -> bytes.

    Raises:
        BitstreamError: a field is out of range.
    """
    _require_size(file.width, file.height, MAX_SIDE_PX**2)
    rows, columns = tile_grid(file.width, file.height)
    if len(file.tiles) != rows * columns:
        raise BitstreamError(
            f"{len(file.tiles)} tiles given, "
            f"a picture of {file.width}x{file.height} has {rows * columns}"
        )
    if not 0 <= file.step_index <= MAX_STEP_INDEX or len(file.model_id) != 8:
        raise BitstreamError(
            f"step index {file.step_index} or model id {file.model_id!r} is out of range"
        )
    body = bytearray()
    for number in (file.width, file.height, file.step_index):
        body += varint(number)
    body.append(file.flags)
    body += file.model_id
    for kind, block in sorted(file.extras.items()):
        if not 1 <= kind <= 255:
            raise BitstreamError(f"block kind {kind} is outside 1..255")
        body.append(kind)
        body += varint(len(block)) + block
    body.append(0)
    for tile in file.tiles:
        body += varint(len(tile)) + tile
    checked = varint(len(body)) + bytes(body)
    return MAGIC + bytes([VERSION]) + zlib.crc32(checked).to_bytes(4, "little") + checked


def unpack(data: bytes, *, max_pixels: int = MAX_PIXELS) -> LinoFile:
    """Bytes -> fields, after checking the checksum. Allocates no more than the input's size.

    Args:
        data: a whole file.
        max_pixels: larger pictures are refused.

    Raises:
        BitstreamError: not a .lino file, another version, truncated, damaged, too large, or
        trailing bytes.
    """
    if len(data) < 4 or data[:4] != MAGIC:
        raise BitstreamError(f"not a .lino file: it begins with {data[:4]!r}, expected {MAGIC!r}")
    if len(data) < 10:
        raise BitstreamError(f"the file ends after {len(data)} bytes, inside the header")
    if data[4] != VERSION:
        raise BitstreamError(f"the file has format version {data[4]}, this decoder reads {VERSION}")
    reader = _Reader(data, 9)
    length = reader.varint("length")
    rest = len(data) - reader.position
    if rest != length:
        what = "truncated" if rest < length else "followed by trailing bytes"
        raise BitstreamError(f"the file is {what}: {rest} bytes where the header promises {length}")
    if zlib.crc32(data[9:]) != int.from_bytes(data[5:9], "little"):
        raise BitstreamError("the checksum does not match: the file is damaged")
    width, height = reader.varint("width"), reader.varint("height")
    _require_size(width, height, max_pixels)
    step_index = reader.varint("step")
    if step_index > MAX_STEP_INDEX:
        raise BitstreamError(f"step index {step_index} is above {MAX_STEP_INDEX}")
    flags = reader.take(1, "flags")[0]
    if flags & ~FLAG_RESILIENT:
        raise BitstreamError(f"unknown flags {flags:#04x}: a newer decoder is needed")
    model_id = reader.take(8, "model id")
    extras: dict[int, bytes] = {}
    while kind := reader.take(1, "block kind")[0]:
        if kind % 2 and kind not in _MUST_UNDERSTAND:
            raise BitstreamError(f"unknown block of kind {kind} that must be understood")
        if kind in extras:
            raise BitstreamError(f"block of kind {kind} occurs twice")
        extras[kind] = reader.take(reader.varint("block length"), "block")
    rows, columns = tile_grid(width, height)
    if rows * columns > len(data):
        raise BitstreamError(
            f"{len(data)} bytes cannot hold the {rows * columns} tiles of {width}x{height}"
        )
    tiles = [reader.take(reader.varint("tile length"), "tile") for _ in range(rows * columns)]
    if reader.position != len(data):
        raise BitstreamError(f"{len(data) - reader.position} bytes follow the last tile")
    return LinoFile(width, height, step_index, model_id, tiles, extras, flags)


def varint(number: int) -> bytes:
    """A non-negative number in base 128."""
    result = bytearray()
    while number >= 128:
        result.append(128 | number & 127)
        number >>= 7
    result.append(number)
    return bytes(result)


def _require_size(width: int, height: int, max_pixels: int) -> None:
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        raise BitstreamError(
            f"a picture of {width}x{height} px is outside 1..{MAX_SIDE_PX} px a side"
        )
    if width * height > max_pixels:
        raise BitstreamError(
            f"a picture of {width}x{height} px has {width * height} pixels, "
            f"the limit is {max_pixels}"
        )


class _Reader:
    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def take(self, count: int, what: str) -> bytes:
        if count > len(self.data) - self.position:
            raise BitstreamError(f"the {what} of {count} bytes reaches beyond the end of the file")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self, what: str) -> int:
        number = shift = 0
        while True:
            byte = self.take(1, what)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 35:
                raise BitstreamError(f"the {what} is a number of more than 42 bits")
