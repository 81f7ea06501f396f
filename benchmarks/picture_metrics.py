"""PSNR, SSIM, MS-SSIM and SSIMULACRA 2, written again; part of `verify.py`.

SSIM, MS-SSIM and SSIMULACRA 2 are other people's code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_msssim
import torch
from ssimulacra2 import ssimulacra2 as port

Picture = np.ndarray[Any, Any]
"""(h, w, 3) uint8."""

SIDE_PX = 8
"""Below it the port has no scale."""


def psnr_db(one: Picture, two: Picture) -> float:
    """PSNR of 8-bit RGB."""
    error = np.mean((one.astype(np.float64) - two.astype(np.float64)) ** 2)
    return 10 * math.log10(255**2 / error) if error else math.inf


def ssim(one: Picture, two: Picture) -> float:
    """SSIM by pytorch-msssim; NaN for pictures that its window does not fit into."""
    if min(one.shape[:2]) < 11:
        return math.nan
    return float(pytorch_msssim.ssim(_planes(one), _planes(two), data_range=255.0))


def ms_ssim(one: Picture, two: Picture) -> float:
    """MS-SSIM by pytorch-msssim; NaN for small pictures."""
    if min(one.shape[:2]) <= 160:
        return math.nan
    return float(pytorch_msssim.ms_ssim(_planes(one), _planes(two), data_range=255.0))


def _planes(image: Picture) -> torch.Tensor:
    """(1, 3, h, w) float32."""
    return torch.tensor(image).permute(2, 0, 1)[None].float()


class Ssimulacra2:
    """SSIMULACRA 2 of many decoded versions of one original, from the parts of the Python port.

    The same sums as its `compute_ssimulacra2`, in less than half the time: what belongs to the
    original is computed once, and colours lie apart in memory.
    """

    def __init__(self, original: Picture) -> None:
        self._scales = [
            [(plane, port.blur_image(plane), port.blur_image(plane * plane)) for plane in planes]
            for planes in _pyramid(original)
        ]

    def score(self, decoded: Picture) -> float:
        """100 for no visible difference, less for more; NaN for tiny pictures."""
        if not self._scales:
            return math.nan
        whole = port.Msssim()
        for known, planes in zip(self._scales, _pyramid(decoded), strict=True):
            scale = port.MsssimScale()
            for colour, ((one, mean, square), two) in enumerate(zip(known, planes, strict=True)):
                other, squared, both = map(port.blur_image, (two, two * two, one * two))
                similarity = port.ssim_map(mean, other, square, squared, both)
                edges = port.edge_diff_map(one, mean, two, other)
                scale.avg_ssim[2 * colour : 2 * colour + 2] = similarity[:2]
                scale.avg_edgediff[4 * colour : 4 * colour + 4] = edges[:4]
            whole.scales.append(scale)
        return float(whole.score())


def _pyramid(image: Picture) -> Iterator[list[np.ndarray[Any, Any]]]:
    """The three XYB planes (w, h, 1) of each scale."""
    linear = port.srgb_to_linear(image)
    for scale in range(port.kNumScales):
        if scale:
            linear = port.downsample(linear, 2, 2)
        xyb = port.make_positive_xyb(port.linear_rgb_to_xyb(linear))
        if min(xyb.shape[:2]) < SIDE_PX:
            return
        yield [np.ascontiguousarray(xyb[:, :, colour, None]) for colour in range(3)]
