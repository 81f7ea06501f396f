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
from functools import cache

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


# --- Reed-Solomon codes over GF(256), vectorised over the codewords of a whole file ---------------
#
#     data --cut into codewords of at most 255 - parity bytes--> [data | parity] [data | parity] ...
#
# A codeword with p parity bytes is repaired when at most p / 2 of its bytes are wrong, whatever the
# number of wrong bits in each. Codewords follow each other in place: what fails stays local.
#
# Field: x^8 + x^4 + x^3 + x^2 + 1, generator 2, first consecutive root 2^0 (as in QR codes).
# Source: Berlekamp, "Algebraic Coding Theory", 1968; Massey, "Shift-register synthesis and BCH
# decoding", IEEE Trans. Inf. Theory 1969; Forney, "On decoding BCH codes", same journal 1965.

Bytes = NDArray[np.uint8]

LONGEST = 255
"""Bytes of a codeword, parity included."""

_BATCH = 256
"""Codewords that are worked on at once: at most 20 MB of products."""


def _tables() -> tuple[Bytes, NDArray[np.int64], Bytes]:
    power = np.zeros(510, dtype=np.uint8)
    logarithm = np.zeros(256, dtype=np.int64)
    value = 1
    for exponent in range(255):
        power[exponent] = power[exponent + 255] = value
        logarithm[value] = exponent
        value = value << 1 ^ (0x11D if value & 128 else 0)
    product = power[logarithm[:, None] + logarithm[None, :]]
    product[0, :] = product[:, 0] = 0
    return power, logarithm, product


POWER, _LOGARITHM, PRODUCT = _tables()
"""2^i for i < 510; products of all pairs (256, 256)."""

_PAIRS = PRODUCT.ravel()


def _times(a: Bytes, b: Bytes) -> Bytes:
    """Products in the field, with broadcasting."""
    products: Bytes = _PAIRS[a.astype(np.uint16) << 8 | b]
    return products


def protected_length(length: int, parity: int) -> int:
    """Bytes that `length` bytes take with their parity."""
    return length + parity * _codewords(length, parity)


def protect(data: bytes, parity: int) -> bytes:
    """Cut data into codewords of equal length, to within a byte, and add parity to each.

    Args:
        data: any number of bytes; none stay none.
        parity: bytes a codeword, 2 to 254.
    """
    source = np.frombuffer(data, dtype=np.uint8)
    parts = []
    start = 0
    for count, size in _shape(len(data), parity):
        words = source[start : start + count * size].reshape(count, size)
        start += count * size
        for first in range(0, count, _BATCH):
            batch = words[first : first + _BATCH]
            parts.append(np.concatenate([batch, _parity(batch, parity)], axis=1).tobytes())
    return b"".join(parts)


def recover(area: bytes, length: int, parity: int) -> tuple[bytes, NDArray[np.bool_], int]:
    """Undo `protect` on damaged bytes.

    Args:
        area: what is left of `protect`'s bytes; missing ones at the end may be just absent.
        length: of the data.
        parity: as given to `protect`.

    Returns:
        The data, shorter than `length` where `area` ends early; for each of its bytes whether its
        codeword is whole or was repaired; and the number of repaired bytes.
    """
    source = np.frombuffer(area, dtype=np.uint8)
    pieces: list[Bytes] = []
    sound: list[NDArray[np.bool_]] = []
    repaired = start = 0
    for count, size in _shape(length, parity):
        whole = min(count, (len(source) - start) // (size + parity))
        for first in range(0, whole, _BATCH):
            end = min(first + _BATCH, whole)
            at = start + first * (size + parity)
            words = source[at : at + (end - first) * (size + parity)].reshape(end - first, -1)
            fixed, good = _correct(words, parity)
            repaired += int(np.count_nonzero(fixed != words))
            pieces.append(fixed[:, :size].ravel())
            sound.append(np.repeat(good, size))
        start += whole * (size + parity)
        if whole < count:
            rest = source[start : start + size]
            pieces.append(rest)
            sound.append(np.zeros(len(rest), dtype=np.bool_))
            break
    if not pieces:
        return b"", np.zeros(0, dtype=np.bool_), 0
    return np.concatenate(pieces).tobytes(), np.concatenate(sound), repaired


def _codewords(length: int, parity: int) -> int:
    return -(-length // (LONGEST - parity))


def _shape(length: int, parity: int) -> list[tuple[int, int]]:
    """Runs of codewords as (count, data bytes of each): the longer ones, then the shorter ones."""
    count = _codewords(length, parity)
    if count == 0:
        return []
    size = -(-length // count)
    short = count * size - length
    runs = [(count - short, size), (short, size - 1)]
    return [run for run in runs if run[0]]


@cache
def _generator(parity: int) -> Bytes:
    """Coefficients of prod (x - 2^i) below the leading one, highest first: uint8 (parity,)."""
    polynomial = np.ones(1, dtype=np.uint8)
    for root in range(parity):
        longer = np.append(polynomial, np.uint8(0))
        longer[1:] ^= PRODUCT[polynomial, POWER[root]]
        polynomial = longer
    return polynomial[1:]


@cache
def _remainders(parity: int) -> Bytes:
    """x^(parity + k) modulo the generator polynomial, k from the largest to 0: (255 - p, p)."""
    generator = _generator(parity)
    rows = [generator]
    for _ in range(LONGEST - parity - 1):
        shifted = np.append(rows[-1][1:], np.uint8(0))
        rows.append(shifted ^ _times(rows[-1][:1], generator))
    return np.array(rows[::-1])


def _parity(words: Bytes, parity: int) -> Bytes:
    """Remainders (n, parity) of words (n, size) times x^parity by the generator polynomial."""
    rows = _remainders(parity)[LONGEST - parity - words.shape[1] :]
    remainder: Bytes = np.bitwise_xor.reduce(_times(words[:, :, None], rows), axis=1)
    return remainder


@cache
def _points(parity: int) -> Bytes:
    """2^(i * k) for i < parity (rows) and k from LONGEST - 1 to 0 (columns)."""
    points: Bytes = POWER[np.arange(parity)[:, None] * np.arange(LONGEST - 1, -1, -1) % 255]
    return points


def _syndromes(words: Bytes, parity: int) -> Bytes:
    """Words (n, length) as polynomials at 2^0 .. 2^(parity - 1): uint8 (n, parity)."""
    terms = _times(words[:, None, :], _points(parity)[:, LONGEST - words.shape[1] :])
    syndromes: Bytes = np.bitwise_xor.reduce(terms, axis=2)
    return syndromes


def _correct(words: Bytes, parity: int) -> tuple[Bytes, NDArray[np.bool_]]:
    """Repaired words (n, length), and which of them are right; the others stay as they are."""
    syndromes = _syndromes(words, parity)
    damaged = np.flatnonzero(syndromes.any(axis=1))
    good = np.ones(len(words), dtype=np.bool_)
    if not len(damaged):
        return words, good
    locator, errors = _berlekamp_massey(syndromes[damaged])
    patch = _error_values(locator, syndromes[damaged], words.shape[1])
    candidate = words[damaged] ^ patch
    repaired = (
        (errors <= parity // 2)
        & (np.count_nonzero(patch, axis=1) == errors)
        & ~_syndromes(candidate, parity).any(axis=1)
    )
    fixed = words.copy()
    fixed[damaged[repaired]] = candidate[repaired]
    good[damaged[~repaired]] = False
    return fixed, good


def _berlekamp_massey(syndromes: Bytes) -> tuple[Bytes, NDArray[np.int64]]:
    """Error locators (n, parity + 1), lowest coefficient first, and the numbers of errors (n,)."""
    count, parity = syndromes.shape
    locator = np.zeros((count, parity + 1), dtype=np.uint8)
    locator[:, 0] = 1
    previous = locator.copy()
    scale = np.ones(count, dtype=np.uint8)
    errors = np.zeros(count, dtype=np.int64)
    for step in range(parity):
        previous[:, 1:] = previous[:, :-1].copy()
        previous[:, 0] = 0
        terms = _times(locator[:, : step + 1], syndromes[:, step::-1])
        discrepancy = np.bitwise_xor.reduce(terms, axis=1)
        updated = locator ^ _times(_divide(discrepancy, scale)[:, None], previous)
        longer = (discrepancy != 0) & (2 * errors <= step)
        previous[longer] = locator[longer]
        scale[longer] = discrepancy[longer]
        errors[longer] = step + 1 - errors[longer]
        locator = updated
    return locator, errors


def _error_values(locator: Bytes, syndromes: Bytes, length: int) -> Bytes:
    """Forney's formula at every root of the locators: what to add to words, uint8 (n, length)."""
    parity = syndromes.shape[1]
    half = parity // 2 + 1
    evaluator = np.zeros((len(locator), half), dtype=np.uint8)
    for degree in range(half):
        terms = _times(locator[:, : degree + 1], syndromes[:, degree::-1])
        evaluator[:, degree] = np.bitwise_xor.reduce(terms, axis=1)
    exponents = np.arange(length - 1, -1, -1)
    roots = _evaluate(locator[:, :half], exponents) == 0
    slope = locator[:, 1:half].copy()
    slope[:, 1::2] = 0
    values = _divide(_evaluate(evaluator, exponents), _evaluate(slope, exponents))
    values = _times(values, POWER[exponents])
    return np.where(roots, values, 0).astype(np.uint8)


def _evaluate(polynomials: Bytes, exponents: NDArray[np.int64]) -> Bytes:
    """Polynomials (n, degrees), lowest first, at 2^-e for each exponent e: uint8 (n, e)."""
    degrees = np.arange(polynomials.shape[1])
    terms = _times(polynomials[:, :, None], POWER[-degrees[:, None] * exponents % 255])
    result: Bytes = np.bitwise_xor.reduce(terms, axis=1)
    return result


def _divide(a: Bytes, b: Bytes) -> Bytes:
    """a / b in the field; 0 where b is 0."""
    inverse = POWER[(255 - _LOGARITHM[b]) % 255]
    return np.where(b == 0, 0, _times(a, inverse)).astype(np.uint8)
