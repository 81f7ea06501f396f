"""A whole picture as a .lino file: what the codec codes, and what it does not.

    rgb, invisible pixels made up ── codec ──> tiles
    alpha, ICC profile, EXIF, grey ──────────> blocks of the file, without loss

Where coding the colours without loss gives the smaller file, as it does for screenshots, or one
that meets a limit of bytes, the file holds them so in place of tiles, and needs no network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from linocut.codec.effort import EncodeOptions, is_unlike_photographs
from linocut.codec.rate_control import fit_bytes, fit_psnr, quality_step, step_quality
from linocut.errors import BitstreamError, CheckpointError, ConfigError
from linocut.format.bitstream import (
    ALPHA,
    CORRECTION,
    EXIF,
    HINTS,
    ICC_PROFILE,
    LOSSLESS,
    MAX_PIXELS,
    MAX_STEP_INDEX,
    MOST_METADATA_BYTES,
    NO_MODEL,
    LinoFile,
    pack,
    pack_alpha,
    pack_lossless,
    pack_metadata,
    tile_grid,
    unpack,
    unpack_alpha,
    unpack_lossless,
    unpack_metadata,
)
from linocut.models import folders
from linocut.models.folders import Description
from linocut.pictures.image import Picture, RgbArray, blacken_invisible, fill_invisible
from linocut.pictures.quality import psnr_db

_GREY = 1

_FLAT_SHARE, _FEW_COLOURS, _FEW_PIXELS = 0.4, 64, 4096
"""Share of pixels that equal a neighbour, colours, or pixels, at which lossless coding may win."""

_MOST_GAIN = 0.7
"""Size of a file of more effort than 0, of the one with 0, is nearer to 1 than this."""

_EXACT_BYTES = 64
"""What an exact file may have more than a lossy one. Plain surfaces and regular patterns meet the
quantiser's levels by luck, better at one quality and worse at the next; so they are exact at both.
"""

_RUNGS = (1, *range(10, 101, 10))
"""Qualities that a picture unlike photographs may have."""

_ROOM_BPP = 6.0
"""Lossless files of photographs have 6 to 14 bits a pixel: below, trying is a waste."""

STEPS = (1.0, 2.0 ** (MAX_STEP_INDEX / 64))
"""Finest and coarsest quantisation step of the format, grey levels."""


class PictureCodec(Protocol):
    """What this module needs of `linocut.codec.codec.Codec`."""

    def analyse(self, picture: RgbArray, *, once: bool = False) -> Any:
        """Run the analysis network once, for any number of `encode` calls."""

    def encode(
        self,
        analysed: Any,
        step: float,
        options: EncodeOptions,
    ) -> bytes:
        """Quantise and code."""

    def decompress(self, data: bytes) -> RgbArray:
        """The picture (h, w, 3) of a file, without its blocks."""

    def decode(self, file: LinoFile) -> Any:
        """The same as `picture`, and as `damage` what was wrong with the file."""


@dataclass(frozen=True)
class Target:
    """What the encoder aims at.

    Attributes:
        kind: `quality` 1 to 100; `bpp` at most that many bits a pixel of the whole file;
            `psnr` at least that many dB; `max_bytes` at most that many bytes.
        value: the number.
    """

    kind: Literal["quality", "bpp", "psnr", "max_bytes"]
    value: float


def compress_picture(
    codec: PictureCodec,
    picture: Picture,
    target: Target,
    *,
    effort: int = 2,
    strip: bool = False,
    resilient: bool = False,
) -> tuple[bytes, tuple[str, ...]]:
    """Compress a picture with everything it carries.

    Args:
        codec: codes the colours.
        picture: what to compress.
        target: quality, rate, PSNR or size to aim at.
        effort: of the encoder, 0 (fast) to 3 (small).
        strip: leave ICC profile and EXIF out.
        resilient: write the layout that survives bit errors, which is never a lossless file.

    Returns:
        The file, and what could not be kept, one short phrase each.

    Raises:
        ConfigError: the model cannot reach the target on this picture.
    """
    extras, lost = pack_extras(picture, strip=strip)
    most = _most_bytes(picture, target)
    shown = blacken_invisible(picture)
    exact = None
    if not resilient and (may_be_graphics(shown) or _is_roomy(picture, most)):
        exact = lossless_file(shown, extras)
    if exact is not None and target.kind in {"bpp", "max_bytes"} and len(exact) <= most:
        return exact, lost
    options = EncodeOptions(effort, extras, resilient)
    try:
        data = _lossy_file(codec, fill_invisible(picture), target, most, options, exact)
    except ConfigError:
        if resilient or target.kind != "psnr":
            raise
        exact = exact or lossless_file(shown, extras)
        if exact is None:
            raise
        return exact, lost
    return (data if exact is None or len(data) + _EXACT_BYTES < len(exact) else exact), lost


def _lossy_file(
    codec: PictureCodec,
    rgb: RgbArray,
    target: Target,
    most: float,
    options: EncodeOptions,
    exact: bytes | None,
) -> bytes:
    """What the network makes of the colours; `exact` where a fast try shows that it will win."""
    unlike = target.kind == "quality" and is_unlike_photographs(rgb)
    once = target.kind == "quality" and not unlike and (exact is None or options.effort < 2)
    analysed = codec.analyse(rgb, once=once)

    def encode(step: float) -> bytes:
        return codec.encode(analysed, step, options)

    if unlike:
        return _best_rung(codec, analysed, rgb, target.value, options, exact)
    if target.kind == "quality":
        step = quality_step(target.value)
        if exact is not None and not once:
            fast = codec.encode(analysed, step, replace(options, effort=0))
            if _MOST_GAIN * len(fast) > len(exact):
                return exact
        return encode(step)
    if target.kind == "psnr":

        def encode_and_measure(step: float) -> tuple[bytes, float]:
            data = encode(step)
            return data, psnr_db(rgb, codec.decompress(data))

        return fit_psnr(encode_and_measure, target.value, STEPS)
    return fit_bytes(encode, max(1, int(most)), STEPS)


def _best_rung(
    codec: PictureCodec,
    analysed: Any,
    rgb: RgbArray,
    quality: float,
    options: EncodeOptions,
    exact: bytes | None,
) -> bytes:
    """The best file of all rungs up to a quality, or `exact` from the rung on where it is as small.

    The network and the quantiser's levels suit patterns by luck, so a finer step alone may make a
    worse picture of one: the best that was met is never worse at a higher quality.
    """
    quality_step(quality)  # refuses what is no quality
    best, best_db = b"", -math.inf
    for rung in _RUNGS:
        if rung > quality:
            break
        data = codec.encode(analysed, quality_step(rung), options)
        if exact is not None and len(exact) <= len(data) + _EXACT_BYTES:
            return exact
        decoded = codec.decompress(data)
        decoded_db = psnr_db(rgb, _one_grey(decoded) if is_grey(options.extras) else decoded)
        if decoded_db > best_db:
            best, best_db = data, decoded_db
    return best


def lossless_file(rgb: RgbArray, extras: Mapping[int, bytes]) -> bytes | None:
    """A file of the colours as they are and the blocks `extras`; None where there is none."""
    block = pack_lossless(rgb)
    if block is None:
        return None
    height, width = rgb.shape[:2]
    rows, columns = tile_grid(width, height)
    blocks = {**extras, LOSSLESS: block}
    return pack(LinoFile(width, height, 0, NO_MODEL, [b""] * (rows * columns), blocks))


def may_be_graphics(rgb: RgbArray) -> bool:
    """A quick look whether a picture is drawn or written rather than photographed.

    Of some 256 rows and the ones below them: whether many pixels equal their left or upper
    neighbour, or few colours occur.
    """
    height, width = rgb.shape[:2]
    if height * width <= _FEW_PIXELS:
        return True
    step = max(1, height // 256)
    rows, below = rgb[:-1:step] if height > 1 else rgb, rgb[1::step]
    beside = _equal_share(rows[:, 1:], rows[:, :-1]) if width > 1 else 1.0
    above = _equal_share(rows, below) if height > 1 else 1.0
    if max(beside, above) >= _FLAT_SHARE:
        return True
    red, green, blue = np.moveaxis(rows[:, :: max(1, width // 256)].astype(np.uint32), 2, 0)
    colours = np.sort((red << 16 | green << 8 | blue).ravel())  # np.unique hashes slowly
    return 1 + int(np.count_nonzero(np.diff(colours))) <= _FEW_COLOURS


def _equal_share(pixels: RgbArray, others: RgbArray) -> float:
    """Share of the pixels of two arrays (h, w, 3) that are equal."""
    same = pixels == others
    return float((same[..., 0] & same[..., 1] & same[..., 2]).mean())


def _most_bytes(picture: Picture, target: Target) -> float:
    """The limit that the target sets on the file, or infinity."""
    height, width = picture.rgb.shape[:2]
    if target.kind == "max_bytes":
        return target.value
    return target.value * height * width / 8 if target.kind == "bpp" else math.inf


def _is_roomy(picture: Picture, most_bytes: float) -> bool:
    """Whether a limit leaves so much that even a photograph may fit without loss."""
    height, width = picture.rgb.shape[:2]
    return bool(_ROOM_BPP * height * width / 8 <= most_bytes < math.inf)


def decompress_picture(
    codec: PictureCodec | None, data: bytes | LinoFile, *, max_pixels: int = MAX_PIXELS
) -> Picture:
    """The picture of a file, with everything the file carries, and notes of what was damaged.

    Args:
        codec: decodes the colours; a lossless file needs none.
        data: a whole file, or what `linocut.format.bitstream.unpack` made of it.
        max_pixels: larger pictures are refused.

    Raises:
        BitstreamError: the file or one of its blocks is damaged, or of another model.
    """
    file = data if isinstance(data, LinoFile) else unpack(data, max_pixels=max_pixels)
    alpha = (
        unpack_alpha(file.extras[ALPHA], file.height, file.width) if ALPHA in file.extras else None
    )
    icc, exif = metadata(file.extras)
    grey = is_grey(file.extras)
    if file.is_lossless:
        rgb = unpack_lossless(file.extras[LOSSLESS], file.height, file.width)
        return Picture(rgb, alpha, grey, icc, exif)
    if codec is None:
        raise BitstreamError(f"the file needs the model {file.model_id.hex()}")
    decoded = codec.decode(file)
    rgb, damage = decoded.picture, decoded.damage
    notes = (damage.note,) if damage and damage.note else ()
    return Picture(_one_grey(rgb) if grey else rgb, alpha, grey, icc, exif, notes)


def is_grey(extras: Mapping[int, bytes]) -> bool:
    """Whether the blocks of a file say that the picture was grey."""
    return any(byte & _GREY for byte in extras.get(HINTS, b"")[:1])


def metadata(extras: Mapping[int, bytes]) -> tuple[bytes | None, bytes | None]:
    """ICC profile and EXIF of a file's blocks.

    Raises:
        BitstreamError: a block is damaged.
    """
    icc, exif = extras.get(ICC_PROFILE), extras.get(EXIF)
    return (
        None if icc is None else unpack_metadata(icc, "ICC profile"),
        None if exif is None else unpack_metadata(exif, "EXIF"),
    )


def describe_file(data: bytes) -> dict[str, Any]:
    """What a file says about itself, after its checksum was verified.

    Raises:
        BitstreamError: the file is damaged.
    """
    file = unpack(data)
    step = 2.0 ** (file.step_index / 64)
    name, about = (None, {}) if file.is_lossless else _model_of(file.model_id)
    return {
        "format": f"linocut, version {data[4]}",
        "width": file.width,
        "height": file.height,
        "bytes": len(data),
        "bpp": round(8 * len(data) / (file.width * file.height), 5),
        "lossless": file.is_lossless,
        "step": None if file.is_lossless else round(step, 4),
        "quality": None if file.is_lossless else round(step_quality(step), 1),
        "model_id": None if file.is_lossless else file.model_id.hex(),
        "model": name,
        "decoder_kmac_per_px": about.get("decoder_kmac_per_px"),
        "resilient": file.resilience is not None,
        "tiles": len(file.resilience.segments if file.resilience else file.tiles),
        "payload_bytes": len(file.extras.get(LOSSLESS, b"")) or file.payload_bytes,
        "correction_bytes": len(file.extras.get(CORRECTION, b"")),
        "grey": is_grey(file.extras),
        "alpha_bytes": len(file.extras.get(ALPHA, b"")),
        "icc_bytes": len(file.extras.get(ICC_PROFILE, b"")),
        "exif_bytes": len(file.extras.get(EXIF, b"")),
    }


def _model_of(model_id: bytes) -> tuple[str | None, dict[str, Any]]:
    """Name of the shipped model of this id, and the facts about it."""
    try:
        folder = folders.by_id(model_id)
    except CheckpointError:
        return None, {}
    return folder.name, dict(Description.of(folder).about.facts)


def pack_extras(picture: Picture, *, strip: bool) -> tuple[dict[int, bytes], tuple[str, ...]]:
    """The blocks of a picture by kind, and what is too long to keep."""
    extras, lost = {}, []
    if picture.alpha is not None:
        extras[ALPHA] = pack_alpha(picture.alpha)
    for kind, name, content in (
        (ICC_PROFILE, "ICC profile", picture.icc),
        (EXIF, "EXIF", picture.exif),
    ):
        if content is None or strip:
            continue
        if len(content) > MOST_METADATA_BYTES:
            lost.append(f"{name} of {len(content)} bytes dropped")
        else:
            extras[kind] = pack_metadata(content)
    if picture.grey:
        extras[HINTS] = bytes([_GREY])
    return extras, tuple(lost)


def _one_grey(rgb: RgbArray) -> RgbArray:
    """Three equal channels: the rounded mean."""
    grey = (rgb.sum(axis=2, dtype=np.uint16) + 1) // 3
    return np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)
