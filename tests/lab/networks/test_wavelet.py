"""The wavelet is JPEG 2000's 9/7, nearly orthonormal, and inverts whatever its weights are."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from linocut.lab.networks.layers import LIFTING_GAIN, Lifting, WaveletLevel

# ISO/IEC 15444-1, Table F.4: taps of the 9/7 analysis filters, centre outwards.
LOW_TAPS = (
    0.6029490182363579, 0.2668641184428723, -0.07822326652898785, -0.01686411844287495,
    0.02674875741080976,
)  # fmt: skip
HIGH_TAPS = (1.115087052456994, -0.5912717631142470, -0.05754352622849957, 0.09127176311424948)


def symmetric(taps):
    """Centre-outwards taps -> the whole filter."""
    return np.array([*taps[:0:-1], *taps])


def convolved(signal, taps, first):
    """Every second sample of a convolution, mirrored at both ends: the slow reference."""
    filter_, radius = symmetric(taps), len(taps) - 1
    period = 2 * (len(signal) - 1)
    result = []
    for centre in range(first, len(signal), 2):
        total = 0.0
        for offset in range(-radius, radius + 1):
            place = (centre + offset) % period
            total += filter_[offset + radius] * signal[min(place, period - place)]
        result.append(total)
    return np.array(result)


@pytest.mark.parametrize("length", [10, 32, 50])
def test_lifting_equals_convolution_with_the_filters_of_jpeg_2000(length):
    signal = np.random.default_rng(0).normal(size=length)
    lifting = Lifting(1).double()
    low, high = lifting(torch.from_numpy(signal).view(1, 1, 1, -1))
    gain = 2**0.5  # the standard's low-pass filter sums to 1, ours to the square root of 2
    np.testing.assert_allclose(
        low.detach().flatten(), gain * convolved(signal, LOW_TAPS, 0), atol=1e-6
    )
    np.testing.assert_allclose(
        high.detach().flatten(), convolved(signal, HIGH_TAPS, 1) / gain, atol=1e-6
    )


def test_a_constant_goes_to_the_low_band_alone():
    low, high = Lifting(1)(torch.ones(1, 1, 1, 16))
    torch.testing.assert_close(low, torch.full_like(low, 2**0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(high, torch.zeros_like(high), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(2, 2), (2, 8), (16, 4), (64, 64)])
def test_two_dimensional_inverse_is_exact_up_to_rounding(shape):
    torch.manual_seed(0)
    level = WaveletLevel(3)
    x = 255.0 * torch.rand(2, 3, *shape)
    torch.testing.assert_close(level.inverse(*level(x)), x, atol=1e-3, rtol=0)


def test_inverse_is_exact_for_any_weights():
    torch.manual_seed(1)
    level = WaveletLevel(2).double()
    with torch.no_grad():
        for parameter in level.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    x = torch.randn(1, 2, 16, 24, dtype=torch.float64)
    torch.testing.assert_close(level.inverse(*level(x)), x, atol=1e-9, rtol=0)


@torch.no_grad()
def test_bands_are_half_the_size_and_named_by_their_detail():
    x = torch.zeros(1, 1, 16, 32)
    x[..., 1::2] = 1.0  # changes from column to column only
    ll, hl, lh, hh = WaveletLevel(1)(x)
    assert {band.shape for band in (ll, hl, lh, hh)} == {(1, 1, 8, 16)}
    inner = (..., slice(2, -2), slice(4, -4))
    assert hl[inner].abs().min() > 0.5
    assert max(float(band.detach()[inner].abs().max()) for band in (lh, hh)) < 1e-5


@torch.no_grad()
def test_one_step_costs_about_the_same_squared_error_in_every_band():
    """Near orthonormality: white noise and each basis picture keep their energy."""
    torch.manual_seed(0)
    level = WaveletLevel(1)
    x = torch.randn(1, 1, 128, 128)
    energies = [float(band.square().mean()) for band in level(x)]
    assert sum(energies) / 4 == pytest.approx(float(x.square().mean()), rel=0.05)
    shape = (1, 1, 16, 16)
    for position in range(4):
        bands = [torch.zeros(shape) for _ in range(4)]
        bands[position][0, 0, 8, 8] = 1.0
        assert 0.7 < float(level.inverse(*bands).square().sum()) < 1.3


def test_channels_keep_their_own_weights():
    lifting = Lifting(2)
    with torch.no_grad():
        lifting.weights[:, 1] = 0.0
    x = torch.rand(1, 2, 1, 8)
    low, high = lifting(x)
    torch.testing.assert_close(low[:, 1], x[:, 1, :, 0::2] / LIFTING_GAIN)
    torch.testing.assert_close(high[:, 1], x[:, 1, :, 1::2] * LIFTING_GAIN)
    assert not torch.allclose(low[:, 0], x[:, 0, :, 0::2] / LIFTING_GAIN)


def test_gradients_reach_every_lifting_weight():
    level = WaveletLevel(1)
    ll, *details = level(torch.rand(1, 1, 16, 16))
    functional.mse_loss(ll, torch.zeros_like(ll)).backward(retain_graph=True)
    sum(detail.square().sum() for detail in details).backward()
    assert all((parameter.grad != 0).all() for parameter in level.parameters())
