"""The .lino file, version 1: fields <-> bytes. docs/bitstream.md says the same in prose.

This is the plain layout, `linocut.format.resilient` has the other; `pack` and `unpack` serve both.

    offset  bytes    field
    0       4        magic, "LINO"
    4       1        version, 1
    5       4        CRC-32 of everything after this field, little-endian
    9       varint   number of bytes after this field
            varint   width, px
            varint   height, px
            varint   step index: the quantisation step is 2^(index / 64) grey levels
            1        flags, all 0
            8        model id: the first 8 bytes of the SHA-256 of the model
            blocks   kind (1 byte, 1..255), length (varint), bytes; the list ends with kind 0.
                     A decoder may skip even kinds that it does not know, and must refuse odd ones.
            tiles    for each tile of 1024 x 1024 px, row by row: length (varint), bytes

A varint is little-endian base 128: seven bits a byte, the high bit set on all but the last.
"""

import zlib

from linocut.errors import BitstreamError
from linocut.format import resilient as resilient_file
from linocut.format.lino_file import (
    ALPHA,
    CORRECTION,
    EXIF,
    HINTS,
    ICC_PROFILE,
    MAGIC,
    MAX_PIXELS,
    MAX_SIDE_PX,
    MAX_STEP_INDEX,
    MUST_UNDERSTAND,
    ROTATION,
    TILE_PX,
    VERSION,
    LinoFile,
    Reader,
    Resilience,
    Segment,
    require_size,
    tile_grid,
    varint,
)

__all__ = [
    "ALPHA", "CORRECTION", "EXIF", "HINTS", "ICC_PROFILE", "MAGIC", "MAX_PIXELS", "MAX_SIDE_PX",
    "MAX_STEP_INDEX", "ROTATION", "TILE_PX", "VERSION", "LinoFile", "Resilience", "Segment",
    "header_bytes", "looks_like_lino", "pack", "tile_grid", "unpack", "varint",
]  # fmt: skip

_TOLERATED_BITS = 6
"""Of the 40 of magic and version, in a file of the resilient layout."""


def pack(file: LinoFile) -> bytes:
    """Fields -> bytes.

    Raises:
        BitstreamError: a field is out of range.
    """
    require_size(file.width, file.height, MAX_SIDE_PX**2)
    rows, columns = tile_grid(file.width, file.height)
    tiles = file.resilience.segments if file.resilience else file.tiles
    if len(tiles) != rows * columns:
        raise BitstreamError(
            f"{len(tiles)} tiles given, "
            f"a picture of {file.width}x{file.height} has {rows * columns}"
        )
    if not 0 <= file.step_index <= MAX_STEP_INDEX or len(file.model_id) != 8:
        raise BitstreamError(
            f"step index {file.step_index} or model id {file.model_id!r} is out of range"
        )
    for kind in file.extras:
        if not 1 <= kind <= 255:
            raise BitstreamError(f"block kind {kind} is outside 1..255")
    if file.resilience:
        return resilient_file.pack(file)
    body = bytearray()
    for number in (file.width, file.height, file.step_index):
        body += varint(number)
    body.append(0)
    body += file.model_id
    for kind, block in sorted(file.extras.items()):
        body.append(kind)
        body += varint(len(block)) + block
    body.append(0)
    for tile in file.tiles:
        body += varint(len(tile)) + tile
    checked = varint(len(body)) + bytes(body)
    return MAGIC + bytes([VERSION]) + zlib.crc32(checked).to_bytes(4, "little") + checked


def looks_like_lino(start: bytes) -> bool:
    """Whether bytes begin like a file of either layout; in the resilient one bits may be wrong."""
    mark = int.from_bytes(start[:5]) ^ int.from_bytes(resilient_file.MARK)
    return start[:4] == MAGIC or (len(start) > 4 and mark.bit_count() <= _TOLERATED_BITS)


def header_bytes(data: bytes) -> int:
    """Length of what an undamaged file holds before its blocks and payload."""
    resilient = resilient_file.header_bytes(data)
    if resilient is not None:
        return resilient
    reader = Reader(data, 9)
    for what in ("length", "width", "height", "step"):
        reader.varint(what)
    return reader.position + 9


def unpack(data: bytes, *, max_pixels: int = MAX_PIXELS) -> LinoFile:
    """Bytes -> fields, of either layout. Allocates no more than a few times the input's size.

    Args:
        data: a whole file; in the resilient layout it may be damaged or end early.
        max_pixels: larger pictures are refused.

    Raises:
        BitstreamError: not a .lino file, another version, truncated, damaged, too large, or
        trailing bytes.
    """
    plain = None
    if data[:5] == MAGIC + bytes([VERSION]):
        try:
            return _unpack_plain(data, max_pixels)
        except BitstreamError as error:
            plain = error
    header = resilient_file.header_of(data)
    if header is not None:
        return resilient_file.unpack(data, header, max_pixels)
    if plain is not None:
        raise plain
    if data[:5] == resilient_file.MARK:
        raise BitstreamError("the header of the resilient file is damaged beyond repair")
    return _unpack_plain(data, max_pixels)


def _unpack_plain(data: bytes, max_pixels: int) -> LinoFile:
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
    reader = Reader(data, 9)
    length = reader.varint("length")
    rest = len(data) - reader.position
    if rest != length:
        what = "truncated" if rest < length else "followed by trailing bytes"
        raise BitstreamError(f"the file is {what}: {rest} bytes where the header promises {length}")
    if zlib.crc32(data[9:]) != int.from_bytes(data[5:9], "little"):
        raise BitstreamError("the checksum does not match: the file is damaged")
    width, height = reader.varint("width"), reader.varint("height")
    require_size(width, height, max_pixels)
    step_index = reader.varint("step")
    if step_index > MAX_STEP_INDEX:
        raise BitstreamError(f"step index {step_index} is above {MAX_STEP_INDEX}")
    flags = reader.take(1, "flags")[0]
    if flags:
        raise BitstreamError(f"unknown flags {flags:#04x}: a newer decoder is needed")
    model_id = reader.take(8, "model id")
    extras: dict[int, bytes] = {}
    while kind := reader.take(1, "block kind")[0]:
        if kind % 2 and kind not in MUST_UNDERSTAND:
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
    return LinoFile(width, height, step_index, model_id, tiles, extras)
