"""Comparison of cells whose BD-rates are known."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from PIL import features

from experiment import CELLS, PICTURES, write_experiment
from linocut.errors import DataError
from linocut.lab.evaluation import comparison as comparisons
from linocut.lab.evaluation.anchors import encode_near, versions
from linocut.lab.evaluation.comparison import (
    Comparison,
    compare_curves,
    holm,
    match_sizes,
    picture_log_rates,
    rank,
    sign_flip_p,
    title,
)
from linocut.lab.evaluation.rd import PictureCurves, is_kodak, resample_pictures
from linocut.lab.evaluation.rows import AnchorRow, EvaluationRow, MatchedRow, read_rows, write_rows


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    write_experiment(tmp_path)
    return tmp_path


def compare(artifacts: Path, cells: tuple[str, ...] = CELLS) -> Comparison:
    return compare_curves(cells, artifacts, bootstrap_draws=50, seed=0)


def edit(path: Path, line: int, old: str, new: str) -> None:
    lines = path.read_text().splitlines()
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    path.write_text("\n".join(lines) + "\n")


def test_bd_rates_are_the_known_ones(artifacts: Path) -> None:
    comparison = compare(artifacts)
    psnr = {cell: comparison.bd_rate(cell, "psnr_db", "jpeg2000").estimate for cell in CELLS}
    assert psnr == pytest.approx({"cae-l2": -20, "cae-ms_ssim": 50, "generative-l2": 10}, abs=1e-6)
    against_jpeg = comparison.bd_rate("cae-l2", "psnr_db", "jpeg").estimate
    assert against_jpeg == pytest.approx(100 * (0.8 / 1.6 - 1), abs=1e-6)
    assert comparison.bd_rate("jpeg", "psnr_db", "jpeg2000").estimate == pytest.approx(60)


def test_intervals_close_around_a_constant_factor(artifacts: Path) -> None:
    """Every picture saves the same share, so any draw of pictures gives the same BD-rate."""
    interval = compare(artifacts).bd_rate("cae-l2", "psnr_db", "jpeg2000")
    assert (interval.low, interval.high) == pytest.approx((-20, -20), abs=1e-6)


def test_the_leading_cell_depends_on_the_metric(artifacts: Path) -> None:
    comparison = compare(artifacts)
    assert comparison.ranking_anchor == "jpeg2000"
    assert comparison.leader("psnr_db") == "cae-l2"
    assert comparison.leader("ms_ssim_db") == "cae-ms_ssim"


def test_only_the_cells_that_are_asked_for_are_read(artifacts: Path) -> None:
    (artifacts / "evaluated" / "cae-l2" / "evaluation.csv").write_text("rubbish\n")
    comparison = compare(artifacts, ("generative-l2",))
    assert {row.curve for row in comparison.points} == {"generative-l2", "jpeg", "jpeg2000"}
    assert comparison.pictures == PICTURES


def test_the_rate_gap_weighs_bytes_of_files(artifacts: Path) -> None:
    comparison = compare(artifacts)
    assert comparison.rate_gap_percent("cae-l2") == pytest.approx(1.0)
    assert comparison.is_monotone("cae-l2")


def test_a_curve_that_falls_has_no_bd_rate_and_says_so(artifacts: Path) -> None:
    path = artifacts / "evaluated" / "cae-l2" / "evaluation.csv"
    for picture in range(3):
        edit(path, 5 * picture + 3, "31.2", "27.2")
    comparison = compare(artifacts)
    assert not comparison.is_monotone("cae-l2")
    assert np.isnan(comparison.bd_rate("cae-l2", "psnr_db", "jpeg2000").estimate)
    assert "does not rise" in comparison.refusals["cae-l2", "psnr_db", "jpeg2000"]
    assert comparison.leader("psnr_db") == "generative-l2"


def test_a_missing_file_of_one_picture_is_refused(artifacts: Path) -> None:
    path = artifacts / "evaluated" / "cae-l2" / "evaluation.csv"
    write_rows(path, EvaluationRow, read_rows(path, EvaluationRow)[:-1])
    with pytest.raises(DataError, match="cae-l2 has 14 files, expected 5 points of each of 3"):
        compare(artifacts)


def test_different_test_sets_are_refused(artifacts: Path) -> None:
    path = artifacts / "anchors" / "anchors.csv"
    rows = [row for row in read_rows(path, AnchorRow) if row.picture != "rocket"]
    write_rows(path, AnchorRow, rows)
    with pytest.raises(DataError, match="different pictures: rocket"):
        compare(artifacts)


def test_an_unknown_cell_is_refused(artifacts: Path) -> None:
    with pytest.raises(DataError, match=r"cae-mix.*No such file"):
        compare(artifacts, ("cae-mix",))


def test_published_curves_are_for_kodak_only(artifacts: Path) -> None:
    assert is_kodak([f"kodim{number:02}" for number in range(24, 0, -1)])
    assert not is_kodak(["kodim01"])
    assert {row.kind for row in compare(artifacts).points} == {"cell", "anchor"}
    for folder in (artifacts / "evaluated" / "cae-l2", artifacts / "anchors"):
        table = next(folder.glob("*.csv"))
        header, *rows = table.read_text().splitlines()
        kodak = [
            row.replace("coffee", f"kodim{number:02}")
            for number in range(1, 25)
            for row in rows
            if "coffee" in row
        ]
        table.write_text("\n".join([header, *kodak]) + "\n")
    points = compare(artifacts, ("cae-l2",)).points
    published = {row.curve for row in points if row.kind == "published"}
    assert "bmshj2018-hyperprior (MSE)" in published
    assert not any(name.startswith("MEASURED") for name in published)


def test_curves_have_readable_names() -> None:
    assert (title("jpeg2000"), title("cae-l2")) == ("JPEG 2000", "cae-l2")


def test_files_come_near_the_size_of_the_leading_cell(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    rows = read_rows(tmp_path / "studies/matched/matched.csv", MatchedRow)
    assert [(row.picture, row.codec, row.cell) for row in rows] == [
        ("coffee", codec, "cae-l2") for codec in ("jpeg2000", "jpeg")
    ]
    evaluated = read_rows(tmp_path / "evaluated/cae-l2/evaluation.csv", EvaluationRow)
    (size,) = [row.bytes for row in evaluated if (row.picture, row.point) == ("coffee", 2)]
    assert rows[0].bytes == pytest.approx(size, rel=0.1)  # JPEG cannot be that small


def test_avif_has_the_effort_of_its_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = []

    def spy(codec, image, size, avif_speed, known):
        speeds.append(avif_speed)
        return encode_near(codec, image, size, avif_speed, known)

    write_experiment(tmp_path)
    monkeypatch.setattr(comparisons, "encode_near", spy)
    match_sizes(CELLS, tmp_path, tmp_path / "out", avif_speed=8)
    assert speeds == [8, 8]
    if features.check("avif"):
        assert versions(["avif_444"], 8)["avif_444"].endswith("at speed 8")


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
