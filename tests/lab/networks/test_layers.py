"""The parts of networks: what is exact stays exact, and what is learned starts silent."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from linocut.lab.networks.layers import (
    COLOUR_ROTATION,
    LIFTING_GAIN,
    BatchNorm,
    BlockEncoder,
    BlockGenerator,
    ColourRotation,
    ContrastGain,
    Lifting,
    PReLU,
    ResidualAnalysis,
    ResidualSynthesis,
    StepModulation,
    WaveletLevel,
    WaveletPyramid,
    blocks_of,
    joined,
    step_embedding,
)


def test_the_step_embedding_is_zero_at_32_and_half_an_octave_per_unit():
    embedded = step_embedding(torch.tensor([8.0, 32.0, 128.0]))
    torch.testing.assert_close(embedded, torch.tensor([[-1.0], [0.0], [1.0]]))


def test_the_colour_rotation_is_orthonormal_and_near_its_rounded_numbers():
    matrix = ColourRotation().matrix.double()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3).double(), atol=1e-6, rtol=0)
    np.testing.assert_allclose(matrix, COLOUR_ROTATION, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rectifiers_in_training_are_those_of_pytorch_with_their_slopes(dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6, 7).to(dtype).requires_grad_()
    layer = PReLU(5)
    torch.nn.init.uniform_(layer.weight, -0.5, 1.5)
    weight = torch.randn(2, 5, 6, 7).to(dtype)
    found = layer.train()(x)
    expected = torch.nn.functional.prelu(x, layer.weight.to(dtype))
    close = {"rtol": 2e-2, "atol": 2e-2} if dtype is torch.bfloat16 else {}
    torch.testing.assert_close(found, expected, **close)
    inputs = [x, layer.weight]
    slopes = [torch.autograd.grad((weight * y).float().sum(), inputs) for y in (found, expected)]
    for got, wanted in zip(*slopes, strict=True):
        torch.testing.assert_close(got, wanted, **({"rtol": 5e-2, "atol": 0.2} if close else {}))


def test_grey_has_no_colour_and_mid_grey_is_zero():
    rotated = ColourRotation()(torch.tensor([0.5, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1))
    torch.testing.assert_close(rotated[0], torch.zeros(3, 1, 1), atol=1e-4, rtol=0)
    assert float(rotated[1, 0]) == pytest.approx(127.5 * 3**0.5, rel=1e-4)
    assert float(rotated[1, 1:].abs().max()) < 1e-4


def test_mixed_precision_does_not_touch_the_colours_of_the_linear_path():
    """bfloat16 has 8 bits: a rotation in it would cost about one grey level."""
    x = torch.rand(1, 3, 8, 8)
    colour = ColourRotation()
    with torch.autocast("cpu", torch.bfloat16):
        back = colour.inverse(colour(x))
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)


@torch.no_grad()
def test_gains_start_at_one_and_stay_between_an_eighth_and_eight():
    gain = ContrastGain(9, 2)
    coarser = 1e4 * torch.randn(1, 9, 4, 4)
    torch.testing.assert_close(gain(coarser), torch.ones(1, 9, 8, 8))
    for parameter in gain.parameters():
        parameter.normal_(0, 100.0)
    strong = gain(coarser)
    assert float(strong.min()) > 0.124
    assert float(strong.max()) < 8.01


@torch.no_grad()
def test_residual_branches_start_silent():
    x, step = 50.0 * torch.randn(1, 3, 16, 16), torch.tensor([24.0])
    torch.testing.assert_close(ResidualAnalysis(4, 2)(x), x, atol=0, rtol=0)
    repair = ResidualSynthesis(4, 4, 1)
    assert not repair.leave(repair(x, step)).any()
    features = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(StepModulation(4)(features, step), features, atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_a_pyramid_with_gains_inverts_when_nothing_is_quantised(levels):
    torch.manual_seed(0)
    pyramid = WaveletPyramid(levels, 2)
    for parameter in pyramid.gains.parameters():
        parameter.normal_(0.0, 0.5)
    x = 100.0 * torch.randn(1, 3, 32, 48)
    bands = pyramid(x)
    assert len(bands) == 1 + 3 * levels
    torch.testing.assert_close(pyramid.inverse(bands), x, atol=2e-2, rtol=0)


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


def test_blocks_are_cut_picture_by_picture_and_row_by_row_and_joined_again():
    x = torch.rand(2, 3, 128, 192)
    blocks = blocks_of(x)
    assert blocks.shape == (12, 3, 64, 64)
    assert torch.equal(blocks[6 + 3 + 2], x[1, :, 64:, 128:])
    assert torch.equal(joined(blocks, torch.zeros(len(x), 1, 2, 3)), x)


@torch.no_grad()
def test_a_block_depends_on_its_own_latent_only():
    generator = BlockGenerator(5, 4).eval()
    z = torch.rand(1, 5, 2, 2)
    before = generator(z)
    assert before.shape == (1, 3, 128, 128)
    assert float(before.min()) >= 0
    assert float(before.max()) <= 1
    z[0, :, 0, 1] = -z[0, :, 0, 1]
    changed = (generator(z) != before).any(1)[0]
    inside = changed[:64, 64:]
    assert inside.float().mean() > 0.5
    assert changed.sum() == inside.sum()


@torch.no_grad()
def test_a_latent_depends_on_its_own_block_only_and_lies_within_one():
    encoder = BlockEncoder(5, 4).eval()
    x = torch.rand(1, 3, 128, 128)
    before = encoder(x)
    assert before.shape == (1, 5, 2, 2)
    assert float(before.abs().max()) <= 1
    x[..., 64:, :64] = 1 - x[..., 64:, :64]
    changed = (encoder(x) != before).any(1)[0]
    assert changed.tolist() == [[False, False], [True, False]]


def test_batch_norm_is_that_of_pytorch_and_has_no_integers():
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3), torch.nn.BatchNorm2d(3)
    x = 3.0 * torch.randn(4, 3, 5, 5) + 1.0
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert all(value.is_floating_point() for value in ours.state_dict().values())
