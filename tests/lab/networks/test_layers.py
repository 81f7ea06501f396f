"""The parts of networks: what is exact stays exact, and what is learned starts silent."""

import numpy as np
import pytest
import torch

from linocut.lab.networks.layers import (
    COLOUR_ROTATION,
    ColourRotation,
    ContrastGain,
    Generator,
    PReLU,
    ResidualAnalysis,
    ResidualSynthesis,
    StepModulation,
    WaveletPyramid,
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
    bands = WaveletPyramid(2, 2)(x)
    repair, generator = ResidualSynthesis(4, 4, 1), Generator(2, 4)
    assert not repair.leave(repair(x, step)).any()
    assert not generator.leave(generator(bands, step)).any()
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
