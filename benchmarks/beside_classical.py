"""The shipped codecs beside JPEG, JPEG 2000, WebP and AVIF at equal sizes, on the sample pictures.

    python -m benchmarks.beside_classical [--bpp 0.25 0.75] [--write]

`--write` writes docs/side-by-side.md, too; `make readme` then repeats its table in docs/results.md.

Every file of a picture is as near to the size of the first codec's as its settings allow: see the
column. Seconds are of CPU, on one thread, for pictures in memory: of one encoding with the settings
found (searches are not timed), and the median of three decodings.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from linocut.codec.codec import Codec
from linocut.codec.picture_files import Target, compress_picture
from linocut.entropy.planes import step_of
from linocut.format.bitstream import unpack
from linocut.lab.data.sources import sample_files
from linocut.lab.evaluation import anchors
from linocut.lab.evaluation.anchors import ANCHORS
from linocut.models import folders
from linocut.pictures.image import Picture, read_image
from linocut.pictures.quality import measure, ssimulacra2

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "side-by-side.md"
HEAD = ("codec", "kB", "bpp", "PSNR, dB", "MS-SSIM", "SSIMULACRA 2", "compress", "decompress")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """One picture through one codec: bytes, quality, and seconds of CPU."""

    size: int
    pixels: int
    psnr_db: float
    ms_ssim: float
    ssimulacra2: float
    encode_s: float
    decode_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.25, 0.75])
    parser.add_argument("--pictures", type=Path, nargs="+", help="default: the samples for tests")
    parser.add_argument("--models", nargs="+", default=list(folders.available()))
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}, too")
    options = parser.parse_args(arguments)
    samples = sample_files(ROOT / "data" / "samples.json")
    paths = options.pictures or [file.path for file in samples if file.split == "test"]
    pictures = [read_image(path) for path in paths]
    codecs = {name: Codec.load(name, threads=1) for name in options.models}
    lines = [f"| {' | '.join(HEAD)} |", f"| --- |{' ---: |' * (len(HEAD) - 1)}"]
    for bpp in options.bpp:
        for name, rows in compared(codecs, pictures, bpp).items():
            lines.append(line(name, rows))
    content = "\n".join(lines)
    print(content)
    if options.write:
        PAGE.write_text(page(content, [path.stem for path in paths]), encoding="utf-8")
    return 0


def compared(
    codecs: dict[str, Codec], pictures: Sequence[Pixels], bpp: float
) -> dict[str, list[Row]]:
    """Rows of every picture by codec; the first codec sets the sizes."""
    rows: dict[str, list[Row]] = {}
    for picture in pictures:
        size = int(bpp * picture[..., 0].size / 8)
        for number, (name, codec) in enumerate(codecs.items()):
            row = of_linocut(codec, picture, size)
            size = size if number else row.size
            rows.setdefault(f"linocut {name}", []).append(row)
        for name, anchor in ANCHORS.items():
            rows.setdefault(anchor.title, []).append(of_anchor(name, picture, size))
    return rows


def of_linocut(codec: Codec, picture: Pixels, most_bytes: int) -> Row:
    """The best file of at most so many bytes."""
    data, _ = compress_picture(codec, Picture(picture), Target("max_bytes", most_bytes))
    step = step_of(unpack(data).step_index)
    encode_s = _seconds(partial(codec.compress, picture, step=step))
    return _row(picture, data, encode_s, codec.decompress)


def of_anchor(name: str, picture: Pixels, size: int) -> Row:
    """The file that comes nearest to the size."""
    seconds: dict[bytes, float] = {}
    encode = anchors.encode

    def timed(*arguments: Any) -> bytes:
        started = time.process_time()
        data = encode(*arguments)
        seconds[data] = time.process_time() - started
        return data

    with mock.patch.object(anchors, "encode", timed):
        data = anchors.encode_near(name, picture, size)
    return _row(picture, data, seconds[data], anchors.decode)


def _row(picture: Pixels, data: bytes, encode_s: float, decode: Callable[[bytes], Pixels]) -> Row:
    decoded = decode(data)
    decode_s = statistics.median(_seconds(partial(decode, data)) for _ in range(3))
    quality = measure(picture, decoded)
    score = ssimulacra2(picture, decoded)
    pixels = picture[..., 0].size
    return Row(len(data), pixels, quality.psnr_db, quality.ms_ssim, score, encode_s, decode_s)


def _seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def line(name: str, rows: Sequence[Row]) -> str:
    """A row of the table: sums of bytes, pixels and seconds, means of qualities."""
    pixels = sum(row.pixels for row in rows)
    size = sum(row.size for row in rows)
    cells = [
        f"{size / 1000:.1f}",
        f"{8 * size / pixels:.3f}",
        f"{statistics.mean(row.psnr_db for row in rows):.2f}",
        f"{statistics.mean(row.ms_ssim for row in rows):.4f}",
        f"{statistics.mean(row.ssimulacra2 for row in rows):.1f}",
        f"{1e6 * sum(row.encode_s for row in rows) / pixels:.2f}",
        f"{1e6 * sum(row.decode_s for row in rows) / pixels:.2f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def page(table: str, names: Sequence[str]) -> str:
    """The page whose table docs/results.md repeats."""
    return f"""# Side by side

Written by `python -m benchmarks.beside_classical --write`.

<!-- table -->
{table}
<!-- /table -->

Sums over {len(names)} pictures ({", ".join(names)}), means of qualities.
Compress and decompress: seconds of CPU per megapixel on one thread, without loading the model.
Every file is as near to the size of the first codec's as its settings allow. JPEG is progressive
and optimised with 4:2:0, JPEG 2000 uses 9/7 and the colour transform, WebP method 6, AVIF speed 6,
JPEG XL effort 7.
"""


if __name__ == "__main__":
    sys.exit(main())
