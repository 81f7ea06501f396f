"""SSIMULACRA 2 against its Python port."""

from __future__ import annotations

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

from linocut.pictures.perceptual import Ssimulacra2


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
