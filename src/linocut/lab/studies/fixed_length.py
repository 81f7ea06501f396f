"""The latent in numbers of fixed length: no entropy coder, so a wrong bit is one wrong sample.

    r --uniform quantiser per plane, b bits--> codes --one after the other--> bytes

Bits go to planes one at a time, each to the plane where it removes most squared error per bit: the
classical allocation for a given rate. Only measurements of bit errors use this; it is no format.

    offset  bytes  field
    0       8      width u16, height u16, float32 that the networks are told as step
            5      for each plane: bits of a sample u8, step float16, mean float16
            rest   codes, plane by plane, row by row, most significant bit first

Source: Shoham, Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Trans.
ASSP 1988; fixed-length latents: Santurkar et al., "Generative Compression", PCS 2018.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from linocut.codec.tiles import padded
from linocut.errors import BitstreamError, DataError

if TYPE_CHECKING:
    from linocut.codec.codec import Codec
    from linocut.codec.transforms import Picture
    from linocut.entropy.planes import Band

Plane = NDArray[np.float32]

MOST_BITS = 9
_SPREADS = np.geomspace(0.7, 6.0, 8)
"""Half ranges of quantisers that are tried, in standard deviations."""

_SAMPLES = 4096
"""Of a plane, at regular distances, that the choice looks at."""

_HEADER = struct.Struct("<HHf")
_PLANE = struct.Struct("<Bee")


@dataclass(frozen=True)
class _Quantiser:
    """2^bits levels around the mean, `step` apart."""

    bits: int
    step: float
    mean: float

    def codes(self, values: Plane) -> NDArray[np.int64]:
        half = 1 << self.bits >> 1
        places = np.floor((values - self.mean) / self.step).astype(np.int64) + half
        codes: NDArray[np.int64] = np.clip(places, 0, 2 * half - 1)
        return codes

    def values(self, codes: NDArray[np.int64]) -> Plane:
        half = 1 << self.bits >> 1
        return ((codes - half + 0.5) * self.step + self.mean).astype(np.float32)


def header_bytes(codec: Codec) -> int:
    """Length of what precedes the codes."""
    return _HEADER.size + _PLANE.size * len(_plane_bands(codec))


def encode_fixed(codec: Codec, picture: Picture, size: int) -> bytes:
    """The best file of at most `size` bytes.

    Raises:
        DataError: the picture is larger than one tile, or the model has no rotation of its own.
    """
    analysed = codec.analyse(picture)
    if analysed.latents is None or len(analysed.latents) != 1 or codec.rotation is None:
        raise DataError("fixed-length latents need a picture of one tile and a global rotation")
    planes = [plane for band in analysed.latents[0] for plane in band]
    chosen, distortion = _allocate(planes, 8 * (size - header_bytes(codec)))
    samples = sum(plane.size for plane in planes)
    step = min(max((12.0 * distortion / samples) ** 0.5, 1.0), 1024.0)
    parts = [_HEADER.pack(picture.shape[1], picture.shape[0], step)]
    parts += [_PLANE.pack(one.bits, one.step, one.mean) for one in chosen]
    bits = [
        (one.codes(plane).ravel()[:, None] >> np.arange(one.bits - 1, -1, -1) & 1).ravel()
        for one, plane in zip(chosen, planes, strict=True)
    ]
    packed: bytes = np.packbits(np.concatenate(bits).astype(np.uint8)).tobytes()
    return b"".join(parts) + packed


def decode_fixed(codec: Codec, data: bytes, shape: tuple[int, int]) -> Picture:
    """The picture (h, w, 3), however the codes were damaged.

    Args:
        codec: as at `encode_fixed`.
        data: a whole file.
        shape: height and width that the receiver expects.

    Raises:
        BitstreamError: the header promises something else.
    """
    width, height, step = _HEADER.unpack_from(data)
    if (height, width) != shape or not 1.0 <= step <= 1024.0 or codec.rotation is None:
        raise BitstreamError(f"the header promises {width}x{height} px and a step of {step}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8)[header_bytes(codec) :])
    multiple = codec.geometry.multiple
    latent: list[list[Plane]] = [[] for _ in codec.geometry.bands]
    start = 0
    for number, (index, band) in enumerate(_plane_bands(codec)):
        one = _Quantiser(*_PLANE.unpack_from(data, _HEADER.size + number * _PLANE.size))
        size = (padded(height, multiple) // band.stride, padded(width, multiple) // band.stride)
        count = size[0] * size[1] * one.bits
        if one.bits > MOST_BITS or start + count > len(bits):
            raise BitstreamError(f"the header promises {one.bits} bits a sample")
        places = 1 << np.arange(one.bits - 1, -1, -1)
        codes = bits[start : start + count].reshape(*size, one.bits).astype(np.int64) @ places
        plane = one.values(codes) if one.bits else np.full(size, one.mean, np.float32)
        latent[index].append(np.nan_to_num(plane, nan=0.0, posinf=0.0, neginf=0.0))
        start += count
    bands = codec.rotation.inverse_transform([np.stack(planes) for planes in latent])
    return codec.transforms.synthesis(bands, step)[:height, :width]


def _plane_bands(codec: Codec) -> Sequence[tuple[int, Band]]:
    """Index and band of every plane."""
    bands = codec.geometry.bands
    return [(index, band) for index, band in enumerate(bands) for _ in range(band.channels)]


def _allocate(planes: Sequence[Plane], budget: int) -> tuple[list[_Quantiser], float]:
    """Quantisers of the planes for a number of bits, and their squared error."""
    ladders = [_ladder(plane) for plane in planes]
    bits = [0] * len(planes)
    while True:
        gains = []
        for number, (plane, ladder) in enumerate(zip(planes, ladders, strict=True)):
            for more in range(bits[number] + 1, MOST_BITS + 1):
                cost = plane.size * (more - bits[number])
                if cost <= budget:
                    gains.append(
                        ((ladder[bits[number]][1] - ladder[more][1]) / cost, number, more, cost)
                    )
        if not gains or max(gains)[0] <= 0:
            break
        _, number, more, cost = max(gains)
        bits[number] = more
        budget -= cost
    chosen = [ladder[count] for ladder, count in zip(ladders, bits, strict=True)]
    return [one for one, _ in chosen], sum(error for _, error in chosen)


def _ladder(plane: Plane) -> list[tuple[_Quantiser, float]]:
    """For each number of bits the best quantiser, as it can be written, and its squared error."""
    seen = plane.ravel()[:: max(1, plane.size // _SAMPLES)]
    weight = plane.size / seen.size
    mean, deviation = float(np.float16(plane.mean())), float(plane.std())
    ladder = [(_Quantiser(0, 1.0, mean), weight * float(((seen - mean) ** 2).sum()))]
    for bits in range(1, MOST_BITS + 1):
        best = ladder[0]
        for spread in _SPREADS:
            step = float(np.float16(max(2 * spread * deviation / (1 << bits), 1e-3)))
            one = _Quantiser(bits, step, mean)
            error = weight * float(((one.values(one.codes(seen)) - seen) ** 2).sum())
            best = min(best, (one, error), key=lambda pair: pair[1])
        ladder.append(best if best[0].bits == bits else ladder[-1])
    return ladder
