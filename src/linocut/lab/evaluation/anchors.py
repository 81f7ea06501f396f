"""Reference codecs, each at its best honest settings, through Pillow or, for JPEG XL, imagecodecs.

An anchor that is run badly flatters everything beside it. JPEG 2000 with Pillow's defaults (5/3
wavelet, no colour transform) loses 5 dB at 1 bpp against the same coder with 9/7 and the transform;
JPEG without optimised progressive scans spends an eighth more bits. So the settings are written out
here, the versions of the coders are recorded, and a test holds the curves on the Kodak pictures to
within 1 % of measurements that others published; for JPEG XL there were none to hold it to.

AVIF runs on one thread with Pillow's other defaults, as it was measured: on two or more threads
libavif writes other files, and by default it takes as many as the machine has. JPEG XL runs at its
default effort, as a bare codestream.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, features

from linocut.errors import DataError
from linocut.lab.config.process import map_in_processes
from linocut.lab.evaluation.rows import AnchorRow, write_rows
from linocut.pictures.image import RgbArray, read_image
from linocut.pictures.quality import Ssimulacra2, measure

if TYPE_CHECKING:
    from linocut.lab.config.params import AnchorsConfig


@dataclass(frozen=True)
class Anchor:
    """A codec and the settings that span its curve.

    Attributes:
        title: its name in tables and figures.
        format: Pillow's name of the file format, or `JXL`.
        library: Pillow's name of the library underneath, for its version.
        ladder: settings from low to high rate; a quality, or for JPEG 2000 the compression ratio.
        options: what Pillow's `save` is given for a setting, beside the format, or imagecodecs.
    """

    title: str
    format: str
    library: str
    ladder: tuple[int, ...]
    options: Callable[[float, int], dict[str, Any]]


def _jpeg(setting: float, speed: int) -> dict[str, Any]:
    return {
        "quality": int(setting), "optimize": True, "progressive": True, "subsampling": "4:2:0",
    }  # fmt: skip


def _jpeg2000(setting: float, speed: int) -> dict[str, Any]:
    return {
        "quality_mode": "rates", "quality_layers": [setting],
        "irreversible": True, "mct": 1, "no_jp2": True,
    }  # fmt: skip


def _webp(setting: float, speed: int) -> dict[str, Any]:
    return {"quality": int(setting), "method": 6}


def _avif(subsampling: str) -> Callable[[float, int], dict[str, Any]]:
    def options(setting: float, speed: int) -> dict[str, Any]:
        return {
            "quality": int(setting), "subsampling": subsampling, "speed": speed,
            "max_threads": 1,
        }  # fmt: skip

    return options


def _jpegxl(setting: float, speed: int) -> dict[str, Any]:
    return {"level": int(setting), "effort": 7, "numthreads": 1}


_JPEG_XL = "JXL"
_JPEG_XL_START = b"\xff\x0a"
_QUALITIES = (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95)
_AVIF_QUALITIES = (10, 20, 30, 40, 50, 60, 70, 80, 90)
_RATIOS = (240, 160, 120, 96, 80, 60, 48, 40, 32, 24, 20, 16, 12, 10)

ANCHORS: Mapping[str, Anchor] = {
    "jpeg": Anchor("JPEG", "JPEG", "libjpeg_turbo", _QUALITIES, _jpeg),
    "jpeg2000": Anchor("JPEG 2000", "JPEG2000", "jpg_2000", _RATIOS, _jpeg2000),
    "webp": Anchor("WebP", "WEBP", "webp", (1, *_QUALITIES), _webp),
    "avif_420": Anchor("AVIF 4:2:0", "AVIF", "avif", _AVIF_QUALITIES, _avif("4:2:0")),
    "avif_444": Anchor("AVIF 4:4:4", "AVIF", "avif", _AVIF_QUALITIES, _avif("4:4:4")),
    "jpegxl": Anchor("JPEG XL", _JPEG_XL, "libjxl", _QUALITIES, _jpegxl),
}


def ladder(codec: str, points: int) -> tuple[int, ...]:
    """At most `points` settings of an anchor, evenly along its curve, both ends included."""
    settings = ANCHORS[codec].ladder
    picked = np.linspace(0, len(settings) - 1, min(points, len(settings))).round().astype(int)
    return tuple(settings[index] for index in picked)


def encode(codec: str, image: RgbArray, setting: float, avif_speed: int = 6) -> bytes:
    """Compress (h, w, 3) uint8 with an anchor; `bytes` is the whole file.

    Raises:
        DataError: this Pillow, or imagecodecs, was built without the codec.
    """
    anchor = ANCHORS[codec]
    options = anchor.options(setting, avif_speed)
    if anchor.format == _JPEG_XL:
        return bytes(_jpeg_xl().jpegxl_encode(image, **options))
    file = io.BytesIO()
    try:
        Image.fromarray(image).save(file, format=anchor.format, **options)
    except (KeyError, OSError, ValueError) as error:
        raise DataError(f"this Pillow cannot write {anchor.title}: {error}") from None
    return file.getvalue()


def decode(data: bytes) -> RgbArray:
    """Decompress a file of any anchor to (h, w, 3) uint8."""
    if data.startswith(_JPEG_XL_START):
        picture: RgbArray = _jpeg_xl().jpegxl_decode(data, numthreads=1)
        return picture
    return read_image(io.BytesIO(data), name="anchor")


def _jpeg_xl() -> Any:
    """The package that writes and reads JPEG XL."""
    import imagecodecs

    if not imagecodecs.JPEGXL.available:
        raise DataError("this imagecodecs was built without JPEG XL")
    return imagecodecs


def encode_near(
    codec: str,
    image: RgbArray,
    size: int,
    avif_speed: int = 6,
    known: Mapping[int, int] | None = None,
) -> bytes:
    """Compress (h, w, 3) uint8 to the file that comes nearest to `size` bytes.

    Args:
        codec: of `ANCHORS`.
        image: the picture.
        size: wanted, bytes.
        avif_speed: effort of AVIF.
        known: sizes of files of this picture by setting, which shorten the search.
    """
    if codec == "jpeg2000":
        return encode(codec, image, max(image.size / size, 1.0))
    below = {setting: length for setting, length in (known or {}).items() if length < size}
    above = {setting: length for setting, length in (known or {}).items() if length >= size}
    low, high = max(below, default=0), min(above, default=96 if codec == "jpeg" else 101)
    tried: dict[int, bytes] = {}
    while high - low > 1 or not tried:
        share = 0.5
        if low in below and high in above:
            share = math.log(size / below[low]) / math.log(above[high] / below[low])
        setting = min(max(round(low + share * (high - low)), low + 1), high - 1)
        if not low < setting < high:
            setting = low if low in below else high
        data = tried[setting] = encode(codec, image, setting, avif_speed)
        if len(data) < size:
            low, below[setting] = max(low, setting), len(data)
        else:
            high, above[setting] = min(high, setting), len(data)
    for setting, length in ((low, below.get(low)), (high, above.get(high))):
        best = min(abs(len(data) - size) for data in tried.values())
        if setting not in tried and length is not None and abs(length - size) < best:
            tried[setting] = encode(codec, image, setting, avif_speed)
    return min(tried.values(), key=lambda data: abs(len(data) - size))


def versions(codecs: Iterable[str], avif_speed: int) -> dict[str, str]:
    """Versions of Pillow and of the library of each codec, and the effort of AVIF."""
    found = {"pillow": str(features.version("pil"))}
    for codec in codecs:
        anchor = ANCHORS[codec]
        if anchor.format == _JPEG_XL:
            found[codec] = str(_jpeg_xl().jpegxl_version())
            continue
        found[codec] = f"{anchor.library} {features.version(anchor.library)}"
        if anchor.format == "AVIF" and features.check("avif"):
            from PIL import _avif

            found[codec] += f" ({_avif.codec_versions()}) at speed {avif_speed}"
    return found


def run_anchors(test_folder: Path, out_folder: Path, config: AnchorsConfig) -> None:
    """Compress, decompress and measure every PNG of a folder with every anchor of the config.

    Writes `anchors.csv` (rows as `AnchorRow`) and `versions.json`.

    Raises:
        DataError: the folder holds no PNG, or Pillow lacks a codec.
    """
    pictures = sorted(test_folder.glob("*.png"))
    if not pictures:
        raise DataError(f"{test_folder} holds no PNG, expected the test pictures")
    tasks = [
        _Task(codec, picture, ladder(codec, config.points), config.avif_speed)
        for codec in config.codecs
        for picture in pictures
    ]
    rows = [row for rows in map_in_processes(_measure, tasks, label="anchors") for row in rows]
    out_folder.mkdir(parents=True, exist_ok=True)
    write_rows(out_folder / "anchors.csv", AnchorRow, rows)
    text = json.dumps(versions(config.codecs, config.avif_speed), indent=2) + "\n"
    (out_folder / "versions.json").write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class _Task:
    codec: str
    picture: Path
    settings: tuple[int, ...]
    avif_speed: int


def _measure(task: _Task) -> list[AnchorRow]:
    image = read_image(task.picture)
    perceptual = Ssimulacra2(image)
    rows = []
    for setting in task.settings:
        started = time.perf_counter()
        data = encode(task.codec, image, setting, task.avif_speed)
        encoded = time.perf_counter()
        decoded = decode(data)
        finished = time.perf_counter()
        quality = measure(image, decoded)
        rows.append(
            AnchorRow(
                codec=task.codec,
                picture=task.picture.stem,
                setting=setting,
                bytes=len(data),
                bpp=8 * len(data) / (image.shape[0] * image.shape[1]),
                psnr_db=quality.psnr_db,
                ssim=quality.ssim,
                ms_ssim=quality.ms_ssim,
                ssimulacra2=perceptual.score(decoded),
                encode_s=encoded - started,
                decode_s=finished - encoded,
            )
        )
    return rows
