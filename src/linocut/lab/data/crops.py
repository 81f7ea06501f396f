"""Training crops: random squares of pictures, packed into one array.

A crop is taken at a random scale between half and full size where the picture is large enough, so
that the compression artefacts of JPEG sources vanish and every structure is seen at several
sizes. Nearly flat crops teach little and are mostly drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from linocut.pictures.image import RgbArray

SMALLEST_SCALE = 0.5
_SCALED_SHARE = 0.6
"""Share of crops at a reduced scale; the others are cut out as they are."""
_FLAT_LEVELS = 1.5
"""Mean absolute difference of neighbours below which a crop counts as flat, in 8-bit levels."""
_FLAT_REFUSAL = 0.8
_DRAWS = 4


def allot(areas_px: Sequence[int], crops: int) -> list[int]:
    """How many crops each picture gives: in proportion to its area, at least its floor.

    The shares that rounding leaves over go to the largest remainders, earlier pictures first.
    """
    total = sum(areas_px)
    exact = [crops * area / total for area in areas_px]
    counts = [math.floor(value) for value in exact]
    order = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: crops - sum(counts)]:
        counts[i] += 1
    return counts


def draw_crop(rng: np.random.Generator, image: RgbArray, size_px: int) -> NDArray[np.uint8]:
    """One crop (size_px, size_px, 3) of a picture whose sides are at least `size_px`."""
    for draw in range(_DRAWS):
        crop = _cut(rng, image, size_px)
        flat = _activity(crop) < _FLAT_LEVELS
        if not flat or draw + 1 == _DRAWS or rng.random() > _FLAT_REFUSAL:
            break
    return crop


def _cut(rng: np.random.Generator, image: RgbArray, size_px: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    smallest = max(SMALLEST_SCALE, size_px / min(height, width))
    scaled = rng.random() < _SCALED_SHARE
    scale = float(rng.uniform(smallest, 1.0)) if scaled else 1.0
    side = min(round(size_px / scale), height, width)
    top = int(rng.integers(0, height - side + 1))
    left = int(rng.integers(0, width - side + 1))
    window = image[top : top + side, left : left + side]
    if side == size_px:
        return window
    from PIL import Image

    resized = Image.fromarray(np.ascontiguousarray(window)).resize(
        (size_px, size_px), Image.Resampling.LANCZOS
    )
    return np.asarray(resized)


def _activity(crop: NDArray[np.uint8]) -> float:
    """Mean absolute difference of horizontal and vertical neighbours of the green channel."""
    green = crop[..., 1].astype(np.int16)
    across = float(np.abs(np.diff(green, axis=1)).mean())
    down = float(np.abs(np.diff(green, axis=0)).mean())
    return (across + down) / 2
