"""Generated pictures: repeatable, varied, and with the spectrum of photographs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from linocut.lab.data.dead_leaves import dead_leaves

PICTURES = 4


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    return [dead_leaves(256, 256, seed) for seed in range(PICTURES)]


def spectrum_slope(image: NDArray[np.uint8]) -> float:
    """Exponent of the amplitude spectrum: log amplitude against log frequency, whole octaves."""
    grey = image.mean(axis=2)
    window = np.hanning(grey.shape[0])
    amplitude = np.abs(np.fft.fft2((grey - grey.mean()) * window[:, None] * window))
    frequency = np.hypot(
        np.fft.fftfreq(grey.shape[0])[:, None], np.fft.fftfreq(grey.shape[1])[None]
    )
    edges = np.geomspace(0.02, 0.35, 12)
    rings = [(frequency >= low) & (frequency < high) for low, high in itertools.pairwise(edges)]
    centres = [np.log(frequency[ring].mean()) for ring in rings]
    power = [np.log(np.sqrt((amplitude[ring] ** 2).mean())) for ring in rings]
    return float(np.polyfit(centres, power, 1)[0])


def test_the_same_seed_gives_the_same_picture(pictures: list[NDArray[np.uint8]]) -> None:
    assert np.array_equal(dead_leaves(256, 256, 1), pictures[1])


def test_another_seed_gives_another_picture(pictures: list[NDArray[np.uint8]]) -> None:
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 5


def test_amplitude_falls_about_as_one_over_frequency(pictures: list[NDArray[np.uint8]]) -> None:
    slopes = [spectrum_slope(picture) for picture in pictures]
    assert -1.6 < np.mean(slopes) < -0.9, slopes


def test_pictures_use_the_range_without_clipping_away(pictures: list[NDArray[np.uint8]]) -> None:
    for picture in pictures:
        assert picture.std() > 20
        assert ((picture == 0) | (picture == 255)).mean() < 0.4


def test_pictures_are_coloured(pictures: list[NDArray[np.uint8]]) -> None:
    chroma = [np.abs(p[..., 0].astype(int) - p[..., 2]).mean() for p in pictures]
    assert max(chroma) > 8


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (64, 33)])
def test_any_size_is_possible(size: tuple[int, int]) -> None:
    picture = dead_leaves(*size, seed=0)
    assert picture.shape == (*size, 3)
    assert picture.dtype == np.uint8
