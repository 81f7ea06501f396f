"""Measure compress and decompress time per megapixel, by part, beside AVIF and JPEG 2000.

    python -m benchmarks.codec_speed [--model NAME] [--picture FILE] [--step 24] [--threads N]

Medians over `--repeats`, after one run to warm up. With several threads parts of compressing run at
the same time, so that only the totals say something. AVIF and JPEG 2000 come from Pillow, at the
size of the .lino file; all work on pictures in memory.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linocut.codec import effort as efforts
from linocut.codec import rotation
from linocut.codec.codec import Codec
from linocut.codec.rotation import Rotation
from linocut.codec.transforms import own_threads
from linocut.entropy.choice import EFFORTS
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.fitting.refinement import Refiner
from linocut.pictures.image import read_image
from linocut.pictures.quality import psnr_db

PARTS = ("network", "rotation", "choice", "coding", "rest")
Picture = NDArray[np.uint8]
Seconds = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default", help="name or folder")
    parser.add_argument("--picture", type=Path, help="default: a generated one, 768 x 512 px")
    parser.add_argument("--step", type=float, default=24.0, help="quantisation step, grey levels")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    picture = read_image(options.picture) if options.picture else dead_leaves(512, 768, 0)
    used = Codec.load(options.model, threads=options.threads)
    megapixels = picture.shape[0] * picture.shape[1] / 1e6
    print(f"{used.name}, step {options.step:g}, {megapixels:.2f} megapixels, "
          f"{options.threads or own_threads()} threads; seconds per megapixel\n")  # fmt: skip
    print(f"{'':24} {'bpp':>6} {'PSNR':>6}  " + " ".join(f"{p:>9}" for p in (*PARTS, "total")))
    size = 0
    for effort in EFFORTS:
        rows, data, decoded = measure(used, picture, options.step, effort, options.repeats)
        size = len(data)
        for name, seconds in rows.items():
            label = f"{name} (effort {effort})" if name == "compress" else name
            quality = 8 * size / picture[..., 0].size, psnr_db(picture, decoded)
            _print(label, *quality, {k: v / megapixels for k, v in seconds.items()})
    for name, save in ANCHORS.items():
        rows, data, decoded = measure_pillow(picture, save, size, options.repeats)
        for part, seconds in rows.items():
            quality = 8 * len(data) / picture[..., 0].size, psnr_db(picture, decoded)
            _print(f"{name} {part}", *quality, {"total": seconds / megapixels})
    return 0


def _print(label: str, bpp: float, quality_db: float, seconds: Seconds) -> None:
    cells = [f"{seconds[p]:9.4f}" if p in seconds else " " * 9 for p in (*PARTS, "total")]
    print(f"{label:24} {bpp:6.3f} {quality_db:6.2f}  " + " ".join(cells))


def measure(
    used: Codec, picture: Picture, step: float, effort: int, repeats: int
) -> tuple[dict[str, Seconds], bytes, Picture]:
    """Median seconds of both directions by part; the file, and what it decodes to."""
    data = used.compress(picture, step=step, effort=effort)
    decoded = used.decompress(data)
    return {
        "compress": _median(
            used, lambda: used.compress(picture, step=step, effort=effort), repeats
        ),
        "decompress": _median(used, lambda: used.decompress(data), repeats),
    }, data, decoded  # fmt: skip


def _median(used: Codec, function: Callable[[], object], repeats: int) -> Seconds:
    runs: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        with _clocks(used) as parts:
            started = time.perf_counter()
            function()
            total = time.perf_counter() - started
        for part in PARTS[:-1]:
            runs[part].append(parts.get(part, 0.0))
        runs["rest"].append(total - sum(parts.values()))
        runs["total"].append(total)
    return {part: statistics.median(values) for part, values in runs.items()}


@contextlib.contextmanager
def _clocks(used: Codec) -> Iterator[Seconds]:
    """Seconds spent in the parts of a codec while the context lasts, each second in one part."""
    spent: Seconds = defaultdict(float)

    def timed(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            before, started = sum(spent.values()), time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                inside = sum(spent.values()) - before
                spent[part] += time.perf_counter() - started - inside

        return wrapper

    places = [
        (used.transforms, "analysis", "network"),
        (used.transforms, "synthesis", "network"),
        (Rotation, "transform", "rotation"),
        (Rotation, "inverse_transform", "rotation"),
        (rotation, "fit", "rotation"),
        (efforts, "choose_symbols", "choice"),
        (Refiner, "refine", "choice"),
        (efforts, "look_at", "choice"),
        (used.coder, "encode_counted", "coding"),
        (used.coder, "decode", "coding"),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, part in places:
            wrapped = timed(getattr(owner, name), part)
            stack.enter_context(mock.patch.object(owner, name, wrapped))
        yield spent


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def measure_pillow(
    picture: Picture, options: Callable[[Image.Image, int], dict[str, Any]], size: int, repeats: int
) -> tuple[dict[str, float], bytes, Picture]:
    """The same for one of Pillow's codecs, at most `size` bytes."""
    image = Image.fromarray(picture)
    chosen = options(image, size)
    kind = chosen.pop("format")
    data = _saved(image, kind, **chosen)
    encode, decode = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        _saved(image, kind, **chosen)
        encode.append(time.perf_counter() - started)
        started = time.perf_counter()
        decoded = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        decode.append(time.perf_counter() - started)
    medians = {"compress": statistics.median(encode), "decompress": statistics.median(decode)}
    return medians, data, decoded


def _avif_options(image: Image.Image, size: int) -> dict[str, Any]:
    """The finest quality whose file is not larger; the search is not timed."""
    low, high = 0, 100
    while high - low > 1:
        middle = (low + high) // 2
        larger = len(_saved(image, "AVIF", quality=middle)) > size
        low, high = (low, middle) if larger else (middle, high)
    return {"format": "AVIF", "quality": low}


def _jpeg2000_options(image: Image.Image, size: int) -> dict[str, Any]:
    ratio = image.width * image.height * 3 / size
    return {
        "format": "JPEG2000", "quality_mode": "rates", "quality_layers": [ratio],
        "irreversible": True, "mct": 1, "no_jp2": True,
    }  # fmt: skip


ANCHORS = {"AVIF": _avif_options, "JPEG 2000": _jpeg2000_options}


if __name__ == "__main__":
    sys.exit(main())
