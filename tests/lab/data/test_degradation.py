"""What a restoration gets to see."""

import numpy as np
import pytest

from linocut.lab.config.params import DejpegConfig, DenoiseConfig
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.data.degradation import add_noise, degradation


def test_noise_has_the_standard_deviation_asked_for() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    error = add_noise(grey, 20.0, np.random.default_rng(0)).astype(float) - 128
    assert error.std() == pytest.approx(20.0, rel=0.02)
    assert error.mean() == pytest.approx(0.0, abs=0.3)


def test_noise_of_zero_leaves_the_picture_alone() -> None:
    picture = dead_leaves(32, 32, 0)
    assert np.array_equal(add_noise(picture, 0.0, np.random.default_rng(0)), picture)


@pytest.mark.parametrize("task", [DenoiseConfig(25.0), DejpegConfig(10)])
def test_the_same_randomness_degrades_in_the_same_way(task: DenoiseConfig | DejpegConfig) -> None:
    picture, degrade = dead_leaves(48, 64, 0), degradation(task)
    first, second = (degrade(picture, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.dtype == np.uint8
    assert first.shape == picture.shape
    assert not np.array_equal(first, picture)


def test_a_lower_quality_degrades_more() -> None:
    picture, rng = dead_leaves(64, 64, 0), np.random.default_rng(0)
    errors = [
        np.square(degradation(DejpegConfig(quality))(picture, rng).astype(float) - picture).mean()
        for quality in (10, 50, 90)
    ]
    assert errors == sorted(errors, reverse=True)
