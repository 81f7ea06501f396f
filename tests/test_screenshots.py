"""The screens of the benchmark are what the encoder takes for graphics; photographs are not."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from benchmarks.screenshots import screenshots

from linocut.codec.picture_files import lossless_file, may_be_graphics
from linocut.pictures.image import Picture, encode_picture


def test_six_screens_are_the_same_every_time_and_smaller_than_png() -> None:
    first, again = screenshots(), screenshots()
    assert len(first) == 6
    for name, image in first.items():
        assert np.array_equal(image, again[name])
        assert may_be_graphics(image)
        exact = lossless_file(image, {})
        assert exact is not None
        assert len(exact) < 0.6 * len(encode_picture(Picture(image))[0])


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket", "camera"])
def test_photographs_are_not_taken_for_graphics(name: str) -> None:
    image = getattr(skimage.data, name)()
    assert not may_be_graphics(np.dstack([image] * 3) if image.ndim == 2 else image)


@pytest.mark.parametrize("size", [(1, 9000), (9000, 1), (300, 301), (2, 4000)])
def test_flat_pictures_of_any_shape_are_graphics(size: tuple[int, int]) -> None:
    assert may_be_graphics(np.full((*size, 3), 7, np.uint8))


def test_few_colours_without_equal_neighbours_are_graphics() -> None:
    board = np.indices((100, 120)).sum(axis=0) % 2 * np.uint8(255)
    assert may_be_graphics(np.dstack([board] * 3).astype(np.uint8))
