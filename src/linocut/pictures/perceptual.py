"""SSIMULACRA 2, a score of how visible a difference is: 100 for none, 90 hardly, 50 plain, 30 bad.

The same score as that of the Python port `ssimulacra2` (tests: to 0.01), in a fifth of its time:
single precision, depthwise convolutions, and what belongs to the original is computed once for all
its decoded versions. The weights, which were fitted to people's judgements, are the port's.

    sRGB -> linear -> XYB -> six scales: SSIM, rings, lost edges -> weighted sum -> score

Source: Sneyers, "SSIMULACRA 2", github.com/cloudinary/ssimulacra2; the port by Uzun, package
`ssimulacra2`, whose border treatment is kept (zeros beside, reflection above and below).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from linocut.pictures.image import RgbArray

SCALES = 6
SIDE_PX = 8
"""Scales with a shorter side are left out; a picture with a shorter side has no score."""

_SIGMA_PX, _RADIUS_PX = 1.5, 5
_C2 = 0.0009
_OPSIN = (
    (0.30, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 0.55180986650955360),
)
_OPSIN_BIAS = 0.0037930732552754493


@dataclass(frozen=True)
class _Scale:
    """An original at one scale, (1, 3, h, w) each: XYB, its blurred mean, that of its square."""

    xyb: Tensor
    mean: Tensor
    square: Tensor


class Ssimulacra2:
    """Scores decoded versions of one original, (h, w, 3) uint8."""

    def __init__(self, original: RgbArray) -> None:
        import torch

        self._shape = original.shape
        with torch.inference_mode():
            self._scales = [_Scale(xyb, *_blurred(xyb, xyb * xyb)) for xyb in _pyramid(original)]

    def score(self, decoded: RgbArray) -> float:
        """Score of a decoded picture of the same shape; NaN below 8 pixels a side."""
        import torch
        from ssimulacra2.ssimulacra2 import weights

        if not self._scales:
            return float("nan")
        with torch.inference_mode():
            terms = [
                _terms(known, xyb)
                for known, xyb in zip(self._scales, _pyramid(decoded), strict=True)
            ]
        ordered = np.stack(terms).transpose(1, 0, 2, 3).ravel()  # channel, scale, norm, kind
        return _score(float(weights[: len(ordered)] @ ordered))


def _score(weighted: float) -> float:
    """The weighted sum of the terms on the scale of 100."""
    x = 0.9562382616834844 * weighted
    x = 2.326765642916932 * x - 0.020884521182843837 * x**2 + 6.248496625763138e-05 * x**3
    return 100.0 - 10.0 * x**0.6276336467831387 if x > 0 else 100.0


def _terms(known: _Scale, xyb: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Means and fourth-power means of SSIM loss, rings and lost edges: (channel, norm, kind)."""
    import torch

    mean, square, product = _blurred(xyb, xyb * xyb, known.xyb * xyb)
    covariance = 2 * (product - known.mean * mean) + _C2
    variances = (known.square - known.mean**2) + (square - mean**2) + _C2
    lost = torch.relu(1 - (1 - (known.mean - mean) ** 2) * covariance / variances)
    edges = (1 + (xyb - mean).abs()) / (1 + (known.xyb - known.mean).abs()) - 1
    found = []
    for term in (lost, torch.relu(edges), torch.relu(-edges)):
        squared = term * term
        fourth = (squared * squared).mean((0, 2, 3), dtype=torch.float64) ** 0.25
        found.append(torch.stack([term.mean((0, 2, 3), dtype=torch.float64), fourth], dim=-1))
    return np.asarray(torch.stack(found, dim=-1).numpy())


def _pyramid(image: RgbArray) -> Iterator[Tensor]:
    """XYB pictures (1, 3, h, w) from full size down, halved in linear light."""
    import torch
    from torch.nn.functional import avg_pool2d

    table = np.arange(256) / 255.0
    table = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    linear = torch.from_numpy(table.astype(np.float32)[image]).permute(2, 0, 1)[None]
    for scale in range(SCALES):
        if min(linear.shape[2:]) < SIDE_PX:
            return
        yield _xyb(linear)
        if scale < SCALES - 1:
            linear = avg_pool2d(linear, 2, ceil_mode=True)


def _xyb(linear: Tensor) -> Tensor:
    """Linear RGB (1, 3, h, w) to XYB, shifted so that all of it is positive."""
    import torch

    mixed = torch.einsum("ij,njhw->nihw", torch.tensor(_OPSIN), linear) + _OPSIN_BIAS
    red, green, blue = (mixed.clamp_min(0) ** (1 / 3) - _OPSIN_BIAS ** (1 / 3)).unbind(1)
    y = 0.5 * (red + green)
    return torch.stack([7.0 * (red - green) + 0.42, y + 0.01, blue - y + 0.55], dim=1)


def _blurred(*maps: Tensor) -> tuple[Tensor, ...]:
    """Gaussian means of maps (1, 3, h, w) each."""
    import torch
    from torch.nn.functional import conv2d, pad

    stacked = torch.cat(maps, dim=1)
    above = stacked[:, :, :_RADIUS_PX].flip(2)
    below = stacked[:, :, -_RADIUS_PX:].flip(2)
    framed = pad(torch.cat([above, stacked, below], dim=2), (_RADIUS_PX, _RADIUS_PX, 0, 0))
    framed = framed.contiguous(memory_format=torch.channels_last)
    offsets = torch.arange(-_RADIUS_PX, _RADIUS_PX + 1, dtype=torch.float64)
    window = torch.exp(-(offsets**2) / (2 * _SIGMA_PX**2))
    channels = stacked.shape[1]
    taps = (window / window.sum()).to(stacked.dtype).expand(channels, 1, 1, -1)
    blurred = conv2d(framed, taps.mT, groups=channels)
    return conv2d(blurred, taps, groups=channels).chunk(len(maps), dim=1)
