"""BD-rate against another implementation, its refusals, and the behaviour of its intervals."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import bjontegaard
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from linocut.lab.evaluation.rd import (
    DRAWN,
    TITLES,
    CurveError,
    PictureCurves,
    bd_rate,
    bd_rate_between,
    bd_rate_draws,
    bd_rate_to_published,
    is_kodak,
    is_monotone,
    percentile_interval,
    published_curves,
    resample_pictures,
)
from linocut.pictures.quality import to_db

JPEG = ([0.27, 0.37, 0.62, 0.86, 1.19, 1.77], [26.67, 28.14, 30.49, 32.17, 33.92, 36.46])
J2K = ([0.1, 0.2, 0.3, 0.5, 1.0, 1.5, 2.0], [26.39, 28.48, 29.96, 32.18, 36.0, 38.66, 40.8])


def random_curve(rng: np.random.Generator, points: int) -> tuple[list[float], list[float]]:
    bpp = 0.1 * np.cumprod(rng.uniform(1.2, 2.0, points))
    psnr_db = 26 + rng.uniform(-1, 1) + np.cumsum(rng.uniform(0.5, 2.5, points))
    return bpp.tolist(), psnr_db.tolist()


def codec(rng: np.random.Generator, pictures: int, gain: float = 0.0) -> PictureCurves:
    """A codec whose rate is `gain` per cent off that of `gain=0`, on pictures of its own."""
    bpp = np.array([0.1, 0.2, 0.4, 0.8, 1.6]) * rng.uniform(0.5, 2.0, (pictures, 1))
    bpp = bpp * (1 + (gain + rng.normal(0, 3.0, (pictures, 1))) / 100)
    psnr_db = np.array([26.0, 28.5, 31.0, 34.0, 37.5]) + np.zeros((pictures, 1))
    return PictureCurves(tuple(f"p{i}" for i in range(pictures)), bpp, psnr_db)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 14), st.integers(4, 14))
def test_equals_the_bjontegaard_package(seed: int, points_a: int, points_t: int) -> None:
    rng = np.random.default_rng(seed)
    anchor, test = random_curve(rng, points_a), random_curve(rng, points_t)
    assume(max(anchor[1][0], test[1][0]) + 0.1 < min(anchor[1][-1], test[1][-1]))  # they overlap
    expected = bjontegaard.bd_rate(
        *anchor, *test, method="pchip", require_matching_points=False, min_overlap=0
    )
    assert bd_rate(*anchor, *test, min_overlap=0.01) == pytest.approx(expected, abs=1e-8)


def test_jpeg_2000_saves_bits_against_jpeg_and_the_sign_says_so() -> None:
    saving = bd_rate(*JPEG, *J2K)
    assert -50 < saving < -30
    assert (1 + saving / 100) * (1 + bd_rate(*J2K, *JPEG) / 100) == pytest.approx(1)


def test_scaled_rates_are_a_constant_difference() -> None:
    bpp, psnr_db = J2K
    assert bd_rate(bpp, psnr_db, [0.8 * rate for rate in bpp], psnr_db) == pytest.approx(-20)


def test_the_order_of_points_does_not_matter() -> None:
    bpp, psnr_db = JPEG
    assert bd_rate(bpp[::-1], psnr_db[::-1], *J2K) == bd_rate(*JPEG, *J2K)


def test_two_points_are_a_straight_line() -> None:
    assert bd_rate([1, 2], [30, 36], [2, 4], [30, 36]) == pytest.approx(100)


@pytest.mark.parametrize(
    ("test_curve", "complaint"),
    [
        (([0.1, 0.2, 0.4], [40.0, 42.0, 44.0]), "share 0% of the narrower"),
        (([0.1, 0.2, 0.4], [34.5, 37.0, 40.0]), "expected at least 50%"),
        (([0.1, 0.2, 0.4], [28.0, 27.9, 30.0]), "test curve does not rise"),
        (([0.1, 0.1, 0.4], [28.0, 29.0, 30.0]), "test curve does not rise"),
        (([0.1, 0.2, 0.4], [28.0, float("nan"), 30.0]), "not finite"),
        (([0.1, 0.2, 0.4], [28.0, 29.0, float("inf")]), "not finite"),
        (([0.0, 0.2, 0.4], [28.0, 29.0, 30.0]), "not above 0"),
        (([0.2], [28.0]), "2 points or more"),
        (([0.2, 0.3], [28.0]), "equal length"),
    ],
)
def test_curves_that_cannot_be_compared_are_refused(
    test_curve: tuple[list[float], list[float]], complaint: str
) -> None:
    with pytest.raises(CurveError, match=complaint):
        bd_rate(*JPEG, *test_curve)


def test_monotone_means_that_rate_buys_quality() -> None:
    assert is_monotone([0.2, 0.1, 0.4], [30.0, 28.0, 31.0])
    assert not is_monotone([0.1, 0.2, 0.4], [30.0, 28.0, 31.0])
    assert not is_monotone([0.1, 0.2], [30.0, 30.0])


def test_mean_curve_averages_rate_and_quality_at_each_point() -> None:
    curves = PictureCurves(
        ("a", "b"), np.array([[0.1, 0.4], [0.3, 0.8]]), np.array([[28.0, 33.0], [30.0, 35.0]])
    )
    bpp, quality = curves.mean()
    assert bpp == pytest.approx([0.2, 0.6])
    assert quality == pytest.approx([29.0, 34.0])


def test_the_unit_is_applied_to_the_mean_and_not_to_each_picture() -> None:
    def unit(mean: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(-10 * np.log10(1 - mean))

    curves = PictureCurves(("a", "b"), np.array([[0.1], [0.3]]), np.array([[0.9], [0.96]]), unit)
    assert curves.mean()[1] == pytest.approx([-10 * np.log10(0.07)])


def test_different_pictures_are_refused() -> None:
    one, other = codec(np.random.default_rng(0), 3), codec(np.random.default_rng(0), 4)
    with pytest.raises(CurveError, match="different pictures: p3"):
        bd_rate_between(one, other)
    with pytest.raises(CurveError, match="different pictures"):
        bd_rate_draws(one, other, resample_pictures(3, 10))


def test_draws_equal_a_loop_over_bd_rate() -> None:
    rng = np.random.default_rng(1)
    anchor, test = codec(rng, 8), codec(np.random.default_rng(1), 8, gain=-15)
    draws = resample_pictures(8, 20, seed=3)
    looped = [bd_rate(*anchor.mean(draw), *test.mean(draw)) for draw in draws]
    assert bd_rate_draws(anchor, test, draws) == pytest.approx(looped)


def test_pairing_makes_the_interval_narrow() -> None:
    """Pictures differ fourfold in rate, the codecs by a tenth: only paired draws see the tenth."""
    anchor, test = codec(np.random.default_rng(5), 24), codec(np.random.default_rng(5), 24, -10)
    draws, others = resample_pictures(24, 500, seed=0), resample_pictures(24, 500, seed=1)
    paired = percentile_interval(-10, bd_rate_draws(anchor, test, draws))
    unpaired = [
        bd_rate(*anchor.mean(one), *test.mean(two)) for one, two in zip(draws, others, strict=True)
    ]
    assert paired.low < bd_rate_between(anchor, test) < paired.high
    assert np.std(unpaired) > paired.high - paired.low


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        bpp = np.array([0.1, 0.2, 0.4, 0.8]) * rng.uniform(0.8, 1.2, (24, 1))
        psnr_db = np.array([26.0, 28.5, 31.0, 34.0]) + np.zeros((24, 1))
        names = tuple(map(str, range(24)))
        factor = 0.9 * np.exp(rng.normal(0, 0.05, (24, 1)))
        anchor = PictureCurves(names, bpp, psnr_db)
        test = PictureCurves(names, bpp * factor, psnr_db)
        draws = bd_rate_draws(anchor, test, resample_pictures(24, 200, seed))
        interval = percentile_interval(bd_rate_between(anchor, test), draws)
        covered += interval.low < 100 * (0.9 * np.exp(0.05**2 / 2) - 1) < interval.high
    assert 86 <= covered <= 100


def test_draws_without_a_curve_are_nan_and_too_many_of_them_leave_no_interval() -> None:
    names = ("a", "b")
    bpp = np.array([[0.1, 0.2, 0.4], [0.1, 0.2, 0.4]])
    bent = PictureCurves(names, bpp, np.array([[28.0, 27.0, 30.0], [28.0, 31.0, 33.0]]))
    plain = PictureCurves(names, bpp, np.array([[28.0, 30.0, 32.0], [28.0, 30.0, 32.0]]))
    draws = bd_rate_draws(plain, bent, np.array([[0, 0], [0, 1], [1, 1]]))
    assert np.isnan(draws).tolist() == [True, False, False]
    assert np.isnan(percentile_interval(0.0, draws).low)
    interval = percentile_interval(1.0, np.arange(101.0))
    assert (interval.low, interval.high) == pytest.approx((2.5, 97.5))


def test_a_thousand_draws_take_a_fraction_of_a_second() -> None:
    anchor, test = codec(np.random.default_rng(0), 24), codec(np.random.default_rng(0), 24, -5)
    started = time.perf_counter()
    bd_rate_draws(anchor, test, resample_pictures(24, 1000))
    assert time.perf_counter() - started < 1


def test_rate_distortion_needs_no_torch() -> None:
    code = "import sys, linocut.lab.evaluation.rd; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
