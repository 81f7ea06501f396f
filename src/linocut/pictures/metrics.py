"""Picture quality on 8-bit RGB: PSNR, SSIM, MS-SSIM and SSIMULACRA 2, their value range said aloud.

What is computed here is what the field's tables hold, so that numbers can be laid side by side:

* PSNR from the squared error over all pixels and the three channels, peak 255;
* SSIM with an 11-tap Gaussian window of sigma 1.5, K = (0.01, 0.03), valid pixels only, each of R,
  G and B by itself, then their mean;
* MS-SSIM of five scales with the weights of its paper, in the form of `pytorch-msssim`: 2x2 means
  between scales, negative contrast terms clamped to 0, the product per channel, then their mean.

SSIM and MS-SSIM share their filtered maps, and one depthwise convolution in channels-last layout
makes them all: a quarter of the time of two calls of the library, the same numbers (tests).

Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE TIP 2004; Wang, Simoncelli, Bovik, "Multiscale structural similarity
for image quality assessment", Asilomar 2003.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from linocut.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from linocut.pictures.image import RgbArray

SSIM_SIDE_PX = 11
"""Shortest side that has an SSIM: the window has to fit once."""

MS_SSIM_SIDE_PX = 161
"""Shortest side that has an MS-SSIM: the window has to fit at the fifth scale."""

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SIGMA_PX = 1.5
_C1 = 0.01**2
_C2 = 0.03**2


@dataclass(frozen=True)
class Quality:
    """How close one picture is to another; SSIM and MS-SSIM are NaN where it is too small."""

    psnr_db: float
    ssim: float
    ms_ssim: float


def measure(original: RgbArray, decoded: RgbArray) -> Quality:
    """All metrics of one pair of pictures (h, w, 3) uint8."""
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
    """SSIMULACRA 2 of (h, w, 3) uint8: 100 for equal pictures, 90 hardly visible, 30 bad, < 0 too.

    NaN below 8 pixels a side. Needs the package `ssimulacra2`, of the extra `pipeline`. For many
    versions of one original see `linocut.pictures.perceptual`.
    """
    from linocut.pictures.perceptual import Ssimulacra2

    _require_pair(original, decoded)
    return Ssimulacra2(original).score(decoded)


def to_db(similarity: ArrayLike) -> NDArray[np.float64]:
    """Spread a similarity of at most 1 over decibels: -10 log10(1 - similarity)."""
    with np.errstate(divide="ignore"):
        return np.asarray(-10.0 * np.log10(1.0 - np.asarray(similarity, dtype=np.float64)))


def _similarity(original: RgbArray, decoded: RgbArray, *, multiscale: bool) -> tuple[float, float]:
    """SSIM and, when asked for and possible, MS-SSIM; else NaN in its place."""
    import torch
    from torch.nn.functional import avg_pool2d

    _require_pair(original, decoded)
    side = min(original.shape[:2])
    if side < SSIM_SIDE_PX:
        return float("nan"), float("nan")
    with torch.inference_mode():
        x, y = _to_unit_range(original), _to_unit_range(decoded)
        similarity, contrast = _ssim_terms(x, y)
        single = float(similarity.mean())
        if not multiscale or side < MS_SSIM_SIDE_PX:
            return single, float("nan")
        product = torch.ones_like(contrast)
        for scale, weight in enumerate(_SCALE_WEIGHTS):
            if scale > 0:
                padding = [length % 2 for length in x.shape[2:]]
                x, y = (avg_pool2d(picture, 2, padding=padding) for picture in (x, y))
                similarity, contrast = _ssim_terms(x, y)
            last = scale == len(_SCALE_WEIGHTS) - 1
            product = product * torch.relu(similarity if last else contrast) ** weight
        return single, float(product.mean())


def _ssim_terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM and mean contrast-structure term of each channel.

    Args:
        x: (1, 3, h, w) in [0, 1].
        y: (1, 3, h, w) in [0, 1].

    Returns:
        Two tensors (3,) float64.
    """
    import torch
    from torch.nn.functional import conv2d

    maps = torch.cat([x, y, x * x + y * y, x * y], dim=1)
    maps = maps.contiguous(memory_format=torch.channels_last)
    offsets = torch.arange(SSIM_SIDE_PX, dtype=torch.float64) - SSIM_SIDE_PX // 2
    window = torch.exp(-(offsets**2) / (2 * _SIGMA_PX**2))
    taps = (window / window.sum()).to(x.dtype).expand(maps.shape[1], 1, 1, -1)
    blurred = conv2d(maps, taps.mT, groups=maps.shape[1])
    blurred = conv2d(blurred, taps, groups=maps.shape[1])
    mean_x, mean_y, power, product = blurred.chunk(4, dim=1)
    means = mean_x * mean_y
    mean_power = mean_x * mean_x + mean_y * mean_y
    contrast = (2 * (product - means) + _C2) / (power - mean_power + _C2)
    similarity = (2 * means + _C1) / (mean_power + _C1) * contrast
    pixels = (0, 2, 3)
    return similarity.mean(pixels, dtype=torch.float64), contrast.mean(pixels, dtype=torch.float64)


def _to_unit_range(image: RgbArray) -> Tensor:
    """(h, w, 3) uint8 to (1, 3, h, w) float32 in [0, 1]."""
    import torch

    return torch.tensor(image).permute(2, 0, 1)[None].to(torch.float32) / 255.0


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
