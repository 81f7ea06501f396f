"""A whole picture as a .lino file: what the codec codes, and what it does not.

rgb ──────────────────────────── codec ──> tiles
alpha, ICC profile, EXIF, grey ──────────> blocks of the file, without loss

block         content
ALPHA         `linocut.format.blocks`
ICC_PROFILE   size as u32, little-endian, then a zlib stream of that size
EXIF          packed like the profile
HINTS         one byte, bit 0: the picture is grey, a decoder may give one channel
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np

from linocut.codec.rate_control import fit_bytes, fit_psnr, quality_step, step_quality
from linocut.errors import BitstreamError, CheckpointError
from linocut.format.bitstream import (
    ALPHA,
    CORRECTION,
    EXIF,
    HINTS,
    ICC_PROFILE,
    MAX_PIXELS,
    MAX_STEP_INDEX,
    LinoFile,
    unpack,
)
from linocut.format.blocks import inflate, pack_alpha, unpack_alpha
from linocut.models import shipped
from linocut.pictures.image import Picture, RgbArray

_GREY = 1

MOST_METADATA_BYTES = 1 << 22
"""Longest ICC profile or EXIF block that is kept or accepted."""

STEPS = (1.0, 2.0 ** (MAX_STEP_INDEX / 64))
"""Finest and coarsest quantisation step of the format, grey levels."""


class PictureCodec(Protocol):
    """What this module needs of `linocut.codec.codec.Codec`."""

    def analyse(self, picture: RgbArray, *, once: bool = False) -> Any:
        """Run the analysis network once, for any number of `encode` calls."""

    def encode(
        self,
        analysed: Any,
        *,
        step: float,
        effort: int,
        extras: Mapping[int, bytes] | None,
        resilient: bool,
    ) -> bytes:
        """Quantise and code."""

    def decompress(self, data: bytes) -> RgbArray:
        """The picture (h, w, 3) of a file, without its blocks."""

    def decode(self, data: LinoFile) -> Any:
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
        resilient: write the layout that survives bit errors.

    Returns:
        The file, and what could not be kept, one short phrase each.

    Raises:
        ConfigError: the model cannot reach the target on this picture.
    """
    extras, lost = pack_extras(picture, strip=strip)
    analysed = codec.analyse(picture.rgb, once=target.kind == "quality")
    encode = partial(codec.encode, analysed, effort=effort, extras=extras, resilient=resilient)
    if target.kind == "quality":
        return encode(step=quality_step(target.value)), lost
    if target.kind == "psnr":

        def encode_and_measure(step: float) -> tuple[bytes, float]:
            from linocut.pictures.quality import psnr_db

            data = encode(step=step)
            return data, psnr_db(picture.rgb, codec.decompress(data))

        return fit_psnr(encode_and_measure, target.value, STEPS), lost
    height, width = picture.rgb.shape[:2]
    most = target.value if target.kind == "max_bytes" else target.value * height * width / 8
    return fit_bytes(lambda step: encode(step=step), max(1, int(most)), STEPS), lost


def decompress_picture(
    codec: PictureCodec, data: bytes | LinoFile, *, max_pixels: int = MAX_PIXELS
) -> Picture:
    """The picture of a file, with everything the file carries, and notes of what was damaged.

    Args:
        codec: decodes the colours.
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
    decoded = codec.decode(file)
    rgb, damage = decoded.picture, decoded.damage
    grey = is_grey(file.extras)
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
    return _inflate(extras.get(ICC_PROFILE), "ICC profile"), _inflate(extras.get(EXIF), "EXIF")


def describe_file(data: bytes) -> dict[str, Any]:
    """What a file says about itself, after its checksum was verified.

    Raises:
        BitstreamError: the file is damaged.
    """
    file = unpack(data)
    step = 2.0 ** (file.step_index / 64)
    name, about = _model_of(file.model_id)
    return {
        "format": f"linocut, version {data[4]}",
        "width": file.width,
        "height": file.height,
        "bytes": len(data),
        "bpp": round(8 * len(data) / (file.width * file.height), 5),
        "step": round(step, 4),
        "quality": round(step_quality(step), 1),
        "model_id": file.model_id.hex(),
        "model": name,
        "decoder_kmac_per_px": about.get("decoder_kmac_per_px"),
        "resilient": file.resilience is not None,
        "tiles": len(file.resilience.segments if file.resilience else file.tiles),
        "payload_bytes": file.payload_bytes,
        "correction_bytes": len(file.extras.get(CORRECTION, b"")),
        "grey": is_grey(file.extras),
        "alpha_bytes": len(file.extras.get(ALPHA, b"")),
        "icc_bytes": len(file.extras.get(ICC_PROFILE, b"")),
        "exif_bytes": len(file.extras.get(EXIF, b"")),
    }


def _model_of(model_id: bytes) -> tuple[str | None, dict[str, Any]]:
    """Name of the shipped model of this id, and the facts about it."""
    try:
        folder = shipped.by_id(model_id)
    except CheckpointError:
        return None, {}
    return folder.name, json.loads((folder / "model.json").read_text(encoding="utf-8"))["about"]


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
            extras[kind] = len(content).to_bytes(4, "little") + zlib.compress(content, 9)
    if picture.grey:
        extras[HINTS] = bytes([_GREY])
    return extras, tuple(lost)


def _inflate(block: bytes | None, what: str) -> bytes | None:
    if block is None:
        return None
    size = int.from_bytes(block[:4], "little")
    if len(block) < 4 or size > MOST_METADATA_BYTES:
        raise BitstreamError(
            f"{what} block claims {size} bytes, expected at most {MOST_METADATA_BYTES}"
        )
    return inflate(block[4:], size, what)


def _one_grey(rgb: RgbArray) -> RgbArray:
    """Three equal channels: the rounded mean."""
    grey = (rgb.sum(axis=2, dtype=np.uint16) + 1) // 3
    return np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)
