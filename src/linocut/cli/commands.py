"""What each command of `linocut.cli.main` does; a function per command, named like it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import sys
import warnings
from argparse import Namespace
from collections.abc import Mapping
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linocut.cli.files import STREAM, Job, Options, Outcome, naming, plan, read, run, say
from linocut.codec.picture_files import (
    Target,
    compress_picture,
    decompress_picture,
    describe_file,
)
from linocut.codec.rate_control import DEFAULT_QUALITY
from linocut.errors import CheckpointError, DataError
from linocut.format import bitstream
from linocut.models import folders
from linocut.models.folders import Description
from linocut.pictures.image import (
    PICTURE_SUFFIXES,
    WRITABLE,
    Picture,
    encode_picture,
    largest_alpha_difference,
    read_picture,
    seen_alike,
)

if TYPE_CHECKING:
    from linocut.codec.codec import Codec

SUFFIX = ".lino"
_WORDS = {"None": "-", "True": "yes", "False": "no"}


def compress(options: Namespace) -> int:
    """Pictures to .lino files."""
    pairs = plan(options.inputs, options.output, readable=PICTURE_SUFFIXES, suffix=SUFFIX)
    return run(pairs, partial(_compress_one, options), _pixels_of_picture, _batch(options))


def decompress(options: Namespace) -> int:
    """.lino files to pictures."""
    pairs = plan(options.inputs, options.output, readable=frozenset({SUFFIX}), suffix=".png")
    for job in pairs.jobs:
        _pillow_format(job.target)  # before any work
    return run(pairs, partial(_decompress_one, options), _pixels_of_file, _batch(options))


def compare(options: Namespace) -> int:
    """How close two pictures are."""
    from linocut.pictures.quality import measure

    most = options.max_pixels or bitstream.MAX_PIXELS
    original = read_picture(options.original, max_pixels=most)
    content = read(Path(options.decoded))
    if bitstream.looks_like_lino(content):
        with naming(options.decoded):
            decoded = _decode(content, options, options.threads)
    else:
        decoded = read_picture(BytesIO(content), name=options.decoded, max_pixels=most)
    if original.rgb.shape != decoded.rgb.shape:
        found, expected = _size(decoded), _size(original)
        raise DataError(f"{options.decoded}: is {found} px, expected {expected} as the original")
    alpha_difference = largest_alpha_difference(original, decoded)
    if alpha_difference:
        say(
            f"{options.decoded}: alpha differs from the original by up to {alpha_difference} of "
            "255; PSNR, SSIM and MS-SSIM look at the colours alone"
        )
    quality = measure(original.rgb, seen_alike(original, decoded))
    height, width = original.rgb.shape[:2]
    facts = {
        "psnr_db": round(quality.psnr_db, 4),
        "ssim": round(quality.ssim, 6),
        "ms_ssim": round(quality.ms_ssim, 6),
        "alpha_difference": alpha_difference,
        "bytes": len(content),
        "bpp": round(8 * len(content) / (width * height), 5),
    }
    _show({k: v if math.isfinite(v) else None for k, v in facts.items()}, as_json=options.json)
    return 0


def info(options: Namespace) -> int:
    """What a .lino file holds, without running a network."""
    source = None if options.file == STREAM else Path(options.file)
    with naming(options.file):
        _show(describe_file(read(source)), as_json=options.json)
    return 0


def list_models(options: Namespace) -> int:
    """The models at hand."""
    rows = [_describe_model(name, folder) for name, folder in folders.available().items()]
    if options.json:
        _print(json.dumps(rows, indent=2))
        return 0
    if not rows:
        raise CheckpointError("no models are installed")
    for row in rows:
        mark = "*" if row["default"] else " "
        _print(
            f"{mark} {row['name']:20s} {row['id']}  {row['bytes'] / 1e6:.1f} MB  {row['summary']}"
        )
    _print("* runs without --model; `default` is its other name")
    return 0


def _describe_model(name: str, folder: Path) -> dict[str, Any]:
    description = Description.of(folder)
    about = description.about.facts
    made = [about.get("arch") or description.architecture, about.get("loss")]
    return {
        "name": name,
        "id": folders.model_id(folder).hex(),
        "default": name == folders.RECOMMENDED,
        "bytes": (folder / "model.safetensors").stat().st_size,
        "summary": about.get("summary") or " trained for ".join(str(word) for word in made if word),
    }


def _compress_one(options: Namespace, job: Job, threads: int | None) -> Outcome:
    content = read(job.source)
    most = options.max_pixels or bitstream.MAX_PIXELS
    picture = read_picture(BytesIO(content), name=job.name, max_pixels=most)
    codec = _codec(options.model, options.device, threads)
    data, lost = compress_picture(
        codec,
        picture,
        _target(options),
        effort=options.effort,
        strip=options.strip,
        resilient=options.resilient,
    )
    height, width = picture.rgb.shape[:2]
    detail = f"{width}x{height}, {8 * len(data) / (width * height):.3f} bpp"
    return Outcome(data, len(content), width * height, detail, (*picture.notes, *lost))


def _decompress_one(options: Namespace, job: Job, threads: int | None) -> Outcome:
    content = read(job.source)
    picture = _decode(content, options, threads)
    data, lost = encode_picture(picture, _pillow_format(job.target))
    height, width = picture.rgb.shape[:2]
    notes = (*picture.notes, *lost)
    return Outcome(data, len(content), width * height, f"{width}x{height}", notes)


def _pixels_of_picture(job: Job) -> int:
    from PIL import Image

    assert job.source is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(job.source) as opened:
            return opened.width * opened.height


def _pixels_of_file(job: Job) -> int:
    file = bitstream.unpack(read(job.source), max_pixels=sys.maxsize)
    return file.width * file.height


def _batch(options: Namespace) -> Options:
    return Options(
        force=options.force,
        skip_existing=options.skip_existing,
        processes=1 if options.device == "cuda" else options.jobs,
        threads=options.threads,
        debug=options.debug,
    )


def _decode(content: bytes, options: Namespace, threads: int | None) -> Picture:
    most = options.max_pixels or bitstream.MAX_PIXELS
    file = bitstream.unpack(content, max_pixels=most)
    if file.is_lossless:
        return decompress_picture(None, file)
    model = options.model or str(folders.by_id(file.model_id))
    codec = _codec(model, options.device, threads)
    return decompress_picture(codec, file)


@cache
def _codec(model: str, device: str, threads: int | None) -> Codec:
    """A model, loaded once for all pictures of a command."""
    from linocut.codec.codec import Codec

    _return_freed_memory()
    return Codec.load(model, device=device, threads=threads)


def _return_freed_memory() -> None:
    """Ask glibc to hand freed blocks back at once: it kept those of one tile beside the next."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").mallopt(-1, 1 << 20)  # M_TRIM_THRESHOLD


def _target(options: Namespace) -> Target:
    if options.bpp is not None:
        return Target("bpp", options.bpp)
    if options.psnr is not None:
        return Target("psnr", options.psnr)
    if options.max_bytes is not None:
        return Target("max_bytes", options.max_bytes)
    return Target("quality", DEFAULT_QUALITY if options.quality is None else options.quality)


def _pillow_format(target: Path | None) -> str:
    if target is None:
        return "PNG"
    kind = WRITABLE.get(target.suffix.lower())
    if kind is None:
        raise DataError(f"{target}: cannot write {target.suffix!r}, only {' '.join(WRITABLE)}")
    return kind


def _show(facts: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        shown = _WORDS.get(str(value)) or (f"{value:,}" if isinstance(value, int) else value)
        _print(f"{name:16s} {shown}")


def _size(picture: Picture) -> str:
    height, width = picture.rgb.shape[:2]
    return f"{width}x{height}"


def _print(line: str) -> None:
    if sys.stdout is None:
        raise DataError("standard output is closed")
    sys.stdout.write(f"{line}\n")


COMMANDS = {
    "compress": compress,
    "decompress": decompress,
    "info": info,
    "models": list_models,
    "compare": compare,
}
