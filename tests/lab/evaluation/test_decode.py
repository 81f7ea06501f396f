"""Evaluation measures the files on disk with a decoder in another process."""

from __future__ import annotations

import functools
import io
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from linocut.errors import BitstreamError, DataError
from linocut.lab.config.params import CompareConfig
from linocut.lab.evaluation.decode import evaluate_cell, nearest_point, spread
from linocut.lab.evaluation.rows import CodedRow, EvaluationRow, read_rows, write_rows
from linocut.pictures.image import read_image, write_png
from linocut.pictures.quality import measure, ssimulacra2

Rgb = NDArray[np.uint8]
CONFIG = CompareConfig(bootstrap_draws=100, shown_pictures=1, shown_bpp=1.0)


class JpegDecoder:
    """Stands in for a codec: a byte that names the process that loaded it, then a JPEG file."""

    def __init__(self, folder: Path) -> None:
        (folder / f"loaded-{os.getpid()}").touch()

    def decompress(self, data: bytes) -> Rgb:
        if data[:1] != b"L":
            raise BitstreamError("starts with another byte, expected L")
        return np.array(Image.open(io.BytesIO(data[1:])))


@pytest.fixture
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures at two points, coded with JPEG."""
    monkeypatch.setenv("LINOCUT_WORKERS", "2")
    for folder in ("coded/codec", "coded/files", "test"):
        (tmp_path / folder).mkdir(parents=True)
    astronaut = np.ascontiguousarray(skimage.data.astronaut()[:180, :210])
    rows = []
    for name, image in {"one": astronaut, "two": astronaut[:, ::-1]}.items():
        write_png(tmp_path / "test" / f"{name}.png", image)
        for point, quality in enumerate((20, 80)):
            file = io.BytesIO(b"L")
            file.seek(1)
            Image.fromarray(image).save(file, "JPEG", quality=quality)
            data = file.getvalue()
            (tmp_path / "coded" / "files" / f"{name}-{point}.lino").write_bytes(data)
            estimate = 8 * len(data) / (180 * 210) * 0.99
            rows.append(CodedRow(name, point, 1.0 / quality, len(data), estimate, 0.5))
    write_rows(tmp_path / "coded" / "coded.csv", CodedRow, rows)
    return tmp_path / "coded"


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare a test that is not about processes the seconds that starting them takes."""

    def plain_map(function: Callable[[Any], Any], tasks: Sequence[Any], **_: Any) -> list[Any]:
        return [function(task) for task in tasks]

    monkeypatch.setattr("linocut.lab.evaluation.decode.map_in_processes", plain_map)


def evaluate(coded: Path) -> list[EvaluationRow]:
    out = coded.parent / "out"
    evaluate_cell(coded, coded.parent / "test", out, CONFIG, load=JpegDecoder)
    return read_rows(out / "evaluation.csv", EvaluationRow)


@pytest.mark.usefixtures("in_this_process")
def test_every_file_is_measured_from_its_bytes(coded: Path) -> None:
    rows = evaluate(coded)
    assert [(row.picture, row.point) for row in rows] == [
        ("one", 0), ("one", 1), ("two", 0), ("two", 1),
    ]  # fmt: skip
    for row in rows:
        file = coded / "files" / f"{row.picture}-{row.point}.lino"
        original = read_image(coded.parent / "test" / f"{row.picture}.png")
        decoded = read_image(io.BytesIO(file.read_bytes()[1:]))
        expected = measure(original, decoded)
        assert row.bytes == file.stat().st_size
        assert row.bpp == pytest.approx(8 * row.bytes / (180 * 210))
        assert row.estimated_bpp == pytest.approx(0.99 * row.bpp)
        assert row.psnr_db == pytest.approx(expected.psnr_db)
        assert row.ssim == pytest.approx(expected.ssim, abs=1e-6)
        assert row.ms_ssim == pytest.approx(expected.ms_ssim, abs=1e-6)
        assert row.ssimulacra2 == pytest.approx(ssimulacra2(original, decoded), abs=1e-3)
        assert row.decode_s > 0


def test_decoders_live_in_other_processes_and_load_once_in_each(coded: Path) -> None:
    evaluate(coded)
    loaded = [path.name for path in (coded / "codec").iterdir()]
    assert 1 <= len(loaded) <= 2
    assert f"loaded-{os.getpid()}" not in loaded


@pytest.mark.usefixtures("in_this_process")
def test_the_pictures_of_the_report_are_the_decoded_ones(coded: Path) -> None:
    evaluate(coded)
    shown = sorted((coded.parent / "out" / "pictures").iterdir())
    assert [path.name for path in shown] == ["two-1.png"]
    file = coded / "files" / "two-1.lino"
    assert np.array_equal(read_image(shown[0]), read_image(io.BytesIO(file.read_bytes()[1:])))


def test_an_interrupted_evaluation_decodes_the_rest_and_what_the_report_shows(
    coded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = (coded, coded.parent / "test", coded.parent / "out", CONFIG)
    again = functools.partial(
        evaluate_cell, *folders, load=JpegDecoder, state=coded.parent / "state"
    )
    monkeypatch.setenv("LINOCUT_WORKERS", "1")
    file = coded / "files" / "two-1.lino"
    content = file.read_bytes()
    file.write_bytes(b"X" + content[1:])
    with pytest.raises(BitstreamError):
        again()
    shutil.rmtree(coded.parent / "out")  # as DVC does
    file.write_bytes(content)
    again()
    assert "1 of 2 are done already" in capsys.readouterr().err
    rows = read_rows(coded.parent / "out" / "evaluation.csv", EvaluationRow)
    assert [(row.picture, row.point) for row in rows] == [
        ("one", 0), ("one", 1), ("two", 0), ("two", 1),
    ]  # fmt: skip
    assert not (coded.parent / "state").exists()
    assert (coded.parent / "out/pictures/two-1.png").exists()


@pytest.mark.usefixtures("in_this_process")
def test_a_file_of_another_size_is_refused(coded: Path) -> None:
    file = coded / "files" / "two-1.lino"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(DataError, match=r"two-1\.lino has \d+ bytes, expected \d+"):
        evaluate(coded)


def test_a_damaged_file_is_named_across_the_process_boundary(coded: Path) -> None:
    file = coded / "files" / "one-1.lino"
    file.write_bytes(b"X" + file.read_bytes()[1:])
    with pytest.raises(BitstreamError, match=r"one-1\.lino: starts with another byte"):
        evaluate(coded)


@pytest.mark.usefixtures("in_this_process")
def test_a_missing_file_is_named(coded: Path) -> None:
    (coded / "files" / "one-0.lino").unlink()
    with pytest.raises(DataError, match=r"one-0\.lino: No such file"):
        evaluate(coded)


@pytest.mark.usefixtures("in_this_process")
def test_a_decoder_that_changes_the_size_is_refused(coded: Path) -> None:
    write_png(coded.parent / "test" / "one.png", np.zeros((180, 211, 3), np.uint8))
    with pytest.raises(DataError, match=r"decodes to \(180, 210, 3\), expected \(180, 211, 3\)"):
        evaluate(coded)


def test_shown_pictures_are_spread_and_the_shown_point_is_the_nearest_in_ratio() -> None:
    assert spread(list("abcdefgh"), 2) == ["c", "g"]
    assert spread(list("abc"), 3) == spread(list("abc"), 5) == ["a", "b", "c"]
    assert spread(list("abc"), 1) == ["b"]
    assert spread(list("abc"), 0) == []
    rows = [CodedRow("a", point, 1.0, 1, bpp, 0.0) for point, bpp in enumerate((0.1, 0.25, 0.7))]
    assert [nearest_point(rows, bpp) for bpp in (0.01, 0.15, 0.17, 0.3, 9.0)] == [0, 0, 1, 1, 2]
