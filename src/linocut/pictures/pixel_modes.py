"""Samples of every Pillow mode as 8-bit colour and alpha, with a word for each conversion."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from linocut.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

#: (h, w, 3) sRGB samples, 0..255
RgbArray = NDArray[np.uint8]

SIXTEEN_BIT_GREY = {"I;16", "I;16L", "I;16B", "I;16N"}
GREY_MODES = {"1", "L", "LA", "La", "I", *SIXTEEN_BIT_GREY}


def to_eight_bit(
    image: Image.Image, icc: bytes | None, notes: list[str], name: str
) -> tuple[RgbArray, NDArray[np.uint8] | None, bool]:
    """Colour (h, w, 3), alpha (h, w) or None, and whether the samples were grey.

    Args:
        image: loaded, of any mode.
        icc: its colour profile, by which CMYK is converted.
        notes: gets a phrase for each conversion.
        name: how error messages call the picture.

    Raises:
        DataError: samples without a known range, or of a mode that is not supported.
    """
    mode = image.mode
    if mode in SIXTEEN_BIT_GREY or mode == "I":
        return _replicate(_sixteen_to_eight(np.asarray(image), name)), None, True
    if mode == "F":
        raise DataError(f"{name}: floating-point samples have no agreed range, expected integers")
    if mode in {"LA", "La", "PA", "RGBa"} or "transparency" in image.info:
        image = image.convert("LA" if mode in {"L", "1", "LA", "La"} else "RGBA")
    if mode in {"P", "PA"}:
        notes.append("palette expanded")
        if image.mode in {"P", "PA"}:
            image = image.convert("RGB")
    if image.mode == "1":
        image = image.convert("L")
    if image.mode in {"L", "LA"}:
        samples = np.array(image)
        if image.mode == "L":
            return _replicate(samples), None, True
        return _replicate(samples[..., 0]), np.ascontiguousarray(samples[..., 1]), True
    if image.mode not in {"RGB", "RGBA"}:
        image = _to_srgb(image, icc, notes, name)
    samples = np.array(image)
    if image.mode == "RGBA":
        alpha = np.ascontiguousarray(samples[..., 3])
        return np.ascontiguousarray(samples[..., :3]), alpha, False
    return samples, None, False


def _to_srgb(image: Image.Image, icc: bytes | None, notes: list[str], name: str) -> Image.Image:
    """CMYK through its profile where it has one; other colour spaces by Pillow's formulas."""
    from PIL import ImageCms

    if image.mode == "CMYK" and icc is not None:
        try:
            profile = ImageCms.ImageCmsProfile(BytesIO(icc))
            srgb: Any = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
        except ImageCms.PyCMSError:
            converted = None
        if converted is not None:
            notes.append("CMYK converted to sRGB by its profile")
            return converted
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        converted = ImageCms.applyTransform(image, transform)
        if converted is not None:
            notes.append("LAB converted to sRGB")
            return converted
    if image.mode not in {"CMYK", "YCbCr", "HSV", "RGBX"}:
        raise DataError(f"{name}: Pillow mode {image.mode!r} is not supported")
    if image.mode != "RGBX":
        notes.append(f"{image.mode} converted to RGB")
    return image.convert("RGB")


def _sixteen_to_eight(samples: NDArray[Any], name: str) -> NDArray[np.uint8]:
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name}: integer samples span {low}..{high}, expected 0..65535")
    return ((samples.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)


def _replicate(grey: NDArray[np.uint8]) -> RgbArray:
    return np.repeat(grey[..., None], 3, axis=2)
