"""How close one 8-bit RGB picture is to another: PSNR, SSIM, MS-SSIM and SSIMULACRA 2.

What is computed here is what the field's tables hold, so that numbers can be laid side by side:

* PSNR from the squared error over all pixels and the three channels, peak 255;
* SSIM with an 11-tap Gaussian window of sigma 1.5, K = (0.01, 0.03), valid pixels only, each of R,
  G and B by itself, then their mean;
* MS-SSIM of five scales with the weights of its paper, in the form of `pytorch-msssim`: 2x2 means
  between scales, negative contrast terms clamped to 0, the product per channel, then their mean;
* SSIMULACRA 2, a score of how visible a difference is: 100 for none, 90 hardly, 50 plain, 30 bad,
  below 0 too. The same score as that of the Python port `ssimulacra2`, whose weights (fitted to
  people's judgements) and borders (zeros beside, reflection above and below) are kept.

      sRGB -> linear -> XYB -> six scales: SSIM, rings, lost edges -> weighted sum -> score

All of it is numpy in single precision. Pictures are worked through in bands of rows that fit into a
processor's cache, and a Gaussian mean is a product with a banded matrix, which is what BLAS does
best: as fast as the same in torch, in a fraction of its memory. The tests hold every metric against
an implementation of somebody else.

Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE TIP 2004; Wang, Simoncelli, Bovik, "Multiscale structural similarity
for image quality assessment", Asilomar 2003; Sneyers, "SSIMULACRA 2", github.com/cloudinary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from linocut.errors import DataError
from linocut.pictures.image import RgbArray

SSIM_SIDE_PX = 11
"""Shortest side that has an SSIM: the window has to fit once."""

MS_SSIM_SIDE_PX = 161
"""Shortest side that has an MS-SSIM: the window has to fit at the fifth scale."""

SSIMULACRA2_SIDE_PX = 8
"""Scales with a shorter side are left out; a picture with a shorter side has no score."""

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SIGMA_PX, _RADIUS_PX = 1.5, 5
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)
_BAND_PX = 48
"""Rows that are worked on at once, and columns that one product of matrices makes."""

SSIMULACRA2_SCALES = 6
OPSIN = np.array(
    [
        [0.30, 0.622, 0.078],
        [0.23, 0.692, 0.078],
        [0.24342268924547819, 0.20476744424496821, 0.55180986650955360],
    ],
    np.float32,
)
OPSIN_BIAS = 0.0037930732552754493

Planes = NDArray[np.float32]


@dataclass(frozen=True)
class Quality:
    """How close one picture is to another; SSIM and MS-SSIM are NaN where it is too small."""

    psnr_db: float
    ssim: float
    ms_ssim: float


def measure(original: RgbArray, decoded: RgbArray) -> Quality:
    """PSNR, SSIM and MS-SSIM of one pair of pictures (h, w, 3) uint8."""
    ssim_value, ms_ssim_value = _similarity(original, decoded, multiscale=True)
    return Quality(psnr_db(original, decoded), ssim_value, ms_ssim_value)


def psnr_db(original: RgbArray, decoded: RgbArray) -> float:
    """Peak signal-to-noise ratio of (h, w, 3) uint8, dB; infinite for equal pictures."""
    _require_pair(original, decoded)
    difference = original.astype(np.int32) - decoded.astype(np.int32)
    squared = int(np.sum(difference * difference, dtype=np.int64))
    if squared == 0:
        return float("inf")
    return float(10.0 * np.log10(255.0**2 * difference.size / squared))


def ssim(original: RgbArray, decoded: RgbArray) -> float:
    """SSIM of (h, w, 3) uint8, at most 1; NaN below 11 pixels a side."""
    return _similarity(original, decoded, multiscale=False)[0]


def ms_ssim(original: RgbArray, decoded: RgbArray) -> float:
    """MS-SSIM of (h, w, 3) uint8, 0..1; NaN where a side is below 161 pixels.

    Fewer scales on small pictures would be another metric under the same name.
    """
    return _similarity(original, decoded, multiscale=True)[1]


def ssimulacra2(original: RgbArray, decoded: RgbArray) -> float:
    """SSIMULACRA 2 of (h, w, 3) uint8; NaN below 8 pixels a side.

    Needs the package `ssimulacra2`, of the extra `pipeline`. For many versions of one original make
    one `Ssimulacra2`.
    """
    _require_pair(original, decoded)
    return Ssimulacra2(original).score(decoded)


def to_db(similarity: ArrayLike) -> NDArray[np.float64]:
    """Spread a similarity of at most 1 over decibels: -10 log10(1 - similarity)."""
    with np.errstate(divide="ignore"):
        return np.asarray(-10.0 * np.log10(1.0 - np.asarray(similarity, dtype=np.float64)))


class Ssimulacra2:
    """Scores decoded versions of one original, (h, w, 3) uint8.

    What belongs to the original alone is computed once.
    """

    def __init__(self, original: RgbArray) -> None:
        self._shape = original.shape
        self._scales = [_scale_of(framed) for framed in _xyb_scales(original)]

    def score(self, decoded: RgbArray) -> float:
        """Score of a decoded picture of the same shape; NaN below 8 pixels a side.

        Raises:
            DataError: another shape.
        """
        from ssimulacra2.ssimulacra2 import weights

        if decoded.shape != self._shape:
            raise DataError(
                f"decoded picture is {decoded.shape}, expected {self._shape} like the original"
            )
        if not self._scales:
            return float("nan")
        terms = [
            _visible_terms(known, framed)
            for known, framed in zip(self._scales, _xyb_scales(decoded), strict=True)
        ]
        ordered = np.stack(terms).transpose(1, 0, 2, 3).ravel()  # channel, scale, norm, kind
        return on_scale_of_100(float(weights[: len(ordered)] @ ordered))


def _similarity(original: RgbArray, decoded: RgbArray, *, multiscale: bool) -> tuple[float, float]:
    """SSIM and, when asked for and possible, MS-SSIM; else NaN in its place."""
    _require_pair(original, decoded)
    side = min(original.shape[:2])
    if side < SSIM_SIDE_PX:
        return float("nan"), float("nan")
    x, y = _unit_planes(original), _unit_planes(decoded)
    similarity, contrast = _ssim_terms(x, y)
    single = float(similarity.mean())
    if not multiscale or side < MS_SSIM_SIDE_PX:
        return single, float("nan")
    product = np.ones(3)
    for scale, weight in enumerate(_SCALE_WEIGHTS):
        if scale > 0:
            odd = [length % 2 for length in x.shape[1:]]
            frame = ((0, 0), (odd[0], 0), (odd[1], 0))
            x, y = (_halved(np.pad(planes, frame)) for planes in (x, y))
            similarity, contrast = _ssim_terms(x, y)
        last = scale == len(_SCALE_WEIGHTS) - 1
        product *= np.maximum(similarity if last else contrast, 0.0) ** weight
    return single, float(product.mean())


def _ssim_terms(x: Planes, y: Planes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean SSIM and mean contrast-structure term (3,) of planes (3, h, w) in 0..1."""
    sums = np.zeros((2, len(x)))
    height, width = (length - 2 * _RADIUS_PX for length in x.shape[1:])
    for channel, top, rows in _bands(len(x), height):
        own, other = (planes[channel, top : top + rows + 2 * _RADIUS_PX] for planes in (x, y))
        means = _means(own, other, own * own + other * other, own * other)
        mean_x, mean_y, power, product = means
        both = mean_x * mean_y
        mean_power = mean_x * mean_x + mean_y * mean_y
        contrast = (2 * (product - both) + _C2) / (power - mean_power + _C2)
        similarity = (2 * both + _C1) / (mean_power + _C1) * contrast
        sums[0, channel] += similarity.sum(dtype=np.float64)
        sums[1, channel] += contrast.sum(dtype=np.float64)
    similarity_mean, contrast_mean = sums / (height * width)
    return similarity_mean, contrast_mean


@dataclass(frozen=True)
class _Scale:
    """An original at one scale: XYB with a frame (3, h + 10, w + 10), Gaussian means (3, h, w)."""

    framed: Planes
    mean: Planes
    square: Planes


def _scale_of(framed: Planes) -> _Scale:
    height, width = (length - 2 * _RADIUS_PX for length in framed.shape[1:])
    mean, square = np.empty((2, len(framed), height, width), np.float32)
    for channel, top, rows in _bands(len(framed), height):
        own = framed[channel, top : top + rows + 2 * _RADIUS_PX]
        mean[channel, top : top + rows], square[channel, top : top + rows] = _means(own, own * own)
    return _Scale(framed, mean, square)


def _visible_terms(known: _Scale, framed: Planes) -> NDArray[np.float64]:
    """Means and fourth-power means of SSIM loss, rings and lost edges: (channel, norm, kind)."""
    sums = np.zeros((len(framed), 2, 3))
    height, width = known.mean.shape[1:]
    inside = slice(_RADIUS_PX, _RADIUS_PX + width)
    for channel, top, rows in _bands(len(framed), height):
        place = channel, slice(top, top + rows)
        own, other = (
            planes[channel, top : top + rows + 2 * _RADIUS_PX] for planes in (known.framed, framed)
        )
        mean, square, product = _means(other, other * other, own * other)
        known_mean = known.mean[place]
        covariance = 2 * (product - known_mean * mean) + _C2
        variances = (known.square[place] - known_mean**2) + (square - mean**2) + _C2
        lost = np.maximum(1 - (1 - (known_mean - mean) ** 2) * covariance / variances, 0)
        own, other = (band[_RADIUS_PX : _RADIUS_PX + rows, inside] for band in (own, other))
        edges = (1 + np.abs(other - mean)) / (1 + np.abs(own - known_mean)) - 1
        for kind, term in enumerate((lost, np.maximum(edges, 0), np.maximum(-edges, 0))):
            squared = term * term
            sums[channel, 0, kind] += term.sum(dtype=np.float64)
            sums[channel, 1, kind] += np.vdot(squared, squared)
    sums /= height * width
    sums[:, 1] **= 0.25
    return sums


def on_scale_of_100(weighted: float) -> float:
    """The weighted sum of the terms as a score."""
    x = 0.9562382616834844 * weighted
    x = 2.326765642916932 * x - 0.020884521182843837 * x**2 + 6.248496625763138e-05 * x**3
    return 100.0 - 10.0 * x**0.6276336467831387 if x > 0 else 100.0


def _xyb_scales(image: RgbArray) -> Iterator[Planes]:
    """Framed XYB planes (3, h + 10, w + 10) from full size down, halved in linear light."""
    table = np.arange(256) / 255.0
    table = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    linear = table.astype(np.float32)[image.transpose(2, 0, 1)]
    for scale in range(SSIMULACRA2_SCALES):
        if min(linear.shape[1:]) < SSIMULACRA2_SIDE_PX:
            return
        rows_reflected = ((0, 0), (_RADIUS_PX, _RADIUS_PX), (0, 0))
        zeros_beside = ((0, 0), (0, 0), (_RADIUS_PX, _RADIUS_PX))
        yield np.pad(np.pad(_xyb(linear), rows_reflected, "symmetric"), zeros_beside)
        if scale < SSIMULACRA2_SCALES - 1:
            odd = [length % 2 for length in linear.shape[1:]]
            linear = _halved(np.pad(linear, ((0, 0), (0, odd[0]), (0, odd[1])), "edge"))


def _xyb(linear: Planes) -> Planes:
    """Linear RGB (3, h, w) to XYB, shifted so that all of it is positive."""
    mixed = (OPSIN @ linear.reshape(3, -1)).reshape(linear.shape) + np.float32(OPSIN_BIAS)
    cubic = np.cbrt(np.maximum(mixed, 0)) - np.float32(np.cbrt(OPSIN_BIAS))
    red, green, blue = cubic
    y = np.float32(0.5) * (red + green)
    return np.stack([7 * (red - green) + np.float32(0.42), y + np.float32(0.01),
                     blue - y + np.float32(0.55)])  # fmt: skip


def _unit_planes(image: RgbArray) -> Planes:
    """(h, w, 3) uint8 to (3, h, w) in 0..1."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)


def _halved(planes: Planes) -> Planes:
    """Means of 2 x 2 samples of (c, h, w); both sides are even."""
    rows = planes[:, ::2] + planes[:, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25)


def _bands(channels: int, height: int) -> Iterator[tuple[int, int, int]]:
    """Channel, first row and number of rows of every band of (channels, height, ...)."""
    for channel in range(channels):
        for top in range(0, height, _BAND_PX):
            yield channel, top, min(_BAND_PX, height - top)


def _means(*maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gaussian means of maps (n + 10, w + 10) each, n at most a band: (maps, n, w).

    Each map is multiplied by itself: rows of a taller product are summed in another order, and
    equal pictures shall have equal means.
    """
    stacked = np.stack(maps)
    rows, width = (length - 2 * _RADIUS_PX for length in stacked.shape[1:])
    down = _taps(rows).T @ stacked
    result = np.empty((len(maps), rows, width), np.float32)
    for left in range(0, width, _BAND_PX):
        columns = min(_BAND_PX, width - left)
        taps = _taps(columns)
        np.matmul(down[..., left : left + len(taps)], taps, out=result[..., left : left + columns])
    return result


def _taps(count: int) -> NDArray[np.float32]:
    """The matrix (count + 10, count) that makes `count` neighbouring Gaussian means."""
    return _TAPS[: count + 2 * _RADIUS_PX, :count]


def _banded_matrix() -> NDArray[np.float32]:
    offsets = np.arange(-_RADIUS_PX, _RADIUS_PX + 1.0)
    window = np.exp(-(offsets**2) / (2 * _SIGMA_PX**2))
    matrix = np.zeros((_BAND_PX + 2 * _RADIUS_PX, _BAND_PX), np.float32)
    for column in range(_BAND_PX):
        matrix[column : column + len(window), column] = window / window.sum()
    return matrix


_TAPS = _banded_matrix()


def _require_pair(original: RgbArray, decoded: RgbArray) -> None:
    for name, image in (("original", original), ("decoded", decoded)):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise DataError(
                f"{name} picture is {image.shape} of {image.dtype}, expected (h, w, 3) of uint8"
            )
    if original.shape != decoded.shape:
        raise DataError(
            f"decoded picture is {decoded.shape}, expected {original.shape} like the original"
        )
