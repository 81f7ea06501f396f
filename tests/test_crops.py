"""Training crops: how many, which size, and few flat ones."""

from __future__ import annotations

import numpy as np
import pytest

from linocut.lab.data.crops import allot, draw_crop

RNG_SEED = 3


@pytest.mark.parametrize("crops", [1, 7, 100])
def test_all_crops_are_allotted_in_proportion_to_area(crops: int) -> None:
    areas = [100, 300, 600]
    counts = allot(areas, crops)
    assert sum(counts) == crops
    assert all(abs(n - crops * a / 1000) < 1 for n, a in zip(counts, areas, strict=True))


@pytest.mark.parametrize("size", [(64, 64), (64, 200), (300, 70)])
def test_crops_have_the_size_even_of_a_picture_that_just_fits(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(RNG_SEED)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    for _ in range(20):
        assert draw_crop(rng, image, 64).shape == (64, 64, 3)


def test_some_crops_are_cut_out_and_some_scaled_down() -> None:
    rng = np.random.default_rng(RNG_SEED)
    image = np.kron(rng.integers(0, 2, (50, 50, 1)) * 255, np.ones((4, 4, 3))).astype(np.uint8)
    pure = [bool(np.isin(draw_crop(rng, image, 32), (0, 255)).all()) for _ in range(40)]
    assert 5 < sum(pure) < 35


def test_flat_crops_are_mostly_drawn_again() -> None:
    rng = np.random.default_rng(RNG_SEED)
    image = np.zeros((256, 512, 3), np.uint8)
    image[:, 256:] = rng.integers(0, 256, (256, 256, 3), np.uint8)
    flat = sum(draw_crop(rng, image, 32).max() == 0 for _ in range(200))
    assert 0 < flat < 60  # half of all places are flat
