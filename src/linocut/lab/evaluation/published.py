"""Curves on the 24 Kodak pictures that others published: means over the pictures, no intervals."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np

from linocut.lab.evaluation.rd import CurveError, PictureCurves, bd_rate

TITLES = {
    "BPG 4:4:4 (0.9.8 x265, CompressAI)": "BPG 4:4:4",
    "VTM (VVC intra, CompressAI)": "VTM",
    "bmshj2018-factorized (MSE)": "factorized prior",
    "bmshj2018-factorized (MS-SSIM)": "factorized prior for MS-SSIM",
    "bmshj2018-hyperprior (MSE)": "hyperprior",
    "bmshj2018-hyperprior (MS-SSIM)": "hyperprior for MS-SSIM",
    "mbt2018 (MSE)": "mbt2018",
    "cheng2020-anchor (MSE)": "cheng2020",
}
"""Those that tables compare with, under short names."""

DRAWN = (
    "bmshj2018-factorized (MSE)",
    "bmshj2018-hyperprior (MSE)",
    "cheng2020-anchor (MSE)",
    "VTM (VVC intra, CompressAI)",
)
"""Those that figures show from the start."""


def is_kodak(pictures: Sequence[str]) -> bool:
    """Whether these are the 24 pictures that published curves are about."""
    return sorted(pictures) == [f"kodim{number:02}" for number in range(1, 25)]


@functools.cache
def published_curves() -> Mapping[str, Mapping[str, list[float]]]:
    """bpp, psnr_db and ms_ssim of each codec, from papers and repositories, with its source."""
    file = resources.files("linocut.lab.evaluation") / "kodak_curves.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))


def bd_rate_to_published(name: str, metric: str, curve: PictureCurves) -> float | None:
    """BD-rate of a measured curve against a published one, per cent; None where they hardly meet.

    Args:
        name: of the published curve.
        metric: "psnr_db" or "ms_ssim_db".
        curve: the measured one, on the Kodak pictures.
    """
    published = published_curves()[name]
    column = {"psnr_db": "psnr_db", "ms_ssim_db": "ms_ssim"}[metric]
    if column not in published:
        return None
    quality = np.array(published[column])
    if curve.unit is not None:
        quality = curve.unit(quality)
    try:
        return bd_rate(published["bpp"], quality, *curve.mean())
    except CurveError:
        return None
