"""What a .lino file holds, whichever way its bytes are laid out, and how numbers are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from linocut.errors import BitstreamError

MAGIC = b"LINO"
VERSION = 1
TILE_PX = 1024
MAX_PIXELS = 2**28
"""Largest picture a decoder accepts unless told otherwise, about 268 megapixels."""

MAX_SIDE_PX = 2**24
MAX_STEP_INDEX = 640

ALPHA, ICC_PROFILE, ROTATION, EXIF, HINTS, CORRECTION = 1, 2, 3, 4, 6, 8
"""Kinds of blocks: alpha plane, ICC profile, rotation of the latent, EXIF, hints (bit 0: the
picture was grey), and the picture's own last layer (`linocut.codec.correction`).
"""

MUST_UNDERSTAND = frozenset({ALPHA, ROTATION})


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

    def without(self, kind: int) -> "LinoFile":
        """The same but for the block of one kind."""
        return replace(self, extras={k: block for k, block in self.extras.items() if k != kind})

    @property
    def payload_bytes(self) -> int:
        """Bytes of all tiles together, without protection."""
        if self.resilience is None:
            return sum(len(tile) for tile in self.tiles)
        tiles = self.resilience.segments
        return sum(len(part) for tile in tiles for segment in tile for part in segment.layers)


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
