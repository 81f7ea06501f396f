"""PSNR, MS-SSIM, SSIMULACRA 2 and patch distance, written again; part of `verify.py`.

MS-SSIM and SSIMULACRA 2 are other people's code.
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


def ms_ssim(one: Picture, two: Picture) -> float:
    """MS-SSIM by pytorch-msssim; NaN for small pictures."""
    if min(one.shape[:2]) <= 160:
        return math.nan
    x, y = (torch.tensor(image).permute(2, 0, 1)[None].float() for image in (one, two))
    return float(pytorch_msssim.ms_ssim(x, y, data_range=255.0))


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


def patch_distance(original: Picture, decoded: Picture) -> float:
    """Sliced Wasserstein distance of 7 x 7 patches on three scales, in thousandths.

    Draws of patches and directions are those of the pipeline, or the numbers could not be the same.
    """
    rng = np.random.default_rng(0)
    pair = [image / 255.0 for image in (original, decoded)]
    distances = []
    for scale in range(3):
        halves = [_halved(image) for image in pair]
        details = []
        for image, half in zip(pair, halves, strict=True):
            inside = image[: 2 * half.shape[0], : 2 * half.shape[1]]
            details.append(image if scale == 2 else inside - np.kron(half, np.ones((2, 2, 1))))
        height, width = details[0].shape[:2]
        rows = rng.integers(0, height - 6, 4096)
        columns = rng.integers(0, width - 6, 4096)
        places = zip(rows.tolist(), columns.tolist(), strict=True)
        corners = [(slice(y, y + 7), slice(x, x + 7)) for y, x in places]
        patches = [
            np.stack([np.moveaxis(detail[corner], 2, 0).ravel() for corner in corners])
            for detail in details
        ]
        directions = rng.standard_normal((147, 128))
        directions /= np.sqrt((directions**2).sum(0))
        middle, spread = patches[0].mean(0), patches[0].std(0) + 1e-6
        projected = [np.sort(((one - middle) / spread) @ directions, axis=0) for one in patches]
        distances.append(np.abs(projected[0] - projected[1]).mean())
        pair = halves
    return float(1000.0 * np.mean(distances))


def _halved(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    image = image[:height, :width]
    total = image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]
    return np.asarray(total / 4)
