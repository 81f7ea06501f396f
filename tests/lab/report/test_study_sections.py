"""The section on bit errors says what the tables of the stage hold."""

import shutil

import numpy as np
import pytest

from experiment import write_damaged
from linocut.lab.report.figures import COLOURS, Lines, Series
from linocut.lab.report.study_sections import (
    ARMS,
    damage_galleries,
    damage_lines,
    damage_table,
    damage_text,
    draw_damage,
)


@pytest.fixture
def folder(tmp_path):
    write_damaged(tmp_path / "robustness")
    return tmp_path / "robustness"


def test_every_arm_has_a_row_for_each_place(folder, tmp_path):
    text = "\n".join(damage_text(damage_table(folder), []))
    assert text.count("| .lino, resilient (cae-l2) | 33.0 | 21.5, ") == 2
    assert text.count("75 %") == 2 * 6
    assert "4 trials at each rate" in text
    assert "mean 0.99 bpp" in text


def test_quantiles_count_what_does_not_decode(folder):
    table = damage_table(folder)
    rows = table[(table["arm"] == "jpeg") & (table["ber"] == 1e-3)]
    assert rows["decoded"].tolist() == [0.75, 0.75]
    assert rows["psnr_low"].tolist() == pytest.approx([np.quantile([9, 21, 22, 23], 0.05)] * 2)


def test_pictures_of_all_arms_stand_in_one_row(folder, tmp_path):
    plots = tmp_path / "plots"
    plots.mkdir()
    draw_damage(folder, plots)
    drawn = [path.name for path in plots.iterdir()]
    assert drawn == ["bit-errors-cae-l2-0.001.png"]
    text = damage_text(damage_table(folder), drawn)
    assert "![Bit errors](plots/bit-errors-cae-l2-0.001.png)\n" in text


def test_classical_codecs_are_shown_once_beside_all_cells(folder):
    shutil.copytree(folder / "cae-l2", folder / "other-l2")
    (found,) = damage_galleries(folder).values()
    assert list(found) == [
        *(f"{title} (cae-l2)" for title in list(ARMS.values())[:3]),
        *(f"{title} (other-l2)" for title in list(ARMS.values())[:3]),
        *list(ARMS.values())[3:],
    ]
    assert list(damage_galleries(folder)) == ["a, bit error rate 0.001"]


def test_curves_begin_with_the_undamaged_file(folder):
    found = damage_lines(damage_table(folder))
    assert found is not None
    (panels,) = found.rows.values()
    assert list(panels) == ["behind the header", "anywhere"]
    assert len(panels["anywhere"]) == 6
    for series in panels["anywhere"]:
        assert series.x.tolist() == [-7, -3]
        assert series.y[0] > series.y[1]


def test_without_the_stage_or_with_classical_codecs_alone_there_is_no_section(folder, tmp_path):
    shutil.rmtree(folder / "cae-l2")
    for nothing in (tmp_path / "none", folder):
        table = damage_table(nothing)
        assert damage_text(table, []) == []
        assert damage_lines(table) is None


def test_every_line_of_the_figure_has_a_colour_of_its_own():
    arms = [f"{arm} ({cell})" for arm in "abc" for cell in ("cae-l2", "generative-l2")]
    line = [Series(name, np.zeros(2), np.zeros(2)) for name in (*arms, "JPEG", "mix", "l2")]
    drawn = Lines("", "", "", {"PSNR": {"behind the header": line, "anywhere": line[::-1]}})
    assert len({drawn.colours[one.loss] for one in line}) == len(line)
    assert drawn.colours["mix"] == COLOURS["mix"]
