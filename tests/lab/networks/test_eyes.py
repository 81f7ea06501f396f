"""The loss for eyes is the slope of SSIMULACRA 2, and holds what that ignores."""

import numpy as np
import pytest
import torch

from linocut.lab.config.params import compose
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.networks.eyes import eyes, visible_difference
from linocut.lab.networks.losses import l2, ms_ssim
from linocut.pictures.quality import on_scale_of_100, ssimulacra2

WEIGHTS = {"visible": 1.0, "squared": 5000.0, "structure": 150.0}


def tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].double() / 255


def blurred(picture, shift=3):
    return (picture.astype(int) + np.roll(picture, shift, 1)) // 2


@pytest.mark.parametrize("shape", [(256, 288), (261, 303)])
def test_the_visible_difference_is_what_the_score_is_made_of(shape):
    x = dead_leaves(shape[0], shape[1], 0)
    x_hat = blurred(x).astype(np.uint8)
    seen = float(visible_difference(tensor(x_hat), tensor(x), beside="zeros"))
    assert on_scale_of_100(seen) == pytest.approx(ssimulacra2(x, x_hat), abs=0.02)


def test_equal_pictures_differ_by_nothing_and_each_is_judged_alone():
    x = tensor(dead_leaves(192, 192, 0))
    other = (x * 0.9 + 0.02).clamp(0, 1)
    both = visible_difference(torch.cat([x, other]), torch.cat([x, x]))
    assert float(both[0]) == pytest.approx(0.0, abs=1e-9)
    assert float(both[1]) == pytest.approx(float(visible_difference(other, x)), rel=1e-9)


def test_it_is_the_sum_of_its_parts():
    x = tensor(dead_leaves(192, 192, 0))
    x_hat = (x + 0.05 * torch.sin(torch.arange(192.0) / 2)).clamp(0, 1)
    parts = visible_difference(x_hat, x) + 5000.0 * l2(x_hat, x) + 150.0 * ms_ssim(x_hat, x)
    torch.testing.assert_close(eyes(x_hat, x, **WEIGHTS), parts)


def test_its_slope_is_finite_everywhere_and_that_of_its_value():
    x = tensor(dead_leaves(192, 192, 0))
    x_hat = (x + 0.1 * torch.sin(torch.arange(192.0) / 2)).requires_grad_()  # also beyond [0, 1]
    (slope,) = torch.autograd.grad(eyes(x_hat, x, **WEIGHTS).sum(), x_hat)
    assert torch.isfinite(slope).all()
    step = 1e-5 * slope / slope.norm()
    ends = [float(eyes(x_hat.detach() + s * step, x, **WEIGHTS)) for s in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(slope.norm()), rel=1e-3)
    (alone,) = torch.autograd.grad(eyes(same := x.clone().requires_grad_(), x, **WEIGHTS), same)
    assert torch.isfinite(alone).all()


def test_it_is_an_option_like_any_other_but_not_one_of_those_compared():
    assert "eyes:eyes" in compose(["loss=eyes"])
    assert "eyes" not in compose()
