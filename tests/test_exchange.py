"""The exchange rate is the slope of the measured trade, for distortions of any unit."""

import math

import numpy as np
import pytest
import torch

from linocut.lab.training.rate import FLATTEST_DISTORTION, Exchange, calibrate

RANGE = (4.0, 160.0)
STEPS = torch.from_numpy(np.geomspace(*RANGE, 25))


def power_law(step):
    """R = 20 / step, D = 1e-4 step^1.5."""
    return 20.0 / step, 1e-4 * step**1.5


def test_power_laws_are_recovered_exactly():
    """dR / d ln s = -R and dD / d ln s = 1.5 D, so w = R / (1.5 D)."""
    weight, rate = calibrate(RANGE, power_law)(STEPS)
    np.testing.assert_allclose(rate, 20.0 / STEPS, rtol=1e-6)
    np.testing.assert_allclose(weight, 20.0 / STEPS / (1.5e-4 * STEPS**1.5), rtol=1e-6)


def test_at_this_weight_the_starting_step_is_the_best_one():
    exchange = calibrate(RANGE, power_law)
    for step in (6.0, 24.0, 100.0):
        weight = float(exchange(torch.tensor([step]))[0])
        costs = [rate + weight * d for rate, d in map(power_law, (0.8 * step, step, 1.25 * step))]
        assert costs[1] < min(costs[0], costs[2])


def test_the_unit_of_the_distortion_cancels():
    weight = calibrate(RANGE, power_law)(STEPS)[0]
    scaled = calibrate(RANGE, lambda s: (power_law(s)[0], 1000 * power_law(s)[1]))(STEPS)[0]
    torch.testing.assert_close(1000 * scaled, weight)


def test_weights_stay_positive_where_the_distortion_stops_growing():
    flat = calibrate(RANGE, lambda step: (20.0 / step, 0.3))(STEPS)[0]
    assert torch.isfinite(flat).all()
    assert (flat > 0).all()
    np.testing.assert_allclose(flat, 20.0 / STEPS / (FLATTEST_DISTORTION * 0.3), rtol=1e-6)


def test_polynomials_are_of_the_logarithm():
    exchange = Exchange((math.log(3.0), 1.0), (0.0, -2.0))
    weight, rate = exchange(torch.tensor([2.0]))
    assert float(weight) == pytest.approx(6.0)
    assert float(rate) == pytest.approx(0.25)
