"""A distance of textures: indifferent to place, sensitive to what is lost."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from linocut.errors import DataError
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.studies.twin import patch_distance


def test_equal_pictures_have_no_distance() -> None:
    picture = dead_leaves(64, 64, 0)
    assert patch_distance(picture, picture) == 0.0


def test_more_blur_is_farther() -> None:
    picture = dead_leaves(96, 96, 0)
    image = Image.fromarray(picture)
    found = [
        patch_distance(picture, np.asarray(image.filter(ImageFilter.GaussianBlur(radius))))
        for radius in (0.5, 1.0, 2.0)
    ]
    assert found == sorted(found)
    assert found[0] > 0


def test_texture_in_another_place_is_nearer_than_texture_that_is_gone() -> None:
    rng = np.random.default_rng(0)
    noise, other = (rng.integers(64, 192, (96, 96, 3), dtype=np.uint8) for _ in range(2))
    flat = np.full_like(noise, 128)
    assert patch_distance(noise, other) < 0.2 * patch_distance(noise, flat)


def test_other_shapes_and_small_pictures_are_refused() -> None:
    picture = dead_leaves(64, 64, 0)
    with pytest.raises(DataError, match="equal shapes"):
        patch_distance(picture, picture[:32])
    with pytest.raises(DataError, match="at least 28 px"):
        patch_distance(picture[:20], picture[:20])
