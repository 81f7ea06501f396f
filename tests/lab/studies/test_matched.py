"""Anchors beside the leading cell have the size of its file, and the settings of their curves."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import features

from experiment import CELLS, write_experiment
from linocut.lab.evaluation.anchors import encode_near, versions
from linocut.lab.evaluation.rows import EvaluationRow, MatchedRow, read_rows
from linocut.lab.studies import matched


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
    monkeypatch.setattr(matched, "encode_near", spy)
    matched.match_sizes(CELLS, tmp_path, tmp_path / "out", avif_speed=8)
    assert speeds == [8, 8]
    if features.check("avif"):
        assert versions(["avif_444"], 8)["avif_444"].endswith("at speed 8")
