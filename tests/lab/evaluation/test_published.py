"""Measured curves against published ones."""

import math

import numpy as np
import pytest

from linocut.lab.evaluation.rd import (
    DRAWN,
    TITLES,
    PictureCurves,
    bd_rate_to_published,
    is_kodak,
    published_curves,
)
from linocut.pictures.quality import to_db

NAME = "BPG 4:4:4 (0.9.8 x265, CompressAI)"
UNITS = {"psnr_db": None, "ms_ssim_db": to_db}


def measured(metric: str, factor: float, column: str) -> PictureCurves:
    """The published curve with `factor` times its rate, as if measured on one picture."""
    curve = published_curves()[NAME]
    bpp, quality = np.array([curve["bpp"]]) * factor, np.array([curve[column]])
    return PictureCurves(("kodim01",), bpp, quality, UNITS[metric])


@pytest.mark.parametrize(("metric", "column"), [("psnr_db", "psnr_db"), ("ms_ssim_db", "ms_ssim")])
def test_a_curve_at_nine_tenths_of_the_rate_is_ten_per_cent_better(metric, column):
    assert bd_rate_to_published(NAME, metric, measured(metric, 0.9, column)) == pytest.approx(-10)
    assert bd_rate_to_published(NAME, metric, measured(metric, 1.0, column)) == pytest.approx(0)


def test_curves_that_do_not_meet_have_no_number():
    high = PictureCurves(("kodim01",), np.array([[9.0, 10.0]]), np.array([[70.0, 80.0]]))
    assert bd_rate_to_published(NAME, "psnr_db", high) is None


def test_every_codec_of_the_tables_has_both_metrics():
    for name in (*TITLES, *DRAWN):
        curve = published_curves()[name]
        assert len(curve["bpp"]) == len(curve["psnr_db"]) == len(curve["ms_ssim"])
        assert all(map(math.isfinite, curve["psnr_db"]))


def test_kodak_is_all_twenty_four():
    assert is_kodak([f"kodim{number:02}" for number in range(1, 25)])
    assert not is_kodak([f"kodim{number:02}" for number in range(1, 24)])
