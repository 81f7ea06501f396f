"""A distortion for pictures that people look at: what SSIMULACRA 2 calls visible, and two others.

    eyes = visible * V + squared * l2 + structure * ms_ssim

V is the weighted sum of visible terms that SSIMULACRA 2 makes a score of: lost structure, rings and
lost edges in XYB at six scales, as means and as fourth-power means (`linocut.pictures.quality` has
the score; here is its slope). Alone it would be a poor teacher: its weights, fitted to people's
judgements of codecs, all but ignore the finest scale, and a network finds out. Squared error and
MS-SSIM hold what it does not look at.

    score        V       l2 of `cae-l2`   MS-SSIM's
    20          14.3     0.0017           0.040
    45           7.2     0.0005           0.020
    75           2.0     0.0003           0.007

The three fall together, so that one set of weights serves fine and coarse steps.

Source: Sneyers, "SSIMULACRA 2", github.com/cloudinary; the weights are those of the Python port
`ssimulacra2`.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from linocut.lab.config.params import Positive
from linocut.lab.networks.losses import (
    C2,
    MS_SSIM_MIN_SIDE_PX,
    SSIM_TAPS,
    blur,
    full_precision,
    l2,
    ms_ssim,
    pair,
    takes_sides_from,
)
from linocut.pictures.quality import OPSIN, OPSIN_BIAS, SSIMULACRA2_SCALES, SSIMULACRA2_SIDE_PX

FRAME_PX = SSIM_TAPS // 2
SMALLEST = 1e-20
"""Keeps the slope of a fourth root; far below what is visible."""

Frame = Literal["mirrored", "zeros"]


@takes_sides_from(MS_SSIM_MIN_SIDE_PX)
def eyes(
    x_hat: Tensor, x: Tensor, *, visible: Positive, squared: Positive, structure: Positive
) -> Tensor:
    """The sum of the three, for pictures of at least 176 x 176 pixels.

    Args:
        x_hat: decoded pictures (n, 3, h, w).
        x: originals.
        visible: weight of V.
        squared: weight of the squared error.
        structure: weight of 1 - MS-SSIM.
    """
    seen = visible * visible_difference(x_hat, x)
    return seen + squared * l2(x_hat, x) + structure * ms_ssim(x_hat, x)


def visible_difference(x_hat: Tensor, x: Tensor, beside: Frame = "mirrored") -> Tensor:
    """V, (n,): what SSIMULACRA 2 turns into its score.

    Args:
        x_hat: decoded pictures (n, 3, h, w), sRGB; beyond [0, 1] they count as at the border.
        x: originals.
        beside: what lies to the left and right of a picture. The score has zeros there, next to
            which nothing is visible; on a crop that would be a good part of it.
    """
    x_hat, x = pair(x_hat, x)
    total = x.new_zeros(len(x))
    with full_precision(x.device):
        one, other = (_linear(picture) for picture in (x_hat, x))
        for scale in range(SSIMULACRA2_SCALES):
            if min(one.shape[2:]) < SSIMULACRA2_SIDE_PX:
                break
            weights = _weights(x.dtype, x.device)[scale]
            total = total + (weights * _terms(_xyb(one), _xyb(other), beside)).sum((1, 2, 3))
            one, other = (F.avg_pool2d(_even(picture), 2) for picture in (one, other))
    return total


@functools.cache
def _weights(dtype: torch.dtype, device: torch.device) -> Tensor:
    """(scale, norm, kind, channel)."""
    from ssimulacra2.ssimulacra2 import weights

    with torch.inference_mode(False):
        ordered = torch.tensor(weights, dtype=torch.float64).view(3, SSIMULACRA2_SCALES, 2, 3)
        return ordered.permute(1, 2, 3, 0).to(device=device, dtype=dtype)


def _terms(decoded: Tensor, original: Tensor, beside: Frame) -> Tensor:
    """Means and fourth-power means of the three kinds in each channel, (n, norm, kind, channel)."""
    p, q = (_framed(picture, beside) for picture in (decoded, original))
    mean_p, mean_q = blur(p), blur(q)
    covariance = 2.0 * (blur(p * q) - mean_p * mean_q) + C2
    variances = blur(p.square() + q.square()) - mean_p.square() - mean_q.square() + C2
    lost = 1.0 - (1.0 - (mean_p - mean_q).square()) * covariance / variances
    edges = (1.0 + (decoded - mean_p).abs()) / (1.0 + (original - mean_q).abs()) - 1.0
    kinds = torch.stack([lost, edges, -edges], 1).clamp(min=0.0)
    fourth = (kinds.square().square().mean((3, 4)) + SMALLEST) ** 0.25 - SMALLEST**0.25
    return torch.stack([kinds.mean((3, 4)), fourth], 1)


def _framed(picture: Tensor, beside: Frame) -> Tensor:
    """Five pixels more on each side; above and below a mirror image, edge included."""
    rows = picture[:, :, :FRAME_PX].flip(2), picture, picture[:, :, -FRAME_PX:].flip(2)
    tall = torch.cat(rows, 2)
    if beside == "zeros":
        return F.pad(tall, (FRAME_PX, FRAME_PX))
    return torch.cat([tall[..., :FRAME_PX].flip(3), tall, tall[..., -FRAME_PX:].flip(3)], 3)


def _even(picture: Tensor) -> Tensor:
    odd = picture.shape[2] % 2, picture.shape[3] % 2
    return F.pad(picture, (0, odd[1], 0, odd[0]), mode="replicate") if any(odd) else picture


def _linear(picture: Tensor) -> Tensor:
    """sRGB -> linear light."""
    x = picture.clamp(0.0, 1.0)
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def _xyb(linear: Tensor) -> Tensor:
    """Linear RGB -> XYB, shifted so that all of it is positive."""
    mixed = torch.einsum("ij,njhw->nihw", torch.from_numpy(OPSIN).to(linear), linear) + OPSIN_BIAS
    red, green, blue = (mixed ** (1.0 / 3.0) - OPSIN_BIAS ** (1.0 / 3.0)).unbind(1)
    y = 0.5 * (red + green)
    return torch.stack([7.0 * (red - green) + 0.42, y + 0.01, blue - y + 0.55], 1)
