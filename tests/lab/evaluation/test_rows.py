"""Tables come back as they were written, and say what is wrong with them otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from linocut.errors import DataError
from linocut.lab.evaluation.rows import read_rows, write_rows


@dataclass(frozen=True)
class Row:
    name: str
    count: int
    value: float


def test_rows_come_back(tmp_path: Path) -> None:
    rows = [Row("a, b", 3, 0.125), Row("c", -1, float("inf")), Row("d", 0, 1.0 / 3.0)]
    write_rows(tmp_path / "t.csv", Row, rows)
    back = read_rows(tmp_path / "t.csv", Row)
    assert back[:2] == rows[:2]
    assert back[2].value == pytest.approx(1 / 3, rel=1e-8)
    assert (tmp_path / "t.csv").read_text().splitlines()[:2] == [
        "name,count,value",
        '"a, b",3,0.125',
    ]


def test_further_columns_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("count,extra,name,value\n1,x,a,2\n")
    assert read_rows(tmp_path / "t.csv", Row) == [Row("a", 1, 2.0)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name,value\na,2\n", "lacks the columns count"),
        ("name,count,value\n", "no rows"),
        ("name,count,value\na,1,2\nb,1.5,2\n", r"line 3: .*1\.5"),
        ("name,count,value\na,1\n", "line 2"),
    ],
)
def test_a_wrong_table_is_refused_by_file_and_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=complaint):
        read_rows(tmp_path / "t.csv", Row)


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_rows(tmp_path / "t.csv", Row)
