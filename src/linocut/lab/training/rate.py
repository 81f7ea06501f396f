"""What training takes for the rate: a differentiable estimate of it, and what it may cost.

    bits(u) = -log2( P(u + 1/2) - P(u - 1/2) )       P: Laplace of scale b, u = y / step + noise
    b       = b0 + sum_k w_k f_k,   f_k: mean magnitudes of u around the sample, in its parent and
                                    in its siblings

The scale sees neighbours on all sides where the real coder has decoded only some of them; the two
differ by a few per cent of rate, and training needs the slope, not the level. Files have integer
tables instead.

The exchange rate between bits and distortion is measured on the starting network:

    w(step) = -(dR / d ln step) / (dD / d ln step)      R in bits per pixel, D in the loss's units

At this weight a slightly finer or coarser step costs as much as it gains, so a network trained with
it stays at the rates it began with, whatever the kind and unit of its distortion: all losses cover
the same rates with the same steps. Both curves are quadratics in ln(step), fitted to logarithms.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from linocut.entropy.planes import Band

LOG2_E = 1.4426950408889634
SMALLEST_SCALE = 0.04
SMALLEST_MASS = 1e-6
CALIBRATION_STEPS = 9
FLATTEST_DISTORTION = 0.1
"""Least d ln D / d ln step that is believed; fine quantisation gives squared errors 2."""


def laplace_bits(u: Tensor, scale: Tensor) -> Tensor:
    """Bits of the unit interval around u under a zero-mean Laplace law; stable for any u.

    With a = |u| - 1/2 and b the scale they are -log2 of

        1 - (exp(a / b) + exp(-(a + 1) / b)) / 2     where a < 0
        exp(-a / b) (1 - exp(-1 / b)) / 2            elsewhere

    Args:
        u: values in units of the step, any shape.
        scale: mean magnitude, broadcastable to u, positive.
    """
    magnitude, scale = torch.broadcast_tensors(u.abs(), scale)  # type: ignore[no-untyped-call]
    bits: Tensor = _LaplaceBits.apply(magnitude, scale)  # type: ignore[no-untyped-call]
    return bits


class _LaplaceBits(torch.autograd.Function):
    """One logarithm for both cases, and slopes while the exponentials are at hand."""

    @staticmethod
    def forward(ctx: Any, magnitude: Tensor, scale: Tensor) -> Tensor:
        inverse = scale.reciprocal()
        a = magnitude - 0.5
        low = a.clamp(max=0.0)
        over = a - low
        inside = torch.ops.aten.threshold_backward(torch.ones_like(a), -a, 0)  # 1 where a < 0
        beyond = torch.expm1(-inverse).neg_()
        decay = 1.0 - beyond  # exp(-1 / b)
        left = torch.exp(low * inverse)
        right = decay / left
        centre = (left + right).mul_(-0.5).add_(1.0)
        mass = (centre - beyond).mul_(inside).add_(beyond).clamp_(min=SMALLEST_MASS)
        bits = (over * inverse).mul_(LOG2_E).add_(1.0).sub_(inside).sub_(torch.log2(mass))
        if any(ctx.needs_input_grad):
            unit = inverse * LOG2_E / mass
            by_magnitude = (left - right).mul_(0.5).sub_(mass).mul_(inside).add_(mass).mul_(unit)
            tail = decay - over * beyond
            by_scale = (right * (low + 1.0)).sub_(left * low).mul_(0.5).sub_(tail)
            by_scale.mul_(inside).add_(tail).mul_(unit).mul_(inverse)
            ctx.save_for_backward(by_magnitude, by_scale)
        return bits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        by_magnitude, by_scale = ctx.saved_tensors
        return gradient * by_magnitude, gradient * by_scale


def near_and_wide(magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """Means within 3 x 3 and 5 x 5, zeros beyond the border: (n, c, h, w) -> twice that shape.

    By products with band matrices: at the size of training crops faster than pooling.
    """
    height, width = magnitude.shape[2:]
    with torch.autocast(magnitude.device.type, enabled=False):
        rows = magnitude.contiguous() @ _neighbours(width).to(magnitude)
        columns = _neighbours(height).to(magnitude)
        return columns[:, :height] @ rows[..., :width], columns[:, height:] @ rows[..., width:]


@functools.cache
def _neighbours(side: int) -> Tensor:
    """Means of 3 and of 5 neighbours as two symmetric matrices beside each other, (s, 2 s)."""
    place = torch.arange(side)
    distance = (place[:, None] - place).abs()
    return torch.cat([(distance <= reach) / (2.0 * reach + 1.0) for reach in (1, 2)], 1)


class RateProxy(nn.Module):
    """Rate of a latent in bits, with a learned conditional scale for every channel of every band.

    Args:
        bands: the latent's bands, in coding order.
    """

    features = 5

    def __init__(self, bands: Sequence[Band]) -> None:
        super().__init__()
        self.bands = tuple(bands)
        start = torch.tensor([0.02, 0.5, 0.2, 0.1, 0.1, 0.1])
        self.weights = nn.ParameterList(
            nn.Parameter(torch.log(start)[:, None].repeat(1, band.channels)) for band in bands
        )

    def forward(self, latent: Sequence[Tensor], step: Tensor) -> Tensor:
        """Bits of every picture, (n,). latent: bands (n, c, h, w) in grey levels; step (n,)."""
        total = torch.zeros_like(step)
        nears: list[Tensor] = []
        for index, (band, y) in enumerate(zip(self.bands, latent, strict=True)):
            u = y / step[:, None, None, None]
            u = u + (torch.rand_like(u) - 0.5)
            if band.smooth:
                u = u - functional.avg_pool2d(
                    functional.pad(u, (1, 1, 1, 1), mode="replicate"), 3, 1
                )
            magnitude = u.abs()
            near, wide = near_and_wide(magnitude)
            nears.append(near)
            b0, *w = torch.exp(self.weights[index])[:, None, :, None, None]
            colour = w[2] / max(band.channels - 1, 1)
            scale = b0 + near * (w[0] * 9.0 / 8.0) + wide * w[1]  # near without its middle
            scale = scale - magnitude * (w[0] / 8.0 + colour)
            scale = scale + magnitude.sum(1, keepdim=True) * colour
            if band.parent is not None:
                above = alike(nears[band.parent], band.channels)
                scale = scale + functional.interpolate(above * w[3], scale_factor=2.0)
            if index > 0 and self.bands[index - 1].stride == band.stride:
                scale = scale + alike(nears[index - 1], band.channels) * w[4]
            scale = functional.threshold(scale, SMALLEST_SCALE, SMALLEST_SCALE)
            total = total + laplace_bits(u, scale).sum(dim=(1, 2, 3))
        return total


def alike(near: Tensor, channels: int) -> Tensor:
    """Another band (n, c, h, w), or its mean where this one has other channels."""
    return near if near.shape[1] == channels else near.mean(1, keepdim=True)


def round_straight_through(y: Tensor, step: Tensor) -> Tensor:
    """Hard rounding to multiples of step whose gradient is that of the identity.

    Args:
        y: (n, c, h, w) grey levels.
        step: (n,) grey levels.
    """
    size = step[:, None, None, None]
    return y + (torch.round(y.detach() / size) * size - y.detach())


@dataclass(frozen=True)
class Exchange:
    """w(step) and R_ref(step) as polynomials of ln(step)."""

    weight: tuple[float, ...]
    rate: tuple[float, ...]

    def __call__(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """Distortion weight and reference rate (bpp) for steps (n,)."""
        x = torch.log(step)
        weight = sum(c * x**i for i, c in enumerate(self.weight))
        rate = sum(c * x**i for i, c in enumerate(self.rate))
        return torch.exp(torch.as_tensor(weight)), torch.exp(torch.as_tensor(rate))


def calibrate(
    step_range: tuple[float, float], measure: Callable[[float], tuple[float, float]]
) -> Exchange:
    """Fit the exchange rate to measurements.

    Args:
        step_range: finest and coarsest step, grey levels.
        measure: step -> (rate in bpp, distortion), both positive.
    """
    grid = np.linspace(math.log(step_range[0]), math.log(step_range[1]), CALIBRATION_STEPS)
    rates, distortions = np.array([measure(math.exp(log_step)) for log_step in grid]).T
    fit = np.polynomial.Polynomial.fit
    log_rate = fit(grid, np.log(rates), 2).convert()
    log_distortion = fit(grid, np.log(distortions), 2).convert()
    rate_slope = -log_rate.deriv()(grid) * np.exp(log_rate(grid))
    slope = np.maximum(log_distortion.deriv()(grid), FLATTEST_DISTORTION)
    weights = np.maximum(rate_slope, 1e-6) / (slope * np.exp(log_distortion(grid)))
    log_weight = fit(grid, np.log(weights), 2).convert()
    return Exchange(
        tuple(float(c) for c in log_weight.coef), tuple(float(c) for c in log_rate.coef)
    )
