"""The resilient layout of a .lino file: every part protected as well as it is needed.

    bytes    part                                               Reed-Solomon parity of a codeword
    5        magic "LINO", 0x81: not needed to read the file    -
    74       header, 34 bytes                                   40
             index: blocks and layers, lengths and checksums    96
             blocks, one after the other                        64
             first, second, third layers of all segments        as the header says, 64, 32, 24

    header   version u8 | width u32 | height u32 | step index u16 | flags u8, 0 | model id 8 |
             log2 of the segment side u8 | bands in the first layer u8, in the first two u8 |
             parity of the three layers u8 x 3 | bytes of the index u32 | CRC-32 of all this
    index    for each block: kind u8, length varint, CRC-32; then 0;
             for each segment, for each layer: length varint and, unless 0, CRC-32 mod 2^24

A part that could not be repaired is as if it were not there, except header and index: a file
without them is refused. docs/bitstream.md says the same in prose.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from linocut.errors import BitstreamError
from linocut.format.bitstream import (
    MAGIC,
    MAX_STEP_INDEX,
    MUST_UNDERSTAND,
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
from linocut.format.reed_solomon import protect, protected_length, recover

MARK = MAGIC + bytes([VERSION | 0x80])
HEADER_PARITY, INDEX_PARITY, BLOCKS_PARITY = 40, 96, 64
LAYER_PARITY = (64, 32, 24)
"""What an encoder writes; 8 bits hold at most 255 - 1."""

LEAST_SEGMENT_PX = 64
LAYERS = len(LAYER_PARITY)
_HEADER = struct.Struct("<BIIHB8sBBB3BI")
_HEADER_BYTES = _HEADER.size + 4
_INDEX_START = len(MARK) + _HEADER_BYTES + HEADER_PARITY


def pack(file: LinoFile) -> bytes:
    """Fields -> bytes; the caller has checked them."""
    layout = file.resilience
    if layout is None:
        raise BitstreamError("the file has no resilient layout to write")
    index = bytearray()
    for kind, block in sorted(file.extras.items()):
        index.append(kind)
        index += varint(len(block)) + zlib.crc32(block).to_bytes(4, "little")
    index.append(0)
    layers = [bytearray() for _ in range(LAYERS)]
    for segments in layout.segments:
        for segment in segments:
            for layer, part in zip(layers, segment.layers, strict=True):
                index += varint(len(part)) + (_check(part) if part else b"")
                layer += part
    header = _HEADER.pack(
        VERSION, file.width, file.height, file.step_index, 0, file.model_id,
        layout.segment_px.bit_length() - 1, *layout.layer_bands, *LAYER_PARITY, len(index),
    )  # fmt: skip
    header += zlib.crc32(header).to_bytes(4, "little")
    parts = [MARK, protect(header, HEADER_PARITY), protect(bytes(index), INDEX_PARITY)]
    blocks = b"".join(block for _, block in sorted(file.extras.items()))
    parts.append(protect(blocks, BLOCKS_PARITY))
    parts += [
        protect(bytes(layer), parity) for layer, parity in zip(layers, LAYER_PARITY, strict=True)
    ]
    return b"".join(parts)


def header_of(data: bytes) -> bytes | None:
    """The repaired header, or None: this is no file of the resilient layout."""
    area = data[len(MARK) : _INDEX_START]
    if len(area) < _INDEX_START - len(MARK):
        return None
    header, sound, _ = recover(area, _HEADER_BYTES, HEADER_PARITY)
    checked = header[: _HEADER.size], header[_HEADER.size :]
    if not sound.all() or zlib.crc32(checked[0]).to_bytes(4, "little") != checked[1]:
        return None
    return checked[0]


def header_bytes(data: bytes) -> int | None:
    """Length of the mark, the header and the index together, or None: another layout."""
    header = header_of(data)
    if header is None:
        return None
    return _INDEX_START + protected_length(_HEADER.unpack(header)[-1], INDEX_PARITY)


def unpack(data: bytes, header: bytes, max_pixels: int) -> LinoFile:
    """Bytes -> fields, as far as they could be repaired.

    Args:
        data: a whole file, or its beginning.
        header: what `header_of` gave.
        max_pixels: larger pictures are refused.

    Raises:
        BitstreamError: impossible fields, an index beyond repair, trailing bytes.
    """
    version, width, height, step, flags, model_id, log_side, *rest = _HEADER.unpack(header)
    bands, parity, index_length = (rest[0], rest[1]), rest[2:5], rest[5]
    if version != VERSION or flags:
        raise BitstreamError(
            f"the file has format version {version} and flags {flags:#04x}, "
            f"this decoder reads version {VERSION} without flags"
        )
    require_size(width, height, max_pixels)
    if (
        step > MAX_STEP_INDEX
        or not LEAST_SEGMENT_PX <= 1 << log_side <= TILE_PX
        or bands[0] > bands[1]
    ):
        raise BitstreamError(
            f"step index {step}, segments of 2^{log_side} px or layers of "
            f"{bands[0]} and {bands[1]} bands are out of range"
        )
    if not all(1 <= count <= 254 for count in parity):
        raise BitstreamError(f"parity of {parity} bytes a codeword is outside 1..254")
    areas = _Areas(data, _INDEX_START)
    index, sound = areas.take(index_length, INDEX_PARITY)
    if len(index) < index_length or not sound.all():
        raise BitstreamError("the index of the resilient file is damaged beyond repair")
    reader = Reader(index, 0)
    blocks = list(_block_entries(reader))
    counts = list(segment_counts(width, height, 1 << log_side))
    if sum(counts) * LAYERS > len(index) - reader.position:
        raise BitstreamError(
            f"an index of {len(index)} bytes cannot hold the {sum(counts)} segments "
            f"of {width}x{height}"
        )
    entries = [_layer_entry(reader) for _ in range(sum(counts) * LAYERS)]
    if reader.position != len(index):
        raise BitstreamError(f"{len(index) - reader.position} bytes follow the index")
    extras, lost = _read_blocks(areas, blocks)
    columns = [_read_layer(areas, entries[layer::LAYERS], parity[layer]) for layer in range(LAYERS)]
    if areas.position < len(data):
        raise BitstreamError(
            f"the file is followed by trailing bytes: {len(data)} bytes, expected {areas.position}"
        )
    segments = iter([_segment(parts) for parts in zip(*columns, strict=True)])
    tiles = [[next(segments) for _ in range(count)] for count in counts]
    layout = Resilience(1 << log_side, bands, tiles, areas.repaired, tuple(lost))
    return LinoFile(width, height, step, model_id, [], extras, layout)


def segment_counts(width: int, height: int, side: int) -> Iterator[int]:
    """Number of segments of each tile, row by row."""
    rows, columns = tile_grid(width, height)
    for row in range(rows):
        tall = -(-min(TILE_PX, height - row * TILE_PX) // side)
        for column in range(columns):
            yield tall * -(-min(TILE_PX, width - column * TILE_PX) // side)


class _Areas:
    """Takes protected parts off a file, and counts repairs."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position
        self.repaired = 0

    def take(self, length: int, parity: int) -> tuple[bytes, NDArray[np.bool_]]:
        """Data of the next part, shorter where the file ends early, and which bytes are sound."""
        end = self.position + protected_length(length, parity)
        result, sound, repaired = recover(self.data[self.position : end], length, parity)
        self.position = end
        self.repaired += repaired
        return result, sound


def _block_entries(reader: Reader) -> Iterator[tuple[int, int, bytes]]:
    seen = set()
    while kind := reader.take(1, "block kind")[0]:
        if kind % 2 and kind not in MUST_UNDERSTAND:
            raise BitstreamError(f"unknown block of kind {kind} that must be understood")
        if kind in seen:
            raise BitstreamError(f"block of kind {kind} occurs twice")
        seen.add(kind)
        yield kind, reader.varint("block length"), reader.take(4, "checksum of a block")


def _layer_entry(reader: Reader) -> tuple[int, bytes]:
    length = reader.varint("layer length")
    return length, reader.take(3, "checksum of a layer") if length else b""


def _read_blocks(
    areas: _Areas, entries: Sequence[tuple[int, int, bytes]]
) -> tuple[Mapping[int, bytes], list[int]]:
    content, _ = areas.take(sum(length for _, length, _ in entries), BLOCKS_PARITY)
    extras, lost = {}, []
    start = 0
    for kind, length, checksum in entries:
        block = content[start : start + length]
        start += length
        if len(block) == length and zlib.crc32(block).to_bytes(4, "little") == checksum:
            extras[kind] = block
        else:
            lost.append(kind)
    return extras, lost


def _read_layer(
    areas: _Areas, entries: Sequence[tuple[int, bytes]], parity: int
) -> list[bytes | None]:
    """One layer of every segment, None where its checksum does not match."""
    content, _ = areas.take(sum(length for length, _ in entries), parity)
    parts: list[bytes | None] = []
    start = 0
    for length, checksum in entries:
        part = content[start : start + length]
        start += length
        whole = len(part) == length and (not part or _check(part) == checksum)
        parts.append(part if whole else None)
    return parts


def _segment(parts: Sequence[bytes | None]) -> Segment:
    good = next((i for i, part in enumerate(parts) if part is None), len(parts))
    return Segment(tuple(part or b"" for part in parts), good)


def _check(part: bytes) -> bytes:
    return zlib.crc32(part).to_bytes(4, "little")[:3]
