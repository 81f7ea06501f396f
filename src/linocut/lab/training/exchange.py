"""The exchange rate between bits and distortion, measured on the starting network.

    w(step) = -(dR / d ln step) / (dD / d ln step)      R in bits per pixel, D in the loss's units

At this weight a slightly finer or coarser step costs as much as it gains, so a network trained with
it stays at the
rates it began with, whatever the kind and unit of its distortion: all losses cover the same rates
    with the same steps.
Both curves are quadratics in ln(step), fitted to logarithms.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CALIBRATION_STEPS = 9
FLATTEST_DISTORTION = 0.1
"""Least d ln D / d ln step that is believed; 2 is the rule of fine quantisation for squared errors.
"""


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
