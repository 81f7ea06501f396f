"""Rankings of losses: exact tests, Holm's correction, and honesty with few pictures."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.stats

from linocut.lab.evaluation.comparison import holm, picture_log_rates, rank, sign_flip_p
from linocut.lab.evaluation.rd import PictureCurves, resample_pictures

BPP = np.array([0.1, 0.2, 0.4, 0.8])
PSNR_DB = np.array([26.0, 28.5, 31.0, 34.0])


def codec(factor: float, pictures: int, noise: float = 0.02, seed: int = 0) -> PictureCurves:
    """A codec at `factor` of the rate, up to noise per picture."""
    factors = factor * np.exp(np.random.default_rng(seed).normal(0, noise, (pictures, 1)))
    names = tuple(f"p{index}" for index in range(pictures))
    return PictureCurves(names, BPP * factors, np.tile(PSNR_DB, (pictures, 1)))


def test_the_sign_flip_test_equals_its_definition() -> None:
    differences = np.array([0.3, -0.1, 0.5, 0.2, 0.05])
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=5)]
    expected = np.mean(np.array(sums) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_p(differences) == pytest.approx(expected)


def test_the_sign_flip_test_agrees_with_scipy_on_many_pictures() -> None:
    differences = np.random.default_rng(1).normal(0.02, 0.05, 24)
    expected = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0
    ).pvalue
    assert sign_flip_p(differences) == pytest.approx(expected, abs=0.01)


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(2)
    alarms = [sign_flip_p(rng.normal(0, 1, 8)) < 0.05 for _ in range(400)]
    assert np.mean(alarms) < 0.08


def test_few_pictures_cannot_be_significant() -> None:
    assert sign_flip_p(np.full(4, 0.2)) == pytest.approx(2 / 16)
    ranked = rank({"a": codec(1, 4), "b": codec(2, 4)}, resample_pictures(4, 50))
    assert ranked[1].p_value == pytest.approx(2 / 16)


def test_missing_pictures_have_no_p_value() -> None:
    assert np.isnan(sign_flip_p(np.array([0.1, np.nan])))


def test_holm_equals_the_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    with_missing = holm([0.01, float("nan")])
    assert with_missing[0] == pytest.approx(0.02)
    assert np.isnan(with_missing[1])


def test_ranking_orders_by_bits_and_tells_real_differences_from_noise() -> None:
    curves = {
        "worst": codec(1.3, 24, seed=1),
        "one": codec(1.0, 24, seed=2),
        "equal": codec(1.0, 24, seed=3),
    }
    best, equal, worst = rank(curves, resample_pictures(24, 400))
    assert {best.curve, equal.curve} == {"one", "equal"}
    assert (best.bd_rate, worst.curve) == (0.0, "worst")
    assert 0 <= equal.bd_rate < 2
    assert worst.bd_rate == pytest.approx(30, abs=3)
    assert worst.p_value < 0.001
    assert equal.p_value > 0.05
    assert equal.low < 0 < equal.high
    assert 0.5 < equal.detectable < 4


def test_a_difference_as_large_as_detectable_is_mostly_detected() -> None:
    noise = 0.03
    detectable = rank(
        {"a": codec(1, 24, noise, 0), "b": codec(1.1, 24, noise, 1)}, resample_pictures(24, 400)
    )[1].detectable
    found = 0
    for seed in range(60):
        one = codec(1, 24, noise, 100 + seed)
        two = codec(1 + detectable / 100, 24, noise, 900 + seed)
        found += sign_flip_p(picture_log_rates(one, two)) < 0.05
    assert 0.5 < found / 60 < 1


def test_curves_that_do_not_overlap_are_left_out() -> None:
    far = PictureCurves(("p0", "p1"), np.tile(BPP, (2, 1)), np.tile(PSNR_DB + 40, (2, 1)))
    curves = {"a": codec(1, 2), "b": codec(1.2, 2), "far": far}
    assert [row.curve for row in rank(curves, resample_pictures(2, 20))] == ["a", "b"]
    assert rank({"a": codec(1, 2), "far": far}, resample_pictures(2, 20)) == []
    assert rank({"a": codec(1, 2)}, resample_pictures(2, 20)) == []
