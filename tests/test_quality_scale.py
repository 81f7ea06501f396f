"""Quality does not fall when `--quality` rises, whatever is on the picture."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from linocut.codec.codec import Codec
from linocut.codec.effort import is_unlike_photographs
from linocut.codec.picture_files import Target, compress_picture, decompress_picture
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.pictures.image import Picture
from linocut.pictures.quality import psnr_db

SIDE = 96
QUALITIES = (1, *range(10, 101, 10))
Y, X = np.mgrid[:SIDE, :SIDE]
RNG = np.random.default_rng(3)


def in_colours(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


LEAVES = dead_leaves(SIDE, SIDE, seed=2)
CHECKS = in_colours((X + Y) % 2 * 255)
PICTURES = {
    "checkerboard": CHECKS,
    "coarser checkerboard": in_colours((X // 2 + Y // 2) % 2 * 255),
    "stripes": in_colours(X % 2 * 255),
    "noise": RNG.integers(0, 256, (SIDE, SIDE, 3), np.uint8),
    "black or white noise": in_colours(RNG.integers(0, 2, (SIDE, SIDE)) * 255),
    "flat": np.full((SIDE, SIDE, 3), 130, np.uint8),
    "white": np.full((SIDE, SIDE, 3), 255, np.uint8),
    "red": np.dstack([np.full((SIDE, SIDE), 255), 0 * X, 0 * X]).astype(np.uint8),
    "ramp": in_colours(X * 255 / SIDE),
    "ramps of colours": np.dstack([X * 255 / SIDE, Y * 255 / SIDE, X + Y]).astype(np.uint8),
    "noisy checkerboard": in_colours((X + Y) % 2 * 255 + RNG.normal(0, 20, (SIDE, SIDE))),
    "natural": LEAVES,
    "half a checkerboard": np.where((X < SIDE // 2)[..., None], LEAVES, CHECKS),
    "a quarter of stripes": np.where(
        ((X < SIDE // 2) | (Y < SIDE // 2))[..., None], LEAVES, in_colours(X % 2 * 255)
    ),
}


@pytest.fixture(scope="module")
def codec() -> Codec:
    """The shipped one: what an untrained network does proves nothing."""
    return Codec.load(threads=1)


@pytest.mark.parametrize("effort", [0, 1, 2])
@pytest.mark.parametrize("name", PICTURES)
def test_ten_points_of_the_setting_are_never_worse(name: str, effort: int, codec: Codec) -> None:
    rgb = PICTURES[name]
    found = []
    for quality in QUALITIES:
        data, _ = compress_picture(codec, Picture(rgb), Target("quality", quality), effort=effort)
        found.append(psnr_db(rgb, decompress_picture(codec, data).rgb))
    shown = dict(zip(QUALITIES, (round(db, 2) for db in found), strict=True))
    assert all(low <= high for low, high in pairwise(found)), shown


@pytest.mark.parametrize("name", ["noisy checkerboard", "ramps of colours"])
def test_no_point_of_the_setting_is_ever_worse_for_pictures_unlike_photographs(
    name: str, codec: Codec
) -> None:
    rgb = PICTURES[name]
    assert is_unlike_photographs(rgb)
    found = []
    for quality in (1, 2, 5, 9, 10, 14, 20, 23.5, 37, 42, 55, 68, 77, 81, 96, 100):
        data, _ = compress_picture(codec, Picture(rgb), Target("quality", quality), effort=1)
        found.append(psnr_db(rgb, decompress_picture(codec, data).rgb))
    assert all(low <= high for low, high in pairwise(found)), found


def test_regular_patterns_and_bare_ramps_are_told_from_photographs() -> None:
    unlike = {name for name, rgb in PICTURES.items() if is_unlike_photographs(rgb)}
    assert set(PICTURES) - unlike == {"natural"}
    assert not is_unlike_photographs(CHECKS[:15])  # too small to tell; those are exact anyway
