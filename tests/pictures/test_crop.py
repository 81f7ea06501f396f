"""Parts of pictures lie where their names say."""

import numpy as np

from linocut.pictures.crop import busiest_corner, centre, crop


def test_the_middle_has_as_much_around_it_on_every_side() -> None:
    picture = np.arange(9 * 12 * 3, dtype=np.uint8).reshape(9, 12, 3)
    np.testing.assert_array_equal(centre(picture, 5, 4), picture[2:7, 4:8])
    np.testing.assert_array_equal(centre(picture, 50, 4), picture[:, 4:8])


def test_the_crop_is_where_the_gradients_are() -> None:
    picture = np.full((300, 400, 3), 128, np.uint8)
    picture[40:140:2, 250:350] = 0
    y, x = busiest_corner(picture, side=100)
    assert (abs(y - 40) <= 1, abs(x - 250) <= 1) == (True, True)
    assert busiest_corner(picture[:50, :60], side=100) == (0, 0)
    assert crop(picture, (250, 350), side=100).shape == (50, 50, 3)
