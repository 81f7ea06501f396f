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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from linocut.entropy.planes import Band

LOG2_E = 1.4426950408889634
SMALLEST_SCALE = 0.04
CALIBRATION_STEPS = 9
FLATTEST_DISTORTION = 0.1
"""Least d ln D / d ln step that is believed; fine quantisation gives squared errors 2."""


def laplace_bits(u: Tensor, scale: Tensor) -> Tensor:
    """Bits of the unit interval around u under a zero-mean Laplace law; stable for any u.

    Args:
        u: values in units of the step, any shape.
        scale: mean magnitude, broadcastable to u, positive.
    """
    magnitude = u.abs()
    inside = (magnitude < 0.5).to(u.dtype)
    # |u| >= 1/2: exp(-(|u| - 1/2) / b) (1 - exp(-1 / b)) / 2
    tail = (magnitude - 0.5).clamp(min=0.0) / scale * LOG2_E + 1.0
    tail = tail - torch.log2(-torch.expm1(-1.0 / scale))
    centre_mass = 1.0 - 0.5 * (
        torch.exp((magnitude.clamp(max=0.5) - 0.5) / scale) + torch.exp(-(magnitude + 0.5) / scale)
    )
    centre = -torch.log2(centre_mass.clamp(min=1e-6))
    return inside * centre + (1.0 - inside) * tail


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
        magnitudes: list[Tensor] = []
        for index, (band, y) in enumerate(zip(self.bands, latent, strict=True)):
            u = y / step[:, None, None, None]
            u = u + torch.rand_like(u) - 0.5
            if band.smooth:
                u = u - functional.avg_pool2d(
                    functional.pad(u, (1, 1, 1, 1), mode="replicate"), 3, 1
                )
            magnitude = u.abs()
            magnitudes.append(magnitude)
            near = functional.avg_pool2d(magnitude, 3, 1, 1)
            ring = (near * 9.0 - magnitude) / 8.0
            wide = functional.avg_pool2d(magnitude, 5, 1, 2)
            colour = (magnitude.sum(1, keepdim=True) - magnitude) / max(band.channels - 1, 1)
            if band.parent is None:
                parent = torch.zeros_like(ring)
            else:
                parent = functional.avg_pool2d(magnitudes[band.parent], 3, 1, 1)
                parent = functional.interpolate(parent, scale_factor=2.0)
            sibling = torch.zeros_like(ring)
            if index > 0 and self.bands[index - 1].stride == band.stride:
                sibling = functional.avg_pool2d(magnitudes[index - 1], 3, 1, 1)
            b0, *w = torch.exp(self.weights[index])[:, None, :, None, None]
            scale = b0 + w[0] * ring + w[1] * wide + w[2] * colour + w[3] * parent + w[4] * sibling
            bits = laplace_bits(u, scale.clamp(min=SMALLEST_SCALE))
            total = total + bits.sum(dim=(1, 2, 3))
        return total


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
