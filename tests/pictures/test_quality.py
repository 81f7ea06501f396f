"""Metrics against independent implementations, and the traps that fake them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import pytorch_msssim
import skimage.data
import skimage.metrics
import torch
from numpy.typing import NDArray
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

from linocut.errors import DataError
from linocut.pictures.quality import (
    Ssimulacra2,
    measure,
    ms_ssim,
    psnr_db,
    ssim,
    ssimulacra2,
    to_db,
)

Rgb = NDArray[np.uint8]


def noisy(image: Rgb, deviation: float, seed: int = 0) -> Rgb:
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photo() -> Rgb:
    """A photograph of odd width and height, 197 x 263."""
    return np.ascontiguousarray(skimage.data.chelsea()[:197, :263])


@pytest.mark.parametrize("deviation", [1.0, 8.0, 40.0])
def test_psnr_equals_scikit_image(photo: Rgb, deviation: float) -> None:
    decoded = noisy(photo, deviation)
    expected = skimage.metrics.peak_signal_noise_ratio(photo, decoded, data_range=255)
    assert psnr_db(photo, decoded) == pytest.approx(expected, abs=1e-9)


def test_psnr_of_a_constant_error_of_one_is_20_log_255() -> None:
    grey = np.full((8, 9, 3), 100, np.uint8)
    assert psnr_db(grey, grey + np.uint8(1)) == pytest.approx(20 * np.log10(255))


@pytest.mark.parametrize("deviation", [1.0, 8.0, 40.0])
def test_ssim_equals_scikit_image_on_valid_pixels(photo: Rgb, deviation: float) -> None:
    decoded = noisy(photo, deviation)
    _, full = skimage.metrics.structural_similarity(
        photo,
        decoded,
        data_range=255,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        win_size=11,
        full=True,
    )
    assert ssim(photo, decoded) == pytest.approx(full[5:-5, 5:-5].mean(), abs=2e-6)


@pytest.mark.parametrize("deviation", [1.0, 8.0, 40.0])
def test_both_similarities_equal_pytorch_msssim_in_float64(photo: Rgb, deviation: float) -> None:
    decoded = noisy(photo, deviation)
    x, y = (torch.tensor(image).permute(2, 0, 1)[None].double() / 255 for image in (photo, decoded))
    quality = measure(photo, decoded)
    expected_ssim = float(pytorch_msssim.ssim(x, y, data_range=1.0))
    assert quality.ssim == pytest.approx(expected_ssim, abs=3e-6)
    expected = float(pytorch_msssim.ms_ssim(x, y, data_range=1.0))
    assert quality.ms_ssim == pytest.approx(expected, abs=3e-6)
    assert float(to_db(quality.ms_ssim)) == pytest.approx(float(to_db(expected)), abs=0.005)


def test_value_range_is_the_one_of_eight_bits(photo: Rgb) -> None:
    """The forgotten `data_range` turns a bad picture into a nearly perfect one."""
    decoded = noisy(photo, 40.0)
    x, y = (torch.tensor(i).permute(2, 0, 1)[None].float() / 255 for i in (photo, decoded))
    wrong = float(pytorch_msssim.ms_ssim(x, y))
    assert wrong > 0.99
    assert ms_ssim(photo, decoded) < 0.95


def test_equal_pictures_are_perfect(photo: Rgb) -> None:
    quality = measure(photo, photo.copy())
    assert quality.psnr_db == float("inf")
    assert quality.ssim == pytest.approx(1.0, abs=1e-6)
    assert quality.ms_ssim == pytest.approx(1.0, abs=1e-6)


def test_inverted_structure_gives_a_number_and_not_nan() -> None:
    wave = np.tile((np.arange(200) % 2 * 200).astype(np.uint8)[:, None, None], (1, 200, 3))
    quality = measure(wave, 200 - wave)
    assert quality.ssim < 0
    assert quality.ms_ssim == 0


def test_small_pictures_have_no_ms_ssim_and_tiny_ones_no_ssim() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (161, 161, 3), dtype=np.uint8)
    assert np.isfinite(measure(picture, noisy(picture, 9)).ms_ssim)
    small = picture[:160]
    assert np.isnan(ms_ssim(small, noisy(small, 9)))
    assert np.isfinite(ssim(small, noisy(small, 9)))
    tiny = picture[:10]
    assert np.isnan(ssim(tiny, tiny))
    assert psnr_db(tiny[:1, :1], tiny[:1, :1]) == float("inf")


def test_ssimulacra2_is_100_for_equal_pictures_and_falls_with_noise() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    assert ssimulacra2(picture, picture) == pytest.approx(100.0)
    scores = [ssimulacra2(picture, noisy(picture, sigma)) for sigma in (2, 8, 32)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] < 100
    assert np.isnan(ssimulacra2(picture[:7], picture[:7]))


def test_decibels_of_similarity() -> None:
    assert to_db([0.9, 0.99, 0.0]) == pytest.approx([10.0, 20.0, 0.0])
    assert to_db(1.0) == float("inf")


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (np.zeros((8, 9, 3), np.float32), "float32"),
        (np.zeros((8, 9), np.uint8), r"\(8, 9\)"),
        (np.zeros((9, 8, 3), np.uint8), "like the original"),
        (np.zeros((0, 9, 3), np.uint8), r"\(0, 9, 3\)"),
    ],
)
def test_anything_but_equal_rgb_shapes_is_refused(bad: NDArray[np.generic], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        psnr_db(np.zeros((8, 9, 3), np.uint8), bad)  # type: ignore[arg-type]


def port(original: np.ndarray, decoded: np.ndarray) -> float:
    files = [io.BytesIO(), io.BytesIO()]
    for picture, file in zip((original, decoded), files, strict=True):
        Image.fromarray(picture).save(file, "PPM")
    return float(compute_ssimulacra2(*files))


@pytest.mark.parametrize(("height", "width"), [(197, 263), (64, 48), (300, 9)])
def test_scores_are_those_of_the_port_at_every_quality_and_odd_size(
    height: int, width: int
) -> None:
    original = np.ascontiguousarray(skimage.data.chelsea()[:height, :width])
    scorer = Ssimulacra2(original)
    for quality in (3, 30, 90):
        file = io.BytesIO()
        Image.fromarray(original).save(file, "JPEG", quality=quality)
        decoded = np.asarray(Image.open(file))
        assert scorer.score(decoded) == pytest.approx(port(original, decoded), abs=0.05)


def test_colour_errors_count_too() -> None:
    original = np.ascontiguousarray(skimage.data.chelsea()[:96, :96])
    swapped = np.ascontiguousarray(original[..., ::-1])
    expected = port(original, swapped)
    assert Ssimulacra2(original).score(swapped) == pytest.approx(expected, abs=0.05)


def test_a_picture_too_small_for_one_scale_has_no_score() -> None:
    tiny = np.zeros((7, 99, 3), np.uint8)
    assert np.isnan(Ssimulacra2(tiny).score(tiny))
