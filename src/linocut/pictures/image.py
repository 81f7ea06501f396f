"""Pictures in and out: any file that Pillow opens becomes 8-bit RGB samples, or a clear error.

    file --read_picture--> Picture --encode_picture--> PNG, TIFF, WebP, ... without loss

`read_picture` keeps everything a picture file can carry that this project knows how to carry on
(alpha, ICC profile, EXIF) and says in `Picture.notes` what it had to change. `read_image` is the
plain form for training and measuring: three colour channels and nothing else. What Pillow leaves
undone is done here: transparency keys of every bit depth, white-is-zero of 16 bits, samples of 12.
"""

from __future__ import annotations

import struct
import warnings
import zlib
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
from linocut.pictures.metadata import (
    Carried,
    Png,
    carried_by,
    clean_exif,
    fitting_profile,
    name_of_space,
    png_of,
    space_of_profile,
)

if TYPE_CHECKING:
    from PIL import Image

#: (h, w, 3) sRGB samples, 0..255
RgbArray = NDArray[np.uint8]

SIXTEEN_BIT_GREY = {"I;16", "I;16L", "I;16B", "I;16N"}

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
    | {".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".tga", ".ico", ".qoi"}
)
"""File names that a folder of pictures is searched for, lower case."""

MAX_PIXELS = 2**28
"""Largest picture that is read unless told otherwise, as large as a decoder accepts."""

WRITABLE = {
    ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP", ".ppm": "PPM",
}  # fmt: skip
"""File names that `encode_picture` writes, all without loss, and Pillow's name of the format."""

_HOLDS_EXTRAS = {"PNG", "TIFF", "WEBP"}


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


def read_picture(
    source: str | Path | BinaryIO, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Read one picture file of any Pillow mode, with EXIF orientation applied.

    Args:
        source: a path or an open binary file.
        name: how error messages call the picture; the path when left out.
        max_pixels: larger pictures are refused.

    Raises:
        DataError: unreadable, truncated, animated or multi-page, too large, or samples without a
            known range.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "<stream>")
    with _pillow_errors(name):
        content = Path(source).read_bytes() if isinstance(source, str | Path) else source.read()
        png = png_of(content)
        content, is_negative = _negative_of(png.bare if png else content)
        with _opened(content, name, max_pixels) as opened:
            _refuse_sequences(opened, name)
            notes = _notes_of_samples(opened)
            carried = carried_by(opened, png)
            raw_mode = _raw_mode(opened)
            opened.load()
            key = _alpha_of_key(opened, png) if png and png.key else None
            notes += carried.notes
            picture = _converted(opened, carried, raw_mode, notes, name)
    alpha = picture.alpha if key is None else key
    rgb = 255 - picture.rgb if is_negative else picture.rgb
    if carried.orientation == 1:
        return Picture(rgb, alpha, picture.grey, picture.icc, carried.exif, picture.notes)
    turned = (*picture.notes, "orientation applied")
    if opened.format == "TIFF":  # which Pillow turns itself
        return Picture(rgb, alpha, picture.grey, picture.icc, carried.exif, turned)
    rgb = _upright(rgb, carried.orientation)
    alpha = None if alpha is None else _upright(alpha, carried.orientation)
    return Picture(rgb, alpha, picture.grey, picture.icc, carried.exif, turned)


def from_pillow(image: Image.Image, icc: bytes | None = None, exif: bytes | None = None) -> Picture:
    """An image that Pillow has in memory, as it is: no orientation is applied.

    Raises:
        DataError: samples without a known range.
    """
    raw_mode = _raw_mode(image)
    image.load()
    notes = ["16 bits a sample reduced to 8"] if image.mode in {"I", *SIXTEEN_BIT_GREY} else []
    return _converted(image, Carried(icc, exif), raw_mode, notes, "image")


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

    lost: list[str] = []
    samples = picture.rgb[..., :1] if picture.grey else picture.rgb
    if picture.alpha is not None and kind in _HOLDS_EXTRAS:
        samples = np.dstack([samples, picture.alpha])
    elif picture.alpha is not None:
        lost.append(f"{kind} cannot hold the alpha channel: dropped")
    image = Image.fromarray(
        np.ascontiguousarray(samples.squeeze(2) if samples.shape[2] == 1 else samples)
    )
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    icc, exif = picture.icc, picture.exif
    if kind in _HOLDS_EXTRAS:  # files of earlier encoders may hold others
        icc = fitting_profile(icc, b"GRAY" if picture.grey and kind != "WEBP" else b"RGB ", lost)
        if exif is not None and clean_exif(exif)[2]:
            lost.append("damaged EXIF dropped")
            exif = None
    for name, key, data in (("ICC profile", "icc_profile", icc), ("EXIF", "exif", exif)):
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
    """Turn what Pillow raises on bad files into DataError, and keep its warnings quiet."""
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
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError) as error:
        raise DataError(f"{name}: damaged or truncated picture: {error}") from error
    except (ArithmeticError, AttributeError, struct.error, zlib.error) as error:
        raise DataError(f"{name}: damaged or truncated picture: {error}") from error


def _opened(content: bytes, name: str, max_pixels: int) -> Image.Image:
    """As `Image.open`, whose limit of pixels is one of the whole process."""
    from PIL import Image, UnidentifiedImageError

    file = BytesIO(content)
    for register in (Image.preinit, Image.init):
        register()
        for kind in list(Image.ID):
            factory, accept = Image.OPEN[kind]
            fits = accept(content[:16]) if accept else True
            if not fits or isinstance(fits, str):
                continue
            file.seek(0)
            try:
                opened = factory(file, name)
            except (SyntaxError, LookupError, TypeError, struct.error):
                continue
            width, height = opened.size
            if width * height > max_pixels:
                raise DataError(
                    f"{name}: {width}x{height} px are {width * height} pixels, "
                    f"the limit is {max_pixels}"
                )
            return opened
    raise UnidentifiedImageError(name)


def _refuse_sequences(opened: Image.Image, name: str) -> None:
    frames = getattr(opened, "n_frames", 1)
    if frames > 1 and opened.format != "MPO":
        kind = "an animation" if getattr(opened, "is_animated", False) else "a file"
        if opened.format == "TIFF":
            kind = "a multi-page file"
        raise DataError(f"{name}: {kind} of {frames} pictures, expected a single picture")


def _negative_of(content: bytes) -> tuple[bytes, bool]:
    """A TIFF of 12 or 16 bits in which white is zero as one in which black is, and whether it was.

    Pillow reads such files as their negatives, or not at all, by the order of bytes.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        return content, False
    places, values = {}, {}
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, _, _, values[tag] = struct.unpack_from(f"{order}HHIH", content, place)
            places[tag] = place + 8
    except struct.error:
        return content, False
    if values.get(262) != 0 or values.get(258) not in {12, 16}:
        return content, False
    black_is_zero = struct.pack(f"{order}H", 1)
    return content[: places[262]] + black_is_zero + content[places[262] + 2 :], True


def _raw_mode(image: Image.Image) -> str:
    """How the file holds its samples, which Pillow forgets when it loads them."""
    for tile in getattr(image, "tile", ()):
        args = tile[3]
        return str(args if isinstance(args, str) else args[0] if args else "")
    return ""


def _notes_of_samples(opened: Image.Image) -> list[str]:
    notes = []
    if opened.format == "MPO":
        notes.append("first of several pictures taken")
    if opened.format == "ICO" and len(opened.info.get("sizes", ())) > 1:
        notes.append("largest of several pictures taken")
    bits = _bits_of_tiff(opened)
    if ";16" in _raw_mode(opened) or opened.mode in {"I", *SIXTEEN_BIT_GREY}:
        notes.append(f"{bits if 8 < bits < 16 else 16} bits a sample reduced to 8")
    return notes


def _bits_of_tiff(opened: Image.Image) -> int:
    """Bits a sample of a TIFF file, else 0."""
    return int(getattr(opened, "tag_v2", {}).get(258, (0,))[0]) if opened.format == "TIFF" else 0


def _alpha_of_key(opened: Image.Image, png: Png) -> NDArray[np.uint8]:
    """Opacity of a PNG in which one grey level or colour is transparent, compared at full depth."""
    key = png.key or ()
    if png.colour_type == 0:
        samples = np.asarray(opened.convert("L") if opened.mode == "1" else opened)
        equal = samples == key[0] * {1: 255, 2: 85, 4: 17}.get(png.bit_depth, 1)
    else:
        high = key if png.bit_depth == 8 else tuple(sample >> 8 for sample in key)
        equal = (np.asarray(opened) == high).all(axis=2)
        if png.bit_depth == 16:
            low = tuple(sample & 255 for sample in key)
            equal &= (_low_bytes(png) == low).all(axis=2)
    return np.where(equal, 0, 255).astype(np.uint8)


def _low_bytes(png: Png) -> RgbArray:
    """The low bytes of a PNG of 16-bit RGB, of which Pillow keeps the high ones.

    They are the high ones of numbers whose bytes lie in the other order.
    """
    from PIL import PngImagePlugin

    with PngImagePlugin.PngImageFile(BytesIO(png.bare)) as again:
        again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
        return np.array(again)


def _upright(samples: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Samples (h, w, ...) turned by EXIF's orientation."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        samples = samples[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        samples = samples[::-1]
    return np.ascontiguousarray(samples)


def _converted(
    image: Image.Image, carried: Carried, raw_mode: str, notes: list[str], name: str
) -> Picture:
    """A loaded image of any mode as samples, and the profile where it describes them."""
    icc = carried.icc
    colour, alpha, grey = _to_eight_bit(image, icc, raw_mode, notes, name)
    if image.mode in {"CMYK", "LAB"}:
        icc = None  # the profile described samples that are gone
    icc = fitting_profile(icc, b"GRAY" if grey else b"RGB ", notes)
    return Picture(colour, alpha, grey, icc, carried.exif, tuple(notes))


def _to_eight_bit(
    image: Image.Image, icc: bytes | None, raw_mode: str, notes: list[str], name: str
) -> tuple[RgbArray, NDArray[np.uint8] | None, bool]:
    """Colour (h, w, 3), alpha (h, w) or None, and whether the samples were grey.

    Args:
        image: loaded, of any mode.
        icc: its colour profile, by which CMYK is converted.
        raw_mode: how the file held the samples.
        notes: gets a phrase for each conversion.
        name: how error messages call the picture.

    Raises:
        DataError: samples without a known range, or of a mode that is not supported.
    """
    mode = image.mode
    if mode in SIXTEEN_BIT_GREY or mode == "I":
        samples = np.asarray(image)
        key = image.info.get("transparency")
        opacity = np.where(samples == key, 0, 255).astype(np.uint8) if key is not None else None
        return _replicate(_sixteen_to_eight(_full_range(samples, image), name)), opacity, True
    if mode == "F":
        raise DataError(f"{name}: floating-point samples have no agreed range, expected integers")
    image = _with_usable_key(image, notes)
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
        grey_too = raw_mode.startswith("LA;16")  # which Pillow spreads over three channels
        return np.ascontiguousarray(samples[..., :3]), alpha, grey_too
    return samples, None, False


def _full_range(samples: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    """Grey of a TIFF file as 0..65535, black first; Pillow gives some as they are stored."""
    bits = _bits_of_tiff(image)
    if 8 < bits < 16:
        most = (1 << bits) - 1
        samples = (samples.astype(np.uint32) * 65535 + most // 2) // most
    if bits == 16 and getattr(image, "tag_v2", {}).get(262) == 0:
        samples = 65535 - samples
    return samples


def _with_usable_key(image: Image.Image, notes: list[str]) -> Image.Image:
    """An image whose transparent level or colour, if it has one, is one of its 8-bit samples."""
    key = image.info.get("transparency")
    if image.mode == "1" and isinstance(key, int):
        image = image.convert("L")
        image.info["transparency"] = 255 * key
    elif image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        notes.append("transparency key of 16 bits ignored")  # the low bytes of samples are gone
        image = image.copy()
        del image.info["transparency"]
    return image


def _to_srgb(image: Image.Image, icc: bytes | None, notes: list[str], name: str) -> Image.Image:
    """CMYK through its profile where it has one; other colour spaces by Pillow's formulas."""
    from PIL import ImageCms

    ignored = ""
    if image.mode == "CMYK" and icc is not None:
        converted = _by_profile(image, icc)
        if converted is not None:
            notes.append("CMYK converted to sRGB by its profile")
            return converted
        space = space_of_profile(icc)
        other = space is not None and space != b"CMYK"
        whose = f"profile for {name_of_space(space)}" if space and other else "unreadable profile"
        ignored = f", {whose} ignored"
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
        converted = ImageCms.applyTransform(image, transform)
        if converted is not None:
            own = icc is None or space_of_profile(icc) == b"Lab "
            notes.append("LAB converted to sRGB" + ("" if own else ", its profile ignored"))
            return converted
    if image.mode not in {"CMYK", "YCbCr", "HSV", "RGBX"}:
        raise DataError(f"{name}: Pillow mode {image.mode!r} is not supported")
    if image.mode != "RGBX":
        notes.append(f"{image.mode} converted to RGB{ignored}")
    return image.convert("RGB")


def _by_profile(image: Image.Image, icc: bytes) -> Image.Image | None:
    """CMYK as sRGB, or None where the profile is damaged or of another colour space."""
    from PIL import ImageCms

    if space_of_profile(icc) != b"CMYK":
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        srgb: Any = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _sixteen_to_eight(samples: NDArray[Any], name: str) -> NDArray[np.uint8]:
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name}: integer samples span {low}..{high}, expected 0..65535")
    return ((samples.astype(np.uint32) * 255 + 32895) >> 16).astype(np.uint8)


def _replicate(grey: NDArray[np.uint8]) -> RgbArray:
    return np.repeat(grey[..., None], 3, axis=2)


# --- parts of pictures ----------------------------------------------------------------------------


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


# --- pixels that nobody sees: what they cost, what they count in a comparison ---------------------

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
