"""Pixels that nobody sees: what they cost, and what they count when pictures are compared."""

import numpy as np
from numpy.typing import NDArray

from linocut.pictures.image import Picture, RgbArray

_FloatPicture = NDArray[np.float32]


def fill_invisible(picture: Picture) -> RgbArray:
    """The colours of a picture, those of fully transparent pixels made up from their surroundings.

    What lies under an opacity of 0 may be noise that a codec would pay for. Each such pixel gets
    the mean of the visible ones at the finest of the scales 2, 4, 8, ... px that has any nearby, so
    that the result is smooth. Without any visible pixel it is black.
    """
    if picture.alpha is None or picture.alpha.all():
        return picture.rgb
    seen = picture.alpha > 0
    if not seen.any():
        return np.zeros_like(picture.rgb)
    height, width = seen.shape
    made_up = _doubled(_filled(*_halved(picture.rgb, seen)))[:height, :width]
    return np.where(seen[..., None], picture.rgb, np.rint(made_up).astype(np.uint8))


def blacken_invisible(picture: Picture) -> RgbArray:
    """The colours of a picture, those of fully transparent pixels black: least for exact coding."""
    if picture.alpha is None or picture.alpha.all():
        return picture.rgb
    return np.where(picture.alpha[..., None] > 0, picture.rgb, np.uint8(0))


def seen_alike(original: Picture, decoded: Picture) -> RgbArray:
    """The colours of the decoded picture, where neither shows a pixel those of the original.

    Raises:
        ValueError: the pictures differ in size.
    """
    hidden = (opacity(original) == 0) & (opacity(decoded) == 0)
    return np.where(hidden[..., None], original.rgb, decoded.rgb)


def largest_alpha_difference(original: Picture, decoded: Picture) -> int:
    """Largest difference of opacity of two pictures of one size, 0 to 255."""
    difference = opacity(original).astype(np.int16) - opacity(decoded)
    return int(np.abs(difference).max())


def opacity(picture: Picture) -> NDArray[np.uint8]:
    """The alpha channel (h, w), 255 everywhere where the picture has none."""
    if picture.alpha is None:
        return np.full(picture.rgb.shape[:2], 255, np.uint8)
    return picture.alpha


def _filled(colour: _FloatPicture, seen: NDArray[np.bool_]) -> _FloatPicture:
    """Colours (h, w, 3), those not seen taken from the next coarser scale."""
    if seen.all():
        return colour
    height, width = seen.shape
    coarser = _doubled(_filled(*_halved(colour, seen)))[:height, :width]
    return np.where(seen[..., None], colour, coarser)


def _halved(
    colour: NDArray[np.uint8] | _FloatPicture, seen: NDArray[np.bool_]
) -> tuple[_FloatPicture, NDArray[np.bool_]]:
    """Means over the seen ones of 2 x 2 pixels, and where there are any."""
    height, width = (side + side % 2 for side in seen.shape)
    sums = np.zeros((height // 2, width // 2, 3), np.float32)
    counts = np.zeros((height // 2, width // 2), np.float32)
    for y in (0, 1):
        for x in (0, 1):
            part = seen[y::2, x::2]
            place = slice(part.shape[0]), slice(part.shape[1])
            sums[place] += colour[y::2, x::2] * part[..., None]
            counts[place] += part
    means = sums / np.maximum(counts, np.float32(1))[..., None]
    return means.astype(np.float32), counts > 0


def _doubled(colour: _FloatPicture) -> _FloatPicture:
    """Twice as high and wide, by straight lines between samples."""
    for axis in (0, 1):
        length = colour.shape[axis]
        places = np.arange(length)
        before = colour.take(np.maximum(places - 1, 0), axis)
        after = colour.take(np.minimum(places + 1, length - 1), axis)
        own = np.float32(0.75) * colour
        pair = np.stack([own + np.float32(0.25) * before, own + np.float32(0.25) * after], axis + 1)
        shape = list(colour.shape)
        shape[axis] *= 2
        colour = pair.reshape(shape)
    return colour
