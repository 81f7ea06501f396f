"""What each effort level of the encoder gains and costs, against the default level.

    python -m benchmarks.effort_levels [--models NAME ...] [--pictures FILE ...] [--steps STEP ...]

Bits at equal quality, from files, over the same steps for every level; in brackets the 95 %
interval over the pictures. Time is of one thread and of whole files, its ratio to the default
level's on the same picture in the same run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from linocut.codec.codec import Codec
from linocut.entropy.choice import DEFAULT_EFFORT, EFFORTS
from linocut.lab.data.sources import sample_files
from linocut.lab.evaluation.rd import (
    Interval,
    PictureCurves,
    bd_rate_between,
    bd_rate_draws,
    percentile_interval,
    resample_pictures,
)
from linocut.models import folders
from linocut.pictures.image import read_image
from linocut.pictures.quality import measure, to_db

ROOT = Path(__file__).resolve().parents[1]
STEPS = (8.0, 16.0, 32.0, 64.0, 120.0)
DRAWS = 1000
HEAD = ("model", "effort", "bits at equal PSNR [%]", "at equal MS-SSIM [%]", "time to compress")


@dataclass(frozen=True)
class Level:
    """One level on all pictures: curves in PSNR and MS-SSIM, seconds of every file."""

    psnr_db: PictureCurves
    ms_ssim: PictureCurves
    seconds: NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(folders.available()))
    parser.add_argument("--pictures", type=Path, nargs="+", help="default: the samples for tests")
    parser.add_argument("--steps", type=float, nargs="+", default=list(STEPS))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    samples = sample_files(ROOT / "data" / "samples.json")
    paths = options.pictures or [file.path for file in samples if file.split == "test"]
    pictures = {path.stem: read_image(path) for path in paths}
    print(f"| {' | '.join(HEAD)} |\n| --- |{' ---: |' * (len(HEAD) - 1)}")
    for name in options.models:
        codec = Codec.load(name, threads=1)
        levels = {effort: at_level(codec, pictures, options.steps, effort) for effort in EFFORTS}
        for effort in EFFORTS:
            print(line(name, effort, levels[effort], levels[DEFAULT_EFFORT]), flush=True)
    return 0


def at_level(
    codec: Codec, pictures: dict[str, NDArray[np.uint8]], steps: Sequence[float], effort: int
) -> Level:
    """Every picture at every step: rate, quality, seconds, (pictures, steps) each."""
    rows = np.array([
        [_file(codec, picture, step, effort) for step in steps] for picture in pictures.values()
    ])  # fmt: skip
    bpp, psnr_db, ms_ssim, seconds = np.moveaxis(rows, -1, 0)
    names = tuple(pictures)
    return Level(
        PictureCurves(names, bpp, psnr_db), PictureCurves(names, bpp, ms_ssim, to_db), seconds
    )


def _file(
    codec: Codec, picture: NDArray[np.uint8], step: float, effort: int
) -> tuple[float, float, float, float]:
    started = time.process_time()
    data = codec.compress(picture, step=step, effort=effort)
    seconds = time.process_time() - started
    quality = measure(picture, codec.decompress(data))
    return 8 * len(data) / picture[..., 0].size, quality.psnr_db, quality.ms_ssim, seconds


def line(name: str, effort: int, level: Level, default: Level) -> str:
    """A row of the table; the default level has zeros."""
    draws = resample_pictures(len(level.psnr_db.pictures), DRAWS)
    cells = [
        interval_text(percentile_interval(bd_rate_between(b, a), bd_rate_draws(b, a, draws)))
        for a, b in ((level.psnr_db, default.psnr_db), (level.ms_ssim, default.ms_ssim))
    ]
    ratio = float(np.median(level.seconds / default.seconds))
    return f"| {name} | {effort} | {' | '.join(cells)} | {ratio:.2f} |"


def interval_text(interval: Interval) -> str:
    """Estimate and interval, in per cent."""
    return f"{interval.estimate:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"


if __name__ == "__main__":
    sys.exit(main())
