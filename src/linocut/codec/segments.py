"""The resilient coding of a tile: squares coded alone, in layers; what is lost is concealed.

    symbols of a tile --cut--> squares --Coder, each alone--> payloads --cut--> layers
    layers that arrived --join--> payloads --decode what they hold--> squares --conceal--> symbols

Bands are coded coarse to fine, so the beginning of a payload decodes to the coarse bands. A payload
is cut where the bands of a layer end: without the last layer a square is blurred, without the
first it is filled from its surroundings. The encoder tries every cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.coder import Coder
from linocut.entropy.planes import Band, Integers, Symbols
from linocut.entropy.tables import Bins
from linocut.errors import BitstreamError
from linocut.format.bitstream import ALPHA, EXIF, ICC_PROFILE, LinoFile, Resilience, Segment

Place = tuple[int, int, int, int]
"""Top, left, bottom, right, px."""

SEGMENT_PX = 256
_CUT_STEP = 8  # bytes; two words, which is how far the range decoder reads ahead
_SWEEPS = 64
_BLOCK_NAMES = {ALPHA: "alpha", ICC_PROFILE: "ICC profile", EXIF: "EXIF"}


@dataclass(frozen=True)
class Lost:
    """Squares of some tiles that did not arrive whole.

    Attributes:
        blurred: that lost fine detail.
        concealed: that lost all.
    """

    blurred: int
    concealed: int

    def and_more(self, other: Lost) -> Lost:
        """Both together."""
        return Lost(self.blurred + other.blurred, self.concealed + other.concealed)


@dataclass(frozen=True)
class Damage:
    """What a decoder found wrong in a file of the resilient layout.

    Attributes:
        segments: squares that the picture is coded in.
        blurred: of these, squares that lost fine detail.
        concealed: of these, squares that lost all, and were filled from their surroundings.
        repaired_bytes: wrong bytes that error correction put right.
        lost_blocks: kinds of blocks that are lost.
    """

    segments: int
    blurred: int
    concealed: int
    repaired_bytes: int
    lost_blocks: tuple[int, ...]

    @property
    def note(self) -> str | None:
        """One line for people, or None where everything arrived."""
        parts = []
        if self.blurred or self.concealed:
            parts.append(
                f"damaged: {self.concealed} of {self.segments} squares concealed, "
                f"{self.blurred} blurred"
            )
        if self.lost_blocks:
            names = (_BLOCK_NAMES.get(kind, f"block {kind}") for kind in self.lost_blocks)
            parts.append(f"lost: {', '.join(names)}")
        return "; ".join(parts) or None


@dataclass(frozen=True)
class Decoded:
    """What a decoder found in a file.

    Attributes:
        picture: uint8 (h, w, 3).
        damage: what was lost of a file of the resilient layout; None for the plain one.
    """

    picture: NDArray[np.uint8]
    damage: Damage | None


def damage_of(file: LinoFile, lost: Lost) -> Damage | None:
    """What was found wrong, or None for the plain layout, which is whole or refused."""
    layout = file.resilience
    if layout is None:
        return None
    total = sum(len(segments) for segments in layout.segments)
    return Damage(total, lost.blurred, lost.concealed, layout.repaired, layout.lost_blocks)


def layout_of(bands: Sequence[Band], segments: Sequence[Sequence[Segment]]) -> Resilience:
    """The layout of a file with these segments of each tile."""
    return Resilience(segment_px(bands), layer_bands(bands), segments)


def segment_px(bands: Sequence[Band]) -> int:
    """Side of the squares for a latent of these bands."""
    return max(SEGMENT_PX, *(band.stride for band in bands))


def layer_bands(bands: Sequence[Band]) -> tuple[int, int]:
    """How many bands the first layer holds, and how many the first two.

    The last layer has the finest stride, the second those up to four times as coarse, the first the
    rest and all smooth bands.
    """
    finest = min(band.stride for band in bands)
    if all(band.stride == finest for band in bands):
        return 0, len(bands)
    first = sum(band.stride > 4 * finest or band.smooth for band in bands)
    return first, max(first, sum(band.stride > finest for band in bands))


class SquareCoder:
    """A coder that chooses the symbols of every square by themselves, as they will be coded.

    Args:
        coder: of the model.
    """

    layered = True

    def __init__(self, coder: Coder) -> None:
        self._coder = coder
        self.bands, self.planes, self.priced = coder.bands, coder.planes, coder.priced

    def nearest_index(self, step_index: int) -> int:
        """See `Coder`, as for all that follows."""
        return self._coder.nearest_index(step_index)

    def dequantise(
        self, symbols: Sequence[NDArray[np.integer[Any]]], step_index: int
    ) -> list[NDArray[np.float32]]:
        """The same as that of the whole."""
        return self._coder.dequantise(symbols, step_index)

    def told_step(self, step_index: int) -> float:
        """The same as that of the whole."""
        return self._coder.told_step(step_index)

    def optimise(
        self, latent: Sequence[NDArray[np.float32]], step_index: int, price: float
    ) -> tuple[list[Integers], None]:
        """Square by square; the table indices are not kept."""
        result = [np.zeros(band.shape, np.int32) for band in latent]
        for windows in self._windows(latent):
            square = [band[window] for band, window in zip(latent, windows, strict=True)]
            chosen, _ = self._coder.optimise(square, step_index, price)
            for band, window, symbols in zip(result, windows, chosen, strict=True):
                band[window] = symbols
        return result, None

    def encode_counted(
        self, latent: Sequence[Integers], step_index: int, bins: Bins | None = None
    ) -> tuple[bytes, NDArray[np.float64]]:
        """The payloads of all squares one after the other, and the ideal bits of every plane."""
        coded = [
            self._coder.encode_counted(
                [np.ascontiguousarray(band[w]) for band, w in zip(latent, windows, strict=True)],
                step_index,
            )
            for windows in self._windows(latent)
        ]
        return b"".join(data for data, _ in coded), np.sum([bits for _, bits in coded], axis=0)

    def estimate_bits(
        self, latent: Sequence[Integers], step_index: int, bins: Bins | None = None
    ) -> NDArray[np.float64]:
        """The ideal bits of every plane, all squares together."""
        return self.encode_counted(latent, step_index)[1]

    def decode(
        self, data: bytes, height: int, width: int, step_index: int, bands: int | None = None
    ) -> list[Integers]:
        """One square."""
        return self._coder.decode(data, height, width, step_index, bands)

    def _windows(
        self, latent: Sequence[NDArray[Any]]
    ) -> Iterator[list[tuple[slice, slice, slice]]]:
        height, width = (side * self.bands[0].stride for side in latent[0].shape[1:])
        for place in _squares(height, width, segment_px(self.bands)):
            yield [_window(place, band.stride) for band in self.bands]


def encode_segments(coder: Coder, symbols: Sequence[Integers], step_index: int) -> list[Segment]:
    """Code the squares of one tile, row by row.

    Raises:
        BitstreamError: the coder has no layers.
    """
    _check_layers(coder)
    bands = coder.bands
    ends = layer_bands(bands)
    height, width = (side * bands[0].stride for side in symbols[0].shape[1:])
    segments = []
    for place in _squares(height, width, segment_px(bands)):
        square = [
            np.ascontiguousarray(band[_window(place, bands[index].stride)])
            for index, band in enumerate(symbols)
        ]
        payload = coder.encode_counted(square, step_index)[0]
        cuts = [_cut(coder, square, step_index, payload, end) for end in ends]
        first, second = cuts[0], max(cuts)
        layers = (payload[:first], payload[first:second], payload[second:])
        segments.append(Segment(layers, len(layers)))
    return segments


def decode_segments(
    coder: Coder, file: LinoFile, number: int, size: tuple[int, int]
) -> tuple[Symbols, Lost]:
    """Decode and conceal one tile.

    Args:
        coder: of the model.
        file: of the resilient layout.
        number: of the tile.
        size: height and width of the padded tile, px.

    Returns:
        The symbols; how many squares are blurred; how many are concealed.

    Raises:
        BitstreamError: the squares do not fit the model.
    """
    layout = file.resilience
    if layout is None:
        raise BitstreamError("the file has the plain layout, expected the resilient one")
    _check_layers(coder)
    bands, segments, side = coder.bands, layout.segments[number], layout.segment_px
    if any(side % band.stride for band in bands) or layout.layer_bands[1] > len(bands):
        raise BitstreamError(
            f"squares of {side} px in layers of {layout.layer_bands} bands do not fit the model"
        )
    places = list(_squares(*size, side))
    if len(places) != len(segments):
        raise BitstreamError(f"{len(segments)} squares in a tile, expected {len(places)}")
    result = [
        np.zeros((band.channels, size[0] // band.stride, size[1] // band.stride), np.int16)
        for band in bands
    ]
    blurred, lost = 0, []
    for place, segment in zip(places, segments, strict=True):
        kept = (0, *layout.layer_bands, len(bands))[segment.good]
        payload = b"".join(segment.layers[: segment.good])
        square = _decode(coder, payload, place, file.step_index, kept) if kept else None
        if square is None:
            lost.append(place)
            continue
        blurred += kept < len(bands)
        for index, band in enumerate(square[:kept]):
            result[index][_window(place, bands[index].stride)] = np.clip(band, -32768, 32767)
    if lost:
        _conceal(bands, result, lost)
    return result, Lost(blurred, len(lost))


def _check_layers(coder: Coder) -> None:
    if not coder.layered:
        raise BitstreamError("codes of fixed length have no resilient layout")


def _conceal(bands: Sequence[Band], symbols: Symbols, lost: Sequence[Place]) -> None:
    """Fill the smooth bands of lost squares; their details stay zero."""
    for band, values in zip(bands, symbols, strict=True):
        if band.smooth:
            known = np.ones(values.shape[1:], dtype=np.bool_)
            for place in lost:
                known[_window(place, band.stride)[1:]] = False
            for plane in values:
                plane[:] = np.rint(fill(plane, known)).astype(np.int16)


def fill(plane: NDArray[np.int16], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A plane (h, w) whose unknown samples follow from the known ones around them.

    Known samples spread inwards, one sample a round, as means of the known ones among the four
    next to them; then every filled sample moves to the mean of its four, `_SWEEPS` times. All zero
    where nothing is known.
    """
    values = np.where(known, plane, 0).astype(np.float64)
    reached = known.copy()
    while reached.any() and not reached.all():
        total, count = _around(values), _around(reached.astype(np.float64))
        new = ~reached & (count > 0)
        values[new] = total[new] / count[new]
        reached |= new
    if reached.any():
        neighbours = _around(np.ones_like(values))
        for _ in range(0 if known.all() else _SWEEPS):
            values = np.where(known, values, _around(values) / np.maximum(neighbours, 1))
    return values


def _around(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the four samples next to each (h, w), 0 outside."""
    wide = np.pad(values, 1)
    total: NDArray[np.float64] = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]
    return total


def _squares(height: int, width: int, side: int) -> Iterator[Place]:
    """Top, left, bottom, right of the squares, px, row by row."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield top, left, min(top + side, height), min(left + side, width)


def _window(place: Place, stride: int) -> tuple[slice, slice, slice]:
    top, left, bottom, right = (px // stride for px in place)
    return slice(None), slice(top, bottom), slice(left, right)


def _cut(
    coder: Coder, square: Sequence[Integers], step_index: int, payload: bytes, bands: int
) -> int:
    """The shortest beginning of a payload found that decodes to the first bands, bytes."""
    if bands == 0:
        return 0
    if bands == len(square):
        return len(payload)
    blurred = [band if index < bands else 0 * band for index, band in enumerate(square)]
    cut = len(coder.encode_counted(blurred, step_index)[0]) + _CUT_STEP
    stride = coder.bands[0].stride
    place = (0, 0, square[0].shape[1] * stride, square[0].shape[2] * stride)
    while cut < len(payload):
        decoded = _decode(coder, payload[:cut], place, step_index, bands)
        if decoded is not None and all(
            np.array_equal(a, b) for a, b in zip(decoded[:bands], square, strict=False)
        ):
            return cut
        cut += _CUT_STEP
    return len(payload)


def _decode(
    coder: Coder, payload: bytes, place: Place, step_index: int, bands: int
) -> list[Integers] | None:
    top, left, bottom, right = place
    try:
        return coder.decode(payload, bottom - top, right - left, step_index, bands)
    except BitstreamError:
        return None
