"""Compress and decompress pictures of 0.1 to 100 megapixels: time, memory, and seams.

    python -m benchmarks.large_pictures [--megapixels 0.1 1 10 100] [--model NAME] [--threads 1]

Each picture goes through the command line in two fresh processes; seconds are of their CPU time,
less that of a picture of 1 x 1 px, and memory is the most that was resident. Pictures are mosaics
of pieces of the sample photographs. The error next to the borders of tiles is set against that
along lines half a tile away: a seam would show as a difference.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "samples.json"
PIECE_PX = (397, 451)
"""Height and width of a piece of the mosaic: their edges fall anywhere in a tile."""

SEAM_PX = 4
"""Samples this near to a border of tiles count as along it, on each side."""


@dataclass(frozen=True)
class Cost:
    """What one process took: seconds of CPU, and MiB of memory at most."""

    seconds: float
    mebibytes: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.1, 1.0, 10.0, 100.0])
    parser.add_argument("--model", default="default", help="name or folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the files (default: a temporary one)")
    options = parser.parse_args(arguments)
    print("                  |       compress        |      decompress       | PSNR, dB, lines of")
    print("megapixels    bpp |   CPU s  s/Mpx    MiB |   CPU s  s/Mpx    MiB |  borders  elsewhere")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        start = measure(folder, (1, 1), options.model, options.threads)[1:]
        print(f"{'1 pixel':17} | {_cell(start[0])} | {_cell(start[1])} |", flush=True)
        for megapixels in options.megapixels:
            side = round((megapixels * 1e6) ** 0.5)
            size, *costs = measure(folder, (side, side), options.model, options.threads)
            cells = [
                _cell(cost, (cost.seconds - none.seconds) / side**2 * 1e6)
                for cost, none in zip(costs, start, strict=True)
            ]
            seams = in_process(seam_psnr_db, folder / "picture.png", folder / "decoded.png")
            shown = f"{seams[0]:8.2f} {seams[1]:10.2f}" if seams else f"{'one tile':>19}"
            rate = 8 * size / side**2
            print(
                f"{side**2 / 1e6:10.1f} {rate:6.3f} | {cells[0]} | {cells[1]} | {shown}", flush=True
            )
    return 0


def _cell(cost: Cost, seconds_per_megapixel: float | None = None) -> str:
    slope = " " * 6 if seconds_per_megapixel is None else f"{seconds_per_megapixel:6.2f}"
    return f"{cost.seconds:7.1f} {slope} {cost.mebibytes:6.0f}"


def measure(
    folder: Path, size: tuple[int, int], model: str, threads: int
) -> tuple[int, Cost, Cost]:
    """Bytes of the file of a mosaic, and what compressing and decompressing it took."""
    picture, file = folder / "picture.png", folder / "file.lino"
    in_process(write_mosaic, picture, *size)
    machine = ["--threads", str(threads), "--device", "cpu", "--force", "--model", model]
    compress = cost_of(["compress", str(picture), "--output", str(file), *machine])
    decompress = cost_of(["decompress", str(file), "-o", str(folder / "decoded.png"), *machine])
    return file.stat().st_size, compress, decompress


def cost_of(arguments: Sequence[str]) -> Cost:
    """Run the command line once. Linux counts the memory of the parent, too: keep this one small.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    command = [sys.executable, "-m", "linocut", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        message = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=message)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit)


def in_process(function, *arguments):  # type: ignore[no-untyped-def]
    """A result from a process of its own, so that this one stays small."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write_mosaic(path: Path, height: int, width: int) -> None:
    """Pieces of the sample photographs, mirrored at random, as a PNG."""
    import numpy as np
    from PIL import Image

    from linocut.lab.data.sources import sample_files
    from linocut.pictures.image import read_image

    rng = np.random.default_rng(0)
    pictures = [read_image(file.path) for file in sample_files(SAMPLES)]
    tall, wide = PIECE_PX
    pictures = [p for p in pictures if p.shape[0] >= tall and p.shape[1] >= wide]
    canvas = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, tall):
        for left in range(0, width, wide):
            source = pictures[rng.integers(len(pictures))]
            y, x = (rng.integers(s - p + 1) for s, p in zip(source.shape, PIECE_PX, strict=False))
            piece = source[y : y + tall, x : x + wide][
                :: rng.choice((-1, 1)), :: rng.choice((-1, 1))
            ]
            place = canvas[top : top + tall, left : left + wide]
            place[:] = piece[: place.shape[0], : place.shape[1]]
    Image.fromarray(canvas).save(path, compress_level=1)


def seam_psnr_db(original: Path, decoded: Path) -> tuple[float, float] | None:
    """PSNR along the borders of tiles and along lines half a tile away; None without borders."""
    import numpy as np
    from PIL import Image

    from linocut.format.bitstream import TILE_PX

    Image.MAX_IMAGE_PIXELS = None
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in (original, decoded)]
    results = []
    for offset in (0, TILE_PX // 2):
        errors = []
        for axis in (0, 1):
            for line in range(TILE_PX + offset, pictures[0].shape[axis] - SEAM_PX, TILE_PX):
                near = [
                    np.take(p, range(line - SEAM_PX, line + SEAM_PX), axis).astype(np.float32)
                    for p in pictures
                ]
                errors.append(np.mean((near[0] - near[1]) ** 2))
        results.append(errors)
    if not all(results):
        return None
    borders, elsewhere = (float(10 * np.log10(255**2 / np.mean(errors))) for errors in results)
    return borders, elsewhere


if __name__ == "__main__":
    sys.exit(main())
