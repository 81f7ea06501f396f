"""The training's estimate of the rate is a probability law, stable and differentiable."""

import numpy as np
import pytest
import torch
from scipy import stats

from linocut.entropy.planes import Band, wavelet_bands
from linocut.lab.training.rate import RateProxy, laplace_bits, round_straight_through
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


@pytest.mark.parametrize("bands", [wavelet_bands(2), tuple(Band(n, 4, 8) for n in "abc")])
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
