"""The training's estimate of the rate is a probability law, and its exchange rate a slope."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from linocut.entropy.planes import Band, wavelet_bands
from linocut.lab.training.rate import (
    FLATTEST_DISTORTION,
    Exchange,
    RateProxy,
    calibrate,
    laplace_bits,
    near_and_wide,
    round_straight_through,
)
from tiny import untrained


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 20.0])
def test_bits_are_those_of_a_laplace_law(scale):
    u = np.concatenate([np.linspace(-6, 6, 97), [-0.5, 0.5]])
    law = stats.laplace(scale=scale)
    mass = np.where(u > 0, law.sf(u - 0.5) - law.sf(u + 0.5), law.cdf(u + 0.5) - law.cdf(u - 0.5))
    expected = -np.log2(np.maximum(mass, 1e-300))
    found = laplace_bits(torch.from_numpy(u), torch.tensor(scale, dtype=torch.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("scale", [0.04, 0.5, 8.0])
def test_masses_of_all_integers_sum_to_one(scale):
    u = torch.arange(-400, 401, dtype=torch.float64)
    mass = torch.exp2(-laplace_bits(u, torch.tensor(scale, dtype=torch.float64))).sum()
    assert float(mass) == pytest.approx(1.0, abs=1e-5)


def test_far_values_and_small_scales_stay_finite_in_value_and_gradient():
    u = torch.tensor([0.0, 0.5, -0.5, 3e4, -3e4], requires_grad=True)
    scale = torch.tensor([0.04, 1e3], requires_grad=True)
    bits = laplace_bits(u[:, None], scale[None])
    bits.sum().backward()
    for value in (bits, u.grad, scale.grad):
        assert torch.isfinite(value).all()
    assert (bits >= 0).all()


def plain_laplace_bits(u, scale):
    """The formula as it is written, with the slopes that autograd finds."""
    a = u.abs() - 0.5
    inside = 1 - (torch.exp(a.clamp(max=0) / scale) + torch.exp(-(a + 1) / scale)) / 2
    tail = a / scale * math.log2(math.e) + 1 - torch.log2(1 - torch.exp(-1 / scale))
    return torch.where(a < 0, -torch.log2(inside), tail)


def test_slopes_of_the_bits_are_those_of_the_plain_formula():
    torch.manual_seed(0)
    u = (3 * torch.randn(40, 50, dtype=torch.float64)).requires_grad_()
    scale = torch.exp(torch.randn(50, dtype=torch.float64)).clamp(min=0.04).requires_grad_()
    weight = torch.randn(40, 50, dtype=torch.float64)
    found = torch.autograd.grad((weight * laplace_bits(u, scale)).sum(), [u, scale])
    expected = torch.autograd.grad((weight * plain_laplace_bits(u, scale)).sum(), [u, scale])
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(2, 3, 1, 2), (1, 4, 8, 16), (2, 3, 64, 64)])
def test_products_with_bands_are_means_of_neighbours(shape):
    torch.manual_seed(0)
    magnitude = torch.rand(shape)
    near, wide = near_and_wide(magnitude)
    torch.testing.assert_close(near, functional.avg_pool2d(magnitude, 3, 1, 1))
    torch.testing.assert_close(wide, functional.avg_pool2d(magnitude, 5, 1, 2))


WIDENING = (Band("LL", 3, 8, smooth=True), Band("D2", 9, 8), Band("D1", 6, 4, parent=1))


@pytest.mark.parametrize("bands", [wavelet_bands(2), tuple(Band(n, 4, 8) for n in "abc"), WIDENING])
def test_coarser_steps_cost_fewer_bits_in_every_picture(bands):
    torch.manual_seed(0)
    latent = [30 * torch.randn(2, b.channels, 32 // b.stride, 32 // b.stride) for b in bands]
    proxy = RateProxy(bands)
    rates = [proxy(latent, torch.full((2,), step)) for step in (4.0, 16.0, 64.0)]
    assert rates[0].shape == (2,)
    assert (rates[0] > rates[1]).all()
    assert (rates[1] > rates[2]).all()


def test_bits_of_a_picture_do_not_depend_on_its_neighbours_in_the_batch():
    network = untrained("cae")
    proxy = RateProxy(network.bands)
    quiet = [torch.zeros(1, b.channels, 16 // b.stride, 16 // b.stride) for b in network.bands]
    loud = [band + 100 for band in quiet]
    torch.manual_seed(0)
    both = proxy([torch.cat(pair) for pair in zip(quiet, loud, strict=True)], torch.ones(2) * 8)
    assert both[1] > 2 * both[0]


def test_every_weight_of_the_proxy_learns():
    bands = wavelet_bands(2)
    latent = [30 * torch.randn(2, b.channels, 32 // b.stride, 32 // b.stride) for b in bands]
    proxy = RateProxy(bands)
    proxy(latent, torch.tensor([8.0, 16.0])).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in proxy.parameters())
    assert all(p.grad[:4].any(1).all() for p in proxy.parameters())


def test_straight_through_rounds_hard_and_passes_the_gradient():
    y = torch.tensor([[-9.0, -1.0, 4.9, 5.1]]).view(1, 1, 1, 4).requires_grad_()
    rounded = round_straight_through(y, torch.tensor([10.0]))
    torch.testing.assert_close(rounded.flatten(), torch.tensor([-10.0, 0.0, 0.0, 10.0]))
    rounded.sum().backward()
    torch.testing.assert_close(y.grad, torch.ones_like(y))


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
