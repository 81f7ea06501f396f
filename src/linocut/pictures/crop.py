"""Parts of pictures: the middle, the busiest square, a square at a corner."""

import numpy as np

from linocut.pictures.image import RgbArray


def centre(picture: RgbArray, height: int, width: int) -> RgbArray:
    """The middle of a picture, at most (height, width, 3), contiguous."""
    top = max(0, (picture.shape[0] - height) // 2)
    left = max(0, (picture.shape[1] - width) // 2)
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def crop(picture: RgbArray, corner: tuple[int, int], side: int) -> RgbArray:
    """The square at a corner (y, x), smaller where the picture ends."""
    return picture[corner[0] : corner[0] + side, corner[1] : corner[1] + side]


def busiest_corner(picture: RgbArray, side: int) -> tuple[int, int]:
    """Top left corner (y, x) of the square with the largest sum of absolute luma gradients."""
    luma = picture.astype(np.float64) @ (0.299, 0.587, 0.114)
    energy = np.zeros(luma.shape)
    energy[:, 1:] += np.abs(np.diff(luma, axis=1))
    energy[1:, :] += np.abs(np.diff(luma, axis=0))
    height, width = (min(side, length) for length in luma.shape)
    total = np.pad(energy.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width]
    sums = sums + total[:-height, :-width]
    y, x = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return int(y), int(x)
