"""A small experiment with known answers, as the stages before the comparison would leave it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import skimage.data

from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation.comparison import match_sizes
from linocut.lab.evaluation.rows import (
    CLASSICAL,
    CONTROLS,
    LEARNED,
    AnchorRow,
    ErrorRow,
    EvaluationRow,
    write_rows,
)
from linocut.pictures.image import write_png

CELLS = ("cae-l2", "cae-ms_ssim", "generative-l2")
PICTURES = ("chelsea", "coffee", "rocket")

RATE_FACTORS = {
    "cae-l2": 0.8, "cae-ms_ssim": 1.5, "generative-l2": 1.1, "wavelet": 0.9, "no_contexts": 1.3
}  # fmt: skip
"""Rates of cells and controls at the PSNR of JPEG 2000: BD-rates of -20, +50, ... per cent."""

SIMILARITY_FACTORS = dict.fromkeys(RATE_FACTORS, 1.0) | {"cae-ms_ssim": 0.4}
"""What is left of 1 - MS-SSIM at each point; 1 - SSIM is the same for all."""

_BPP = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
_PSNR_DB = np.array([26.0, 28.5, 31.2, 34.2, 37.5])
_SSIMULACRA2 = (20.0, 40.0, 60.0, 75.0, 85.0)
_DISSIMILARITY = 10 ** (-np.array([9.0, 11.5, 14.0, 17.0, 20.0]) / 10)
_SSIM = 1 - 2 * _DISSIMILARITY
_JPEG_FACTOR = 1.6


def write_experiment(artifacts: Path, *, side: int = 176) -> None:
    """Write the tables and pictures of `CELLS` and of two anchors; pictures are `side` squares."""
    pixels = side * side
    spread = dict(zip(PICTURES, (0.8, 1.0, 1.3), strict=True))
    test = artifacts / "prepared" / "test"
    test.mkdir(parents=True)
    originals = {}
    for name in PICTURES:
        originals[name] = np.ascontiguousarray(getattr(skimage.data, name)()[:side, :side])
        write_png(test / f"{name}.png", originals[name])
    anchors = []
    for codec, factor in (("jpeg2000", 1.0), ("jpeg", _JPEG_FACTOR)):
        for name in PICTURES:
            for point, setting in enumerate((240, 120, 60, 30, 15)):
                bpp = float(_BPP[point] * spread[name] * factor)
                size = round(bpp * pixels / 8)
                similar = (float(_SSIM[point]), 1 - _DISSIMILARITY[point])
                quality = (_PSNR_DB[point], *similar, _SSIMULACRA2[point])
                anchors.append(AnchorRow(codec, name, setting, size, bpp, *quality, 0.1, 0.05))
    (artifacts / "anchors").mkdir()
    write_rows(artifacts / "anchors" / "anchors.csv", AnchorRow, anchors)
    (artifacts / "anchors" / "versions.json").write_text('{"pillow": "1.2.3"}')
    for cell in (*CELLS, *CONTROLS):
        folder = artifacts / ("evaluated" if cell in CELLS else "controls") / cell
        (folder / "pictures").mkdir(parents=True)
        rows = []
        for name in PICTURES:
            for point in range(5):
                bpp = float(_BPP[point] * spread[name] * RATE_FACTORS[cell])
                size = round(bpp * pixels / 8)
                ms_ssim = 1 - _DISSIMILARITY[point] * SIMILARITY_FACTORS[cell]
                quality = (_PSNR_DB[point], _SSIM[point], ms_ssim, _SSIMULACRA2[point])
                estimate = bpp / 1.01
                rows.append(
                    EvaluationRow(name, point, 0.1, size, bpp, estimate, *quality, 0.2, 0.1)
                )
        write_rows(folder / "evaluation.csv", EvaluationRow, rows)
        if cell in CONTROLS:
            continue
        write_png(folder / "pictures" / "coffee-2.png", 255 - originals["coffee"])
        _write_text(artifacts / "trained" / cell / "history.csv", _HISTORY)
        _write_text(artifacts / "coded" / cell / "planes.csv", _PLANES)
        _write_text(artifacts / "rotated" / cell / "energy.csv", _ENERGY)
    match_sizes(CELLS, artifacts, artifacts / "studies/matched", avif_speed=10)


def write_damaged(folder: Path) -> None:
    """A study of bit errors: four trials of each arm, the first does not decode, and pictures."""
    for cell, arms in (("cae-l2", LEARNED), ("classical", CLASSICAL)):
        (folder / cell / "pictures").mkdir(parents=True)
        rows = []
        for number, arm in enumerate(arms):
            rows.append(ErrorRow(arm, "a", "none", 0, 0, 0.99, 0, 1, 35.0 - number, 0.98, 0.0))
            for place, trial in itertools.product(("payload", "all"), range(4)):
                psnr = 20.0 + trial if trial else 9.0
                damaged = ErrorRow(
                    arm, "a", place, 1e-3, trial, 0.99, 9, int(trial > 0), psnr, 0.5, 0.0
                )
                rows.append(damaged)
            for rate in ("0", "0.001"):
                picture = dead_leaves(200, 210, number)
                write_png(folder / cell / "pictures" / f"a-{arm}-{rate}.png", picture)
        write_rows(folder / cell / "errors.csv", ErrorRow, rows)


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)


_HISTORY = """\
megapixels,loss,rate_bpp,distortion,psnr_db,learning_rate,seconds
1,2.0,0.6,0.01,28.0,0.001,3
2,1.5,0.5,0.01,29.0,0.0005,6
"""

_PLANES = """\
point,band,channel,bpp
0,LL2,0,0.1
0,LL2,1,0.05
0,HH1,0,0.05
1,LL2,0,0.2
1,LL2,1,0.1
1,HH1,0,0.3
"""

_ENERGY = """\
band,channel,variance,share,cumulative
a,0,8.0,0.8,0.8
a,1,1.5,0.15,0.95
b,0,0.4,0.04,0.99
b,1,0.1,0.01,1.0
"""
