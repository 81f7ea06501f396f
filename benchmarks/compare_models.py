"""Which codec needs fewer bits, on pictures that a choice may be made on.

    python -m benchmarks.compare_models ANCHOR MODEL ... [--pictures FILE ...] [--steps STEP ...]
    python -m benchmarks.compare_models jpeg2000 MODEL ...    # or another one of Pillow's codecs

Bits at equal quality against ANCHOR, from files, over the same steps for every model; in brackets
the 95 % interval over the pictures. The steps begin with the finest one that networks are trained
for: smooth pictures need it for a rate of 1 bpp, and what is gained at coarse steps may be lost
there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.effort_levels import DRAWS, interval_text
from linocut.codec.codec import Codec
from linocut.codec.effort import EncodeOptions
from linocut.entropy.choice import DEFAULT_EFFORT, EFFORTS
from linocut.errors import LinocutError
from linocut.lab.evaluation import anchors
from linocut.lab.evaluation.rd import (
    CurveError,
    PictureCurves,
    bd_rate_between,
    bd_rate_draws,
    percentile_interval,
    resample_pictures,
)
from linocut.pictures.image import read_image
from linocut.pictures.quality import measure, ssimulacra2, to_db

ROOT = Path(__file__).resolve().parents[1]
STEPS = (5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0, 144.0)
CLASSICAL_POINTS = 12
SCORES = ("PSNR", "absolute error", "SSIM", "MS-SSIM", "SSIMULACRA 2")
HEAD = ("model", "bpp", *(f"bits at equal {score} [%]" for score in SCORES))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="name or folder; ANCHOR first")
    parser.add_argument("--pictures", type=Path, nargs="+", help="default: for validation")
    parser.add_argument("--steps", type=float, nargs="+", default=list(STEPS))
    parser.add_argument("--effort", type=int, choices=EFFORTS, default=DEFAULT_EFFORT)
    options = parser.parse_args(arguments)
    paths = options.pictures or sorted((ROOT / "artifacts/prepared/validation").glob("*.png"))
    if not paths:
        parser.error("no validation pictures in artifacts/prepared: name some with --pictures")
    print(f"| {' | '.join(HEAD)} |\n| --- |{' ---: |' * (len(HEAD) - 1)}")
    anchor: list[PictureCurves] = []
    try:
        pictures = {path.stem: read_image(path) for path in paths}
        for name in options.models:
            if name in anchors.ANCHORS:
                curves = classical_curves(name, pictures)
            else:
                codec = Codec.load(name, threads=1)
                curves = curves_of(codec, pictures, options.steps, options.effort)
            anchor = anchor or curves
            print(line(name, anchor, curves), flush=True)
    except LinocutError as error:
        parser.error(str(error))
    return 0


def curves_of(
    codec: Codec, pictures: dict[str, NDArray[np.uint8]], steps: Sequence[float], effort: int
) -> list[PictureCurves]:
    """Curves of all pictures in all of `SCORES`."""
    rows = []
    for picture in pictures.values():
        analysed = codec.analyse(picture)
        files = [codec.encode(analysed, step, EncodeOptions(effort)) for step in steps]
        rows.append([_measured(picture, data, codec.decompress(data)) for data in files])
    return _curves(tuple(pictures), rows)


def classical_curves(name: str, pictures: dict[str, NDArray[np.uint8]]) -> list[PictureCurves]:
    """The same of a codec of Pillow, over its whole ladder."""
    rows = []
    for picture in pictures.values():
        settings = anchors.ladder(name, CLASSICAL_POINTS)
        files = [anchors.encode(name, picture, setting) for setting in settings]
        rows.append([_measured(picture, data, anchors.decode(data)) for data in files])
    return _curves(tuple(pictures), rows)


Score = tuple[float, float, float, float, float, float]


def _curves(names: tuple[str, ...], rows: list[list[Score]]) -> list[PictureCurves]:
    bpp, psnr_db, absolute_db, ssim, ms_ssim, ssimulacra = np.moveaxis(np.array(rows), -1, 0)
    return [
        PictureCurves(names, bpp, psnr_db),
        PictureCurves(names, bpp, absolute_db),
        PictureCurves(names, bpp, ssim, to_db),
        PictureCurves(names, bpp, ms_ssim, to_db),
        PictureCurves(names, bpp, ssimulacra),
    ]


def _measured(picture: NDArray[np.uint8], data: bytes, decoded: NDArray[np.uint8]) -> Score:
    quality = measure(picture, decoded)
    bpp = 8 * len(data) / picture[..., 0].size
    scores = quality.psnr_db, _absolute_db(picture, decoded), quality.ssim, quality.ms_ssim
    return bpp, *scores, ssimulacra2(picture, decoded)


def _absolute_db(picture: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> float:
    """Mean absolute error of 8-bit RGB as decibels below 255; infinite for equal pictures."""
    error = np.abs(picture.astype(np.int16) - decoded).mean()
    return float(20 * np.log10(255 / error)) if error else float("inf")


def line(name: str, anchor: Sequence[PictureCurves], curves: Sequence[PictureCurves]) -> str:
    """A row of the table; the anchor has zeros. stderr says where curves cannot be compared."""
    draws = resample_pictures(len(anchor[0].pictures), DRAWS)
    cells = []
    for score, a, b in zip(SCORES, anchor, curves, strict=True):
        try:
            change = percentile_interval(bd_rate_between(a, b), bd_rate_draws(a, b, draws))
            cells.append(interval_text(change))
        except CurveError as error:
            print(f"{name}, {score}: {error}", file=sys.stderr)
            cells.append("-")
    rates = curves[0].mean()[0]
    return f"| {name} | {min(rates):.2f} to {max(rates):.2f} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
