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

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from linocut.errors import BitstreamError

MAGIC = b"LINO"
VERSION = 1
TILE_PX = 1024
MAX_PIXELS = 2**28
"""Largest picture a decoder accepts unless told otherwise, about 268 megapixels."""

MAX_SIDE_PX = 2**24
MAX_STEP_INDEX = 640

ALPHA, ICC_PROFILE, ROTATION, EXIF, LOSSLESS, HINTS, CORRECTION = 1, 2, 3, 4, 5, 6, 8
"""Kinds of blocks: alpha plane, ICC profile, rotation of the latent, EXIF, colours without loss,
hints (bit 0: the picture was grey), and the picture's own last layer (`linocut.codec.correction`).
"""

MUST_UNDERSTAND = frozenset({ALPHA, ROTATION, LOSSLESS})

NO_MODEL = bytes(8)
"""Model id of a file that needs none, because it holds the picture without loss."""

_TOLERATED_BITS = 6
"""Of the 40 of magic and version, in a file of the resilient layout."""


@dataclass(frozen=True)
class Segment:
    """A square of a tile, coded on its own: one payload, cut into layers.

    Attributes:
        layers: the payload's parts. The first alone decodes to the coarsest bands, the first two
            to more, all of them to all; what was lost is empty.
        good: how many layers, from the first on, are as they were written.
    """

    layers: tuple[bytes, ...]
    good: int


@dataclass(frozen=True)
class Resilience:
    """The resilient layout of a file.

    Attributes:
        segment_px: side of the squares.
        layer_bands: how many bands the first layer holds, and how many the first two.
        segments: of each tile, row by row.
        repaired: bytes that were wrong and could be repaired.
        lost_blocks: kinds of blocks that could not.
    """

    segment_px: int
    layer_bands: tuple[int, int]
    segments: Sequence[Sequence[Segment]]
    repaired: int = 0
    lost_blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class LinoFile:
    """The fields of a file.

    Attributes:
        width, height: of the picture, px.
        step_index: index of the quantisation step.
        model_id: 8 bytes.
        tiles: payload of every tile, row by row; none where the layout is resilient.
        extras: blocks by kind.
        resilience: the other layout, or None.
    """

    width: int
    height: int
    step_index: int
    model_id: bytes
    tiles: Sequence[bytes]
    extras: Mapping[int, bytes] = field(default_factory=dict)
    resilience: Resilience | None = None

    def without(self, kind: int) -> LinoFile:
        """The same but for the block of one kind."""
        return replace(self, extras={k: block for k, block in self.extras.items() if k != kind})

    @property
    def is_lossless(self) -> bool:
        """Whether a block holds the colours exactly, and no network is needed."""
        return LOSSLESS in self.extras

    @property
    def payload_bytes(self) -> int:
        """Bytes of all tiles together, without protection."""
        if self.resilience is None:
            return sum(len(tile) for tile in self.tiles)
        tiles = self.resilience.segments
        return sum(len(part) for tile in tiles for segment in tile for part in segment.layers)


def pack(file: LinoFile) -> bytes:
    """Fields -> bytes.

    Raises:
        BitstreamError: a field is out of range.
    """
    from linocut.format import resilient  # which is built on this module

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
        return resilient.pack(file)
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
    from linocut.format import resilient

    mark = int.from_bytes(start[:5]) ^ int.from_bytes(resilient.MARK)
    return start[:4] == MAGIC or (len(start) > 4 and mark.bit_count() <= _TOLERATED_BITS)


def header_bytes(data: bytes) -> int:
    """Length of what an undamaged file holds before its blocks and payload."""
    from linocut.format import resilient

    protected = resilient.header_bytes(data)
    if protected is not None:
        return protected
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
    from linocut.format import resilient

    plain = None
    if data[:5] == MAGIC + bytes([VERSION]):
        try:
            return _unpack_plain(data, max_pixels)
        except BitstreamError as error:
            plain = error
    header = resilient.header_of(data)
    if header is not None:
        return resilient.unpack(data, header, max_pixels)
    if plain is not None:
        raise plain
    if data[:5] == resilient.MARK:
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


def tile_grid(width: int, height: int) -> tuple[int, int]:
    """Rows and columns of tiles."""
    return -(-height // TILE_PX), -(-width // TILE_PX)


def varint(number: int) -> bytes:
    """A non-negative number in base 128."""
    result = bytearray()
    while number >= 128:
        result.append(128 | number & 127)
        number >>= 7
    result.append(number)
    return bytes(result)


def require_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse sizes outside of the format or above a limit."""
    if not (1 <= width <= MAX_SIDE_PX and 1 <= height <= MAX_SIDE_PX):
        raise BitstreamError(
            f"a picture of {width}x{height} px is outside 1..{MAX_SIDE_PX} px a side"
        )
    if width * height > max_pixels:
        raise BitstreamError(
            f"a picture of {width}x{height} px has {width * height} pixels, "
            f"the limit is {max_pixels}"
        )


class Reader:
    """Takes fields off the front of bytes.

    Args:
        data: to read from.
        position: of the first field.
    """

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        if count > len(self.data) - self.position:
            raise BitstreamError(f"the {what} of {count} bytes reaches beyond the end of the file")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self, what: str) -> int:
        """The next number in base 128."""
        number = shift = 0
        while True:
            byte = self.take(1, what)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 35:
                raise BitstreamError(f"the {what} is a number of more than 42 bits")


# --- what the blocks hold -------------------------------------------------------------------------
#
# Alpha, without loss:
#
#     byte 0     method
#     method 0   byte 1 is the opacity of every pixel
#     method 1   zlib stream of the samples, row by row
#     method 2   zlib stream of the differences to the sample above, modulo 256
#     method 3   zlib stream of the differences of those to the one on their left, modulo 256
#     method 4   zlib stream of one bit a pixel, 1 = 255 and 0 = 0, rows padded to whole bytes
#
# The row above the first and the column left of the first are zero. The encoder keeps the smallest.
#
# ICC profile and EXIF: size as u32, little-endian, then a zlib stream of that size.
#
# A picture without loss: what the VP8L chunk of a WebP file holds (RFC 9649), without alpha.
#
# The numbers of a correction (`linocut.codec.correction`), row by row: a row is a bit 0 where all
# its numbers are zero, else 1 and its numbers. A number is a bit 0 where it is zero, else 1, its
# sign (1: negative) and its magnitude in Elias's gamma code. Bits fill bytes from the highest down,
# the last one padded with zeros.

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
    from PIL import Image, WebPImagePlugin  # else Pillow imports every plugin to find this one

    height, width = rgb.shape[:2]
    if max(height, width) > VP8L_SIDE_PX or height * width > VP8L_PIXELS:
        return None
    if not WebPImagePlugin.SUPPORTED:
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
