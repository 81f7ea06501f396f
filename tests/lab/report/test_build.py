"""The report says what the comparison found, and nothing else."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiment import CELLS, write_experiment
from linocut.errors import DataError
from linocut.lab.config.params import CompareConfig
from linocut.lab.evaluation.rd import Interval, PictureCurves
from linocut.lab.evaluation.rows import CONTROLS, BdRow
from linocut.lab.report.build import compare, comparison_table, headline, report_text
from linocut.lab.report.figures import colour, push_apart
from linocut.lab.report.tables import _lead, read_tables

CONFIG = CompareConfig(bootstrap_draws=50, shown_pictures=1, shown_bpp=0.25)


def report(artifacts: Path, reports: Path, cells: tuple[str, ...] = CELLS) -> str:
    compare(cells, artifacts=artifacts, reports=reports, config=CONFIG, seed=0)
    return (reports / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """artifacts/ and reports/ of a whole experiment."""
    folder = tmp_path_factory.mktemp("experiment")
    write_experiment(folder / "artifacts")
    (folder / "reports" / "plots").mkdir(parents=True)
    (folder / "reports" / "plots" / "cells-of-yesterday.png").touch()
    report(folder / "artifacts", folder / "reports")
    return folder


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    """report.md."""
    return (folder / "reports" / "report.md").read_text(encoding="utf-8")


def spoil(artifacts: Path, pattern: str, columns: tuple[str, ...], value: float) -> None:
    """Write one value into columns of tables."""
    for path in artifacts.glob(pattern):
        table = pd.read_csv(path)
        table[list(columns)] = value
        table.to_csv(path, index=False, na_rep="nan")


def test_metrics_hold_the_headline_numbers(folder: Path) -> None:
    found = json.loads((folder / "reports" / "metrics.json").read_text())
    rates = json.loads((folder / "reports" / "cells.json").read_text())
    assert {cell: len(row) for cell, row in rates.items()} == dict.fromkeys(CELLS, 4)
    assert found == {
        "leader": "cae-l2",
        "leads_significantly": False,
        "lowest": {
            "psnr": -20.0,
            "ssim": -20.0,
            "ms_ssim": rates["cae-ms_ssim"]["ms_ssim"],
            "ssimulacra2": -20.0,
        },
        "files": 45,
        "rate_over_estimate_percent": pytest.approx(1.0),
    }
    assert rates["cae-ms_ssim"]["ms_ssim"] < -15


def test_the_report_names_every_cell_and_its_number(text: str) -> None:
    assert "| cae-l2 | -50.0 [-50.0, -50.0] | -20.0 [-20.0, -20.0] |" in text
    for cell in CELLS:
        assert text.count(f"\n| {cell} |") == 7
    assert "pillow 1.2.3" in text
    block = text.partition("<!-- results -->")[2].partition("<!-- /results -->")[0]
    assert "the lowest is cae-l2 with -20.0 %" in block
    assert "](" not in block, "README repeats it"


def test_losses_are_ranked_within_their_architecture(folder: Path, text: str) -> None:
    assert re.search(
        r"\| PSNR \| cae-l2 \| cae-ms_ssim \| \+87\.5 \[\+87\.5, \+87\.5\] \| 0\.250 \|", text
    )
    assert "With 3 pictures no uncorrected p is below 0.25" in text
    ranking = read_tables(folder / "reports").ranking
    assert set(ranking[["metric", "arch", "best"]].itertuples(index=False, name=None)) == {
        ("psnr_db", "cae", "cae-l2"),
        ("ssim_db", "cae", "cae-l2"),
        ("ms_ssim_db", "cae", "cae-ms_ssim"),
        ("ssimulacra2", "cae", "cae-l2"),
    }


def test_every_picture_of_the_report_exists_and_nothing_stale_is_left(
    folder: Path, text: str
) -> None:
    linked = set(re.findall(r"!\[[^\]]*\]\(plots/([^)]+)\)", text))
    assert linked == {path.name for path in (folder / "reports" / "plots").glob("*.png")}
    assert {"rd.png", "bd_rate.png", "training.png", "pca.png"} < linked
    assert {"matched-coffee.png", "cells-coffee.png"} < linked
    assert "cells-of-yesterday.png" not in linked
    for name in linked:
        with Image.open(folder / "reports" / "plots" / name) as picture:
            assert min(picture.size) > 150


def test_the_decoded_picture_is_what_is_shown(folder: Path) -> None:
    """The cells' picture in this experiment is the negative of the original."""
    strip = np.asarray(Image.open(folder / "reports" / "plots" / "matched-coffee.png"))
    tiles = [strip[36:212, 8 + 200 * index :][:, :176].astype(int) for index in range(3)]
    assert np.array_equal(tiles[1], 255 - tiles[2])


def test_the_same_inputs_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    report(folder / "artifacts", tmp_path)
    for path in sorted((folder / "reports").rglob("*.*")):
        again = tmp_path / path.relative_to(folder / "reports")
        assert again.read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("alike", "said"),
    [
        ([], "**a-l2** is best with -9.0 % [-12.0, -6.0]; the 2 of a within 0.5, less than"),
        (["a-l1"], "a-l2 and a-l1 lead, not told from each other; the lowest is a-l2 with -9.0 %"),
        (["a-l1", "b-l2"], "no cell leads significantly; the lowest is a-l2 with -9.0 %"),
    ],
)
def test_only_a_cell_that_leads_significantly_is_called_best(
    folder: Path, alike: list[str], said: str
) -> None:
    rates = {"a-l2": -9.0, "a-l1": -8.5, "b-l2": 4.0}
    rows = [BdRow(n, "cell", "psnr_db", "jpeg2000", r, r - 3, r + 3) for n, r in rates.items()]
    lead = {"metric": "psnr_db", "leader": "a-l2", "bd_rate": -9.0, "low": -12.0, "high": -6.0,
            "not_told_apart": " ".join(alike)}  # fmt: skip
    tables = replace(
        read_tables(folder / "reports"),
        cells={cell: {} for cell in rates},
        bd_rate=pd.DataFrame(rows),
        leads=pd.DataFrame([lead]),
    )
    text = headline(tables)
    assert said in text
    assert ("best" in text) == (not alike)
    assert "3 pictures (too few for any lead to be significant)" in text


@pytest.mark.parametrize(("other", "alike"), [(1.1, ""), (0.9, "a-l1"), (1.0, "a-l1")])
def test_a_cell_that_is_behind_another_one_directly_is_not_said_to_lead(
    other: float, alike: str
) -> None:
    names = tuple("abcdefgh")
    bpp = np.tile([0.1, 0.3, 0.6, 1.0], (len(names), 1))
    quality = np.tile([28.0, 31.0, 34.0, 37.0], (len(names), 1))
    curves = {
        "a-l2": PictureCurves(names, bpp, quality),
        "a-l1": PictureCurves(names, other * bpp, quality),
    }
    comparison = SimpleNamespace(
        cells=dict.fromkeys(curves),
        curves={"psnr_db": curves},
        ranking_anchor="jpeg2000",
        leader=lambda metric: "a-l2",  # against the anchor, whose qualities are others
        bd_rate=lambda *_: Interval(-9.0, -12.0, -6.0),
    )
    assert _lead(comparison, "psnr_db")["not_told_apart"] == alike


def test_what_is_shown_is_in_the_files_that_are_checked(folder: Path, text: str) -> None:
    tables = read_tables(folder / "reports")
    pictures = sorted(path.name for path in (folder / "reports" / "plots").glob("*.png"))
    assert report_text(tables, pictures) == text
    assert len(tables.rd) == 5 * (len(CELLS) + len(CONTROLS) + 2)
    assert len(tables.bd_rate) == 4 * (2 * (len(CELLS) + len(CONTROLS)) + 2)


def test_anchors_are_matched_with_the_leading_cell_alone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "artifacts", tmp_path / "artifacts")
    path = tmp_path / "artifacts/studies/matched/matched.csv"
    path.write_text(path.read_text().replace("cae-l2", "cae-l1"))
    with pytest.raises(DataError, match="is about cae-l1, expected cae-l2"):
        report(tmp_path / "artifacts", tmp_path / "reports")


def test_the_printed_table_agrees_with_the_report(folder: Path) -> None:
    table = comparison_table(folder / "reports")
    assert re.search(r"cae-l2 +-50\.0 \[-50\.0, -50\.0\] +-20\.0 \[-20\.0, -20\.0\]", table)
    assert "45 files" in table
    assert max(map(len, table.splitlines())) < 110


def test_the_table_needs_a_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `dvc repro` first"):
        comparison_table(tmp_path)


def test_small_pictures_leave_ms_ssim_out_and_say_why(tmp_path: Path) -> None:
    write_experiment(tmp_path / "artifacts", side=64)
    for pattern in ("anchors/*.csv", "evaluated/*/*.csv"):
        spoil(tmp_path / "artifacts", pattern, ("ms_ssim",), math.nan)
    text = report(tmp_path / "artifacts", tmp_path / "reports")
    assert "| cae-l2 | - | - |" in text
    cells, anchors = ", ".join(CELLS), "JPEG 2000, JPEG"
    assert f"- MS-SSIM, {cells} against {anchors}: anchor curve has values" in text
    found = json.loads((tmp_path / "reports" / "metrics.json").read_text())
    assert set(found["lowest"]) == {"psnr", "ssim", "ssimulacra2"}
    rates = json.loads((tmp_path / "reports" / "cells.json").read_text())
    assert set(rates["cae-l2"]) == {"psnr", "ssim", "ssimulacra2"}
    assert "nan" not in (tmp_path / "reports" / "metrics.json").read_text().lower()


def test_curves_that_compare_with_nothing_say_so_once(tmp_path: Path) -> None:
    write_experiment(tmp_path / "artifacts")
    columns = ("psnr_db", "ssim", "ms_ssim", "ssimulacra2")
    spoil(tmp_path / "artifacts", "evaluated/cae-l2/evaluation.csv", columns, 0.9)
    text = report(tmp_path / "artifacts", tmp_path / "reports", ("cae-l2",))
    assert text.count("test curve does not rise") == 4
    assert "- PSNR, cae-l2 against JPEG 2000, JPEG: test curve does not rise" in text
    assert "the report says why" in text
    page = (tmp_path / "reports" / "report.html").read_text()
    assert 'id="grid-section"' not in page


def test_labels_are_pushed_apart_about_their_places_and_stay_below_the_top() -> None:
    assert push_apart([0.1, 0.5], 0.1) == pytest.approx([0.1, 0.5])
    assert push_apart([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    placed = push_apart([0.95, 0.97, 0.99, 1.0], 0.1)
    assert placed == pytest.approx([0.7, 0.8, 0.9, 1.0])
    gaps = np.diff(push_apart(sorted(np.random.default_rng(0).uniform(0, 0.4, 9)), 0.05))
    assert gaps.min() > 0.05 - 1e-9


def test_unknown_losses_have_colours_too() -> None:
    assert colour("l2") == "#0072B2"
    assert colour("charbonnier").startswith("#")
    assert math.isfinite(int(colour("charbonnier")[1:], 16))


def test_networks_that_were_not_trained_or_rotated_have_no_such_figures(tmp_path: Path) -> None:
    write_experiment(tmp_path / "artifacts")
    for cell in CELLS:
        history = tmp_path / "artifacts" / "trained" / cell / "history.csv"
        history.write_text(history.read_text().partition("\n")[0] + "\n")  # a shipped network
        (tmp_path / "artifacts" / "rotated" / cell / "energy.csv").unlink()
    history.unlink()
    text = report(tmp_path / "artifacts", tmp_path / "reports")
    assert not re.search(r"(training|pca)\.png", text)
