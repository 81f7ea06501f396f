"""Pictures in and out: any file that Pillow opens becomes 8-bit RGB samples, or a clear error.

`read_picture` keeps everything a picture file can carry that this project knows how to carry on
(alpha, ICC profile, EXIF) and says in `Picture.notes` what it had to change. `read_image` is the
plain form for training and measuring: three colour channels and nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from linocut.errors import DataError
from linocut.files import write_atomically

if TYPE_CHECKING:
    from PIL import Image

#: (h, w, 3) sRGB samples, 0..255
RgbArray = NDArray[np.uint8]

SIXTEEN_BIT_GREY = {"I;16", "I;16L", "I;16B", "I;16N"}
GREY_MODES = {"1", "L", "LA", "La", "I", *SIXTEEN_BIT_GREY}

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
    | {".avif", ".tga"}
)
"""File names that a folder of pictures is searched for, lower case."""

WRITABLE = {
    ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP", ".ppm": "PPM",
}  # fmt: skip
"""File names that `encode_picture` writes, all without loss, and Pillow's name of the format."""

_HOLDS_EXTRAS = {"PNG", "TIFF", "WEBP"}

_TIFF_EXIF_TAGS = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825}
"""Description, camera, software, date, artist, copyright, EXIF and GPS: what is not layout."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright, 8 bits a sample.

    Attributes:
        rgb: colour samples (h, w, 3) uint8; a grey picture has three equal channels.
        alpha: opacity (h, w) uint8, or None when the picture has no alpha channel.
        grey: the file held grey samples only.
        icc: the ICC profile of `rgb`, or None.
        exif: the EXIF block without its orientation (already applied), or None.
        notes: what was converted on the way, one short phrase each.
    """

    rgb: RgbArray
    alpha: NDArray[np.uint8] | None = None
    grey: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = field(default=())


def read_picture(source: str | Path | BinaryIO, *, name: str | None = None) -> Picture:
    """Read one picture file of any size and Pillow mode, with EXIF orientation applied.

    Args:
        source: a path or an open binary file.
        name: how error messages call the picture; the path when left out.

    Raises:
        DataError: unreadable, truncated, animated or multi-page, or samples without a known range.
    """
    from PIL import Image, ImageOps

    name = name or (str(source) if isinstance(source, str | Path) else "<stream>")
    with _pillow_errors(name), Image.open(source) as opened:
        _refuse_sequences(opened, name)
        notes = _notes_before_loading(opened)
        opened.load()
        notes += _what_is_not_kept(opened)
        orientation = opened.getexif().get(0x0112, 1)
        if orientation != 1:
            notes.append("orientation applied")
        upright = ImageOps.exif_transpose(opened) if orientation != 1 else opened
        icc = opened.info.get("icc_profile") or None
        exif = upright.info.get("exif") or _exif_of_tiff(opened)
        return _convert(upright, icc, exif, notes, name)


def from_pillow(image: Image.Image, icc: bytes | None = None, exif: bytes | None = None) -> Picture:
    """An image that Pillow has in memory, as it is: no orientation is applied.

    Raises:
        DataError: samples without a known range.
    """
    image.load()
    notes = ["16 bits a sample reduced to 8"] if image.mode in {"I", *SIXTEEN_BIT_GREY} else []
    return _convert(image, icc, exif, notes, "image")


def _exif_of_tiff(opened: Image.Image) -> bytes | None:
    """The EXIF block of a TIFF file, whose own tags hold it among those of its layout."""
    if opened.format != "TIFF":
        return None
    exif = opened.getexif()
    for tag in set(exif) - _TIFF_EXIF_TAGS:
        del exif[tag]
    return exif.tobytes() if len(exif) else None


def _what_is_not_kept(opened: Image.Image) -> list[str]:
    """What the file carries besides pixels, profile and EXIF."""
    notes = []
    if opened.info.get("xmp") or "XML:com.adobe.xmp" in opened.info:
        notes.append("XMP not kept")
    texts = set(getattr(opened, "text", ())) - {"XML:com.adobe.xmp"}
    if texts or opened.info.get("comment"):
        notes.append("text comments not kept")
    gamma = opened.info.get("gamma")
    if gamma and abs(gamma - 1 / 2.2) > 0.01 and "icc_profile" not in opened.info:
        notes.append(f"gamma of {gamma:.3g} not kept")
    return notes


def _convert(
    image: Image.Image, icc: bytes | None, exif: bytes | None, notes: list[str], name: str
) -> Picture:
    colour, alpha, grey = _to_eight_bit(image, icc, notes, name)
    if grey != (image.mode in GREY_MODES) or image.mode in {"CMYK", "LAB"}:
        icc = None  # the profile described samples that are gone
    return Picture(colour, alpha, grey, icc, exif, tuple(notes))


def read_image(source: str | Path | BinaryIO, *, name: str | None = None) -> RgbArray:
    """Read a picture as (h, w, 3) uint8: grey replicated, an opaque alpha channel dropped.

    Raises:
        DataError: as `read_picture`, and for a picture with transparent pixels, because what shows
            behind them is not in the file.
    """
    picture = read_picture(source, name=name)
    if picture.alpha is not None and int(picture.alpha.min()) < 255:
        raise DataError(
            f"{name or source}: has transparent pixels, expected an opaque picture "
            "(flatten it onto a background first)"
        )
    return picture.rgb


def encode_picture(picture: Picture, kind: str = "PNG") -> tuple[bytes, tuple[str, ...]]:
    """A picture as a file of a format in `WRITABLE`, without loss.

    Returns:
        The file, and what the format could not keep, one short phrase each.
    """
    from PIL import Image

    lost = []
    samples = picture.rgb[..., :1] if picture.grey else picture.rgb
    if picture.alpha is not None and kind in _HOLDS_EXTRAS:
        samples = np.dstack([samples, picture.alpha])
    elif picture.alpha is not None:
        lost.append(f"{kind} cannot hold the alpha channel: dropped")
    image = Image.fromarray(
        np.ascontiguousarray(samples.squeeze(2) if samples.shape[2] == 1 else samples)
    )
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    for name, key, data in (
        ("ICC profile", "icc_profile", picture.icc),
        ("EXIF", "exif", picture.exif),
    ):
        if data is not None and kind in _HOLDS_EXTRAS:
            options[key] = data
        elif data is not None:
            lost.append(f"{kind} cannot hold the {name}: dropped")
    buffer = BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be written as {kind}: {error}") from error
    return buffer.getvalue(), tuple(lost)


def write_png(path: str | Path, image: RgbArray) -> None:
    """Write (h, w, 3) uint8 as an 8-bit RGB PNG; the file appears whole or not at all.

    Raises:
        DataError: for an array of another shape or type.
    """
    from PIL import Image

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"{path}: found an array {image.shape} of {image.dtype}, expected (h, w, 3) of uint8"
        )
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())


@contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    """Turn what Pillow raises on bad files into DataError, and keep its size warning quiet."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not a picture that Pillow can read") from error
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: too many pixels: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError) as error:
        raise DataError(f"{name}: damaged or truncated picture: {error}") from error


def _refuse_sequences(opened: Image.Image, name: str) -> None:
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":
        kind = "an animation" if getattr(opened, "is_animated", False) else "a file"
        if opened.format == "TIFF":
            kind = "a multi-page file"
        raise DataError(f"{name}: {kind} of {frames} pictures, expected a single picture")


def _notes_before_loading(opened: Image.Image) -> list[str]:
    """Notes that need the raw mode of the file, which Pillow forgets when it loads."""
    notes = []
    if opened.format == "MPO":
        notes.append("first of several pictures taken")
    raw_modes = " ".join(str(tile[3]) for tile in getattr(opened, "tile", []))
    if ";16" in raw_modes or opened.mode in {"I", *SIXTEEN_BIT_GREY}:
        notes.append("16 bits a sample reduced to 8")
    return notes


def _to_eight_bit(
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
