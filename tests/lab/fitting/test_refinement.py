"""Effort 3 lowers what the network was trained for, at any size, and says when it cannot."""

import numpy as np
import pytest
import torch

from linocut.codec.codec import Codec
from linocut.codec.correction import scale_of
from linocut.codec.effort import EncodeOptions
from linocut.errors import CheckpointError
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation.rd import bd_rate
from linocut.lab.fitting.refinement import Aim, network_of
from linocut.lab.networks.losses import MS_SSIM_MIN_SIDE_PX, l2
from linocut.models.folders import About
from linocut.pictures.quality import ms_ssim, psnr_db, to_db

PICTURE = dead_leaves(192, 256, 9)
STEPS = (16.0, 36.0, 80.0)


@pytest.fixture(scope="module")
def codecs():
    return {name: Codec.load(name) for name in ("cae-l2", "cae-ms_ssim")}


def curve(codec, effort):
    """Bits per pixel, PSNR and MS-SSIM in dB, each at every step."""
    analysed = codec.analyse(PICTURE)
    points = []
    for step in STEPS:
        data = codec.encode(analysed, step, EncodeOptions(effort))
        decoded = codec.decompress(data)
        similarity = float(to_db(ms_ssim(PICTURE, decoded)))
        points.append((8 * len(data) / PICTURE[..., 0].size, psnr_db(PICTURE, decoded), similarity))
    return np.transpose(points)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cae-l2", "cae-ms_ssim"])
def test_bits_fall_at_equal_quality_of_the_kinds_that_are_aimed_at(codecs, name):
    before, after = (curve(codecs[name], effort) for effort in (2, 3))
    psnr, similarity = (bd_rate(before[0], before[one], after[0], after[one]) for one in (1, 2))
    assert psnr < -1.0
    assert similarity < (-0.5 if name == "cae-ms_ssim" else 1.0)


@pytest.mark.slow
def test_the_networks_own_distortion_serves_it_better_than_squared_error(codecs, monkeypatch):
    codec = codecs["cae-ms_ssim"]
    own = curve(codec, 3)
    monkeypatch.setattr(codec, "about", About.from_json({"loss": "l2"}))
    others = curve(codec, 3)
    assert bd_rate(others[0], others[2], own[0], own[2]) < -2.0


@pytest.mark.parametrize("shape", [(1, 1), (5, 190), (180, 1100)])
def test_any_size_even_one_too_small_for_the_distortion(codecs, shape):
    codec = codecs["cae-ms_ssim"]
    picture = dead_leaves(*(max(side, 64) for side in shape), 3)[: shape[0], : shape[1]]
    data = codec.compress(picture, step=60.0, effort=3)
    assert codec.decompress(data).shape == picture.shape
    assert len(data) <= 1.1 * len(codec.compress(picture, step=60.0, effort=2))


@pytest.mark.parametrize("name", ["cae-l2", "cae-ms_ssim"])
def test_a_flat_picture_stays_small(codecs, name):
    picture = np.full((192, 200, 3), 128, dtype=np.uint8)
    data = codecs[name].compress(picture, step=40.0, effort=3)
    assert psnr_db(picture, codecs[name].decompress(data)) > 40.0
    assert len(data) < 1.2 * len(codecs[name].compress(picture, step=40.0, effort=2))


def test_a_picture_that_must_not_be_written_to_is_no_reason_to_warn(codecs):
    picture = PICTURE[:32, :32].copy()
    picture.flags.writeable = False
    assert len(codecs["cae-l2"].compress(picture, step=80.0, effort=3)) > 0


def test_the_estimate_is_of_the_refined_symbols(codecs):
    codec = codecs["cae-l2"]
    analysed = codec.analyse(PICTURE)
    data, bits = codec.encode_counted(analysed, 60.0, EncodeOptions(3))
    around = codec.bytes_around(analysed, step=60.0)
    assert codec.estimate_bytes(analysed, step=60.0, effort=3) == pytest.approx(
        around + bits.sum() / 8
    )
    assert len(data) > bits.sum() / 8


def test_where_a_picture_is_even_the_gradient_is_a_number(codecs):
    network = network_of(codecs["cae-l2"].transforms)
    y_hat = [
        torch.zeros(1, band.channels, 64 // band.stride, 64 // band.stride)
        for band in network.bands
    ]
    for band in y_hat:
        band.requires_grad_(True)
    assert network.last_layer is not None
    numbers = np.ones((5, network.last_layer.in_channels), dtype=np.int8)
    x_hat = network.synthesis(
        y_hat, torch.tensor([20.0]), scale=torch.from_numpy(scale_of(numbers))
    )
    gradients = torch.autograd.grad(x_hat.square().sum(), y_hat)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(bool(gradient.any()) for gradient in gradients)


def test_the_aim_is_what_the_model_says():
    def aim_of(**facts):
        return Aim.of(About.from_json(facts))

    assert aim_of().distortion.func is l2
    assert aim_of(loss="ms_ssim").inside(176, 400) is not l2
    assert aim_of(loss="ms_ssim").inside(MS_SSIM_MIN_SIDE_PX - 1, 400) is l2
    x, x_hat = torch.zeros(1, 3, 192, 192), torch.full((1, 3, 192, 192), 0.2)
    mixes = [aim_of(loss="mix", loss_numbers={"alpha": alpha}) for alpha in (0.1, 0.9)]
    low, high = (float(aim.distortion(x_hat, x)) for aim in mixes)
    assert low == pytest.approx(0.9 * 0.2 + 0.1 * (high - 0.1 * 0.2) / 0.9, rel=1e-4)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"loss": "lpips"}, r"effort 3 .* has no 'lpips'"),
        ({"loss": "mix"}, "loss lacks alpha"),
    ],
)
def test_an_aim_that_cannot_be_measured_is_one_line(codecs, monkeypatch, about, message):
    codec = codecs["cae-l2"]
    with pytest.raises(CheckpointError, match=message) as caught:
        Aim.of(About.from_json(about))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(codec, "about", About.from_json(about))
    assert len(codec.compress(PICTURE, step=60.0, effort=2)) > 0
    with pytest.raises(CheckpointError, match=message):
        codec.compress(PICTURE, step=60.0, effort=3)
