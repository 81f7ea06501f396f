"""Comparison of cells whose BD-rates are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiment import CELLS, PICTURES, write_experiment
from linocut.errors import DataError
from linocut.lab.evaluation.comparison import Comparison, compare_curves, title
from linocut.lab.evaluation.rd import is_kodak
from linocut.lab.evaluation.rows import AnchorRow, EvaluationRow, read_rows, write_rows


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
