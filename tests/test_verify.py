"""`make verify` agrees with an honest report, and notices every kind of change to it."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import yaml
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

from fake_codec import FakeCodec
from linocut.lab.config.params import AnchorsConfig, CompareConfig
from linocut.lab.evaluation.anchors import run_anchors
from linocut.lab.evaluation.decode import evaluate_cell
from linocut.lab.evaluation.rows import CodedRow, write_rows
from linocut.lab.report.build import compare
from linocut.pictures.image import write_png

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
OFF_CURVE = [(1.0, 0.0, 0), (1.03, 0.0, 8), (1.0, 0.2, 8)]
CELLS = ("cae-l2", "cae-l1")
CONFIG = CompareConfig(bootstrap_draws=20, shown_pictures=1, shown_bpp=0.5)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose report was made from its files."""
    root = tmp_path_factory.mktemp("honest")
    artifacts = root / "artifacts"
    test = artifacts / "prepared" / "test"
    test.mkdir(parents=True)
    listed = []
    for name in ("astronaut", "chelsea", "coffee"):
        image = np.ascontiguousarray(getattr(skimage.data, name)()[40:216, 90:270])
        write_png(test / f"{name}.png", image)
        digest = hashlib.sha256(b"176x180:" + image.tobytes()).hexdigest()
        told = {"width": 180, "height": 176, "licence": "CC0-1.0", "sha256": digest}
        listed.append({"name": name, "pixels_sha256": digest, "split": "test", **told})
        for number, cell in enumerate(CELLS):
            _code(artifacts / "coded" / cell, name, image, number)
    manifest = json.dumps({"pictures": listed})
    (artifacts / "prepared" / "manifest.json").write_text(manifest)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("decode", "anchors"):
            patch.setattr(f"linocut.lab.evaluation.{module}.map_in_processes", plain_map)
        for cell in CELLS:
            coded = artifacts / "coded" / cell
            write_rows(coded / "coded.csv", CodedRow, ROWS.pop(coded))
            out = artifacts / "evaluated" / cell
            evaluate_cell(coded, test, out, CONFIG, load=FakeCodec.load)
        run_anchors(test, artifacts / "anchors", AnchorsConfig(("jpeg", "jpeg2000"), 4, 10))
    (root / "reports").mkdir()
    with pytest.MonkeyPatch.context() as patch:  # no pictures: the numbers are what counts here
        patch.setattr("linocut.lab.report.build.side_by_side.collect", lambda *_: [])
        for name in ("figures.draw_rd", "figures.draw_bd_rates", "figures.draw_lines"):
            patch.setattr(f"linocut.lab.report.build.{name}", lambda *_: None)
        compare(CELLS, artifacts=artifacts, reports=root / "reports", config=CONFIG, seed=3)
    params = {
        "seed": 3,
        "grid": {"arch": ["cae"], "loss": ["l2", "l1"]},
        "compare": {"bootstrap_draws": 20},
        "anchors": {"avif_speed": 10},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    report = (root / "reports" / "report.md").read_text()
    start, end = report.index("<!-- results -->"), report.index("<!-- /results -->")
    (root / "README.md").write_text(report[start:end] + "<!-- /results -->\n")
    return root


ROWS: dict[Path, list[CodedRow]] = {}


def _code(folder: Path, name: str, image: Any, number: int) -> None:
    (folder / "files").mkdir(parents=True, exist_ok=True)
    for point, quality in enumerate((5, 25, 60, 80)):
        data = FakeCodec(folder).compress(image, quality + number)
        (folder / "files" / f"{name}-{point}.lino").write_bytes(data)
        bpp = 8 * len(data) / (176 * 180)
        row = CodedRow(name, point, 0.1, len(data), bpp / 1.005, 0.1)
        ROWS.setdefault(folder, []).append(row)


def plain_map(function: Callable[[Any], Any], tasks: Sequence[Any], *, label: str) -> list[Any]:
    return [function(task) for task in tasks]


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[str]]:
    """The problems that `make verify` finds in a checkout."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("LINOCUT_WORKERS", "1")
    import verify as module

    return lambda root: module.verify(root, "fake_codec:FakeCodec", skip_anchors=False)


def test_an_honest_report_agrees(honest: Path, verify: Callable[[Path], list[str]]) -> None:
    assert verify(honest) == []


def change(root: Path, path: str, after: str, digit: str = "last") -> None:
    """Change the first or last digit of the first number after a pattern."""
    text = (root / path).read_text(encoding="utf-8")
    found = re.search(after, text)
    assert found
    number = re.compile(r"\d+(\.\d+)?").search(text, found.end())
    assert number
    place = number.start() if digit == "first" else number.end() - 1
    other = str((int(text[place]) + 5) % 10)
    (root / path).write_text(text[:place] + other + text[place + 1 :], encoding="utf-8")


def noticed(problems: Sequence[str], complaints: Sequence[str]) -> None:
    for complaint in complaints:
        assert any(complaint in problem for problem in problems), complaint
    for problem in problems:
        assert any(complaint in problem for complaint in complaints), problem


def test_every_change_of_the_files_is_noticed(
    honest: Path, tmp_path: Path, verify: Callable[[Path], list[str]]
) -> None:
    root = tmp_path / "changed"
    shutil.copytree(honest, root)
    artifacts = root / "artifacts"
    file = artifacts / "coded/cae-l1/files/coffee-2.lino"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    broken = artifacts / "coded/cae-l1/files/coffee-3.lino"
    broken.write_bytes(b"X" + broken.read_bytes()[1:])
    shutil.copy(artifacts / "prepared/test/coffee.png", artifacts / "prepared/test/chelsea.png")
    path = artifacts / "prepared/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["pictures"].append({**manifest["pictures"][0], "name": "copy", "split": "train"})
    path.write_text(json.dumps(manifest))
    change(root, "artifacts/evaluated/cae-l2/evaluation.csv", r"astronaut,2,0\.1,\d+,", "first")
    change(root, "artifacts/anchors/anchors.csv", r"jpeg2000,coffee,240,\d+,", "first")
    noticed(
        verify(root),
        [
            "cae-l1, coffee",
            "cae-l2, astronaut, 2",
            "cae-l1/coffee-3.lino does not decode",
            "chelsea",
            "copy and astronaut (test) are the same picture",
            "jpeg2000, coffee, 240: bpp",
        ],
    )


def test_every_change_of_the_report_is_noticed(
    honest: Path, tmp_path: Path, verify: Callable[[Path], list[str]]
) -> None:
    root = tmp_path / "changed"
    shutil.copytree(honest, root)
    change(root, "reports/metrics.json", '"best": ', "first")
    change(root, "reports/metrics.json", '"files":')
    change(root, "reports/metrics.json", "percent", "first")
    change(root, "reports/cells.json", '"cae-l2": ', "first")
    change(root, "reports/plots/bd_rate.csv", "cell,psnr_db,jpeg,", "first")
    change(root, "reports/plots/rd.csv", "cae-l1,cell,", "first")
    report = "reports/report.md"
    change(root, report, r"### MS-SSIM\n\n.*\n.*\n\| cae-l2 \|")
    change(root, report, r"\n\| JPEG 2000 \|")
    change(root, report, r"\*\* with ")
    change(root, report, r"\| PSNR \| cae-l\d \| cae-l\d \|")
    change(root, report, r"\| 1 bpp \|\n.*\n\| cae-l2 \|")
    change(root, report, r"s/MP \|\n.*\n\| cae-l2 \|")
    page = "reports/report.html"
    change(root, page, r"<h3>SSIMULACRA 2</h3>(?s:.*?)<td>cae-l2</td>", "first")
    change(root, page, r"in PSNR <strong>cae-l\d</strong> with ", "first")
    change(root, page, r'FIGURES = .*?"name":"cae-l1","x":\[', "last")
    change(root, page, r'"label":"MS-SSIM","data":\{"y":\[\[', "first")
    change(root, page, r'"label":"SSIMULACRA 2 vs JPEG","data":\{"z":\[\[\[', "first")
    noticed(
        verify(root),
        [
            "metrics.json: best in psnr_db",
            "metrics.json: files is",
            "metrics.json: rate over estimate",
            "cells.json: cae-l2 psnr_db",
            "plots/bd_rate.csv: cae-l2 psnr_db jpeg",
            "plots/rd.csv: bpp of cae-l1",
            "report.md, MS-SSIM, cae-l2, vs JPEG",
            "report.md, PSNR, JPEG 2000, vs JPEG",
            "headline, PSNR, cae-l",
            "report.md, Losses against each other, PSNR cae-l",
            "report.md, Quality at equal rate, cae-l2",
            "report.md, Files and costs, cae-l2, files",
            "README.md does not repeat",
            "report.html, MS-SSIM, cae-l2: not as",  # report.md was changed, too
            "report.html, SSIMULACRA 2, cae-l2: not as",
            "report.html, PSNR, JPEG 2000: not as",
            "report.html, Losses against each other, PSNR: not as",
            "report.html, Quality at equal rate, cae-l2: not as",
            "report.html, Files and costs, cae-l2: not as",
            "report.html: the headline",
            "report.html, rates of cae-l1",
            "report.html, MS-SSIM of cae-l2",
            "report.html, grid, SSIMULACRA 2 vs JPEG, cae-l2",
        ],
    )


def test_nothing_but_the_decoder_is_shared_with_the_project() -> None:
    shared = set()
    for name in ("verify", "picture_metrics", "expected_numbers", "report_tables", "report_page"):
        path = BENCHMARKS / f"{name}.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            shared |= {name for name in names if name.startswith("linocut")}
    assert shared == set()
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import verify as module
    finally:
        sys.path.remove(str(BENCHMARKS))
    assert module.DECODER == "linocut.codec.codec:Codec"


def test_many_versions_of_a_picture_get_the_scores_of_the_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from picture_metrics import Ssimulacra2

    original = np.ascontiguousarray(skimage.data.coffee()[100:247, 100:291])
    reference = Ssimulacra2(original)
    for sigma in (1, 8, 30):
        noise = np.random.default_rng(sigma).normal(0, sigma, original.shape)
        decoded = np.clip(original + noise, 0, 255).astype(np.uint8)
        files = [io.BytesIO(), io.BytesIO()]
        for image, file in zip((original, decoded), files, strict=True):
            Image.fromarray(image).save(file, "PPM")
        assert reference.score(decoded) == pytest.approx(compute_ssimulacra2(*files), abs=1e-9)


def test_draws_have_the_bd_rates_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from expected_numbers import Expected

    rng = np.random.default_rng(5)
    base = np.array(
        [[0.1, 26, 0.9, 20], [0.3, 30, 0.95, 50], [0.8, 34, 0.98, 70], [2, 39, 0.99, 80]]
    )
    measured = {
        name: {
            picture: [tuple(row) for row in base * (1 + gap * rng.random())] for picture in "abc"
        }
        for name, gap in (("cae-l2", 0.008), ("jpeg", 0.0001))
    }
    expected = Expected.compute(["cae-l2"], measured, seed=1, draws=9)
    drawn = [expected.bd_rate("cae-l2", "psnr_db", "jpeg", rows) for rows in expected.draws]
    assert len(set(drawn)) > 3
    assert expected.drawn("cae-l2", "psnr_db", "jpeg") == pytest.approx(drawn, abs=1e-9)


def test_a_changed_entry_of_the_bit_error_table_is_noticed(tmp_path: Path) -> None:
    from bit_error_table import check_bit_errors

    folder = tmp_path / "artifacts/studies/robustness/cae-l2"
    folder.mkdir(parents=True)
    lines = ["arm,errors_in,ber,decoded,psnr_db", "resilient,none,0,1,37.04"]
    lines += [f"resilient,payload,0.0001,{int(k > 0)},{30 + k}" for k in range(5)]
    (folder / "errors.csv").write_text("\n".join(lines), encoding="utf-8")
    heading, header = "Bits wrong behind the header", ["arm", "no errors", "0.0001"]
    row = [".lino, resilient (cae-l2)", "37.0", "32.0, 30.2, 80 %"]
    assert check_bit_errors(tmp_path, heading, header, [row]) == []
    for place, text in ((1, "37.2"), (2, "32.1, 30.2, 80 %"), (2, "32.0, 30.2, 81 %"), (2, "32.0")):
        changed = [*row]
        changed[place] = text
        problems = check_bit_errors(tmp_path, heading, header, [changed])
        assert len(problems) == 1
        assert f"says {text}" in problems[0]


@pytest.mark.parametrize(
    ("bpp", "psnr_db", "noticed"), [(1.0, 0.0, 0), (1.03, 0.0, 8), (1.0, 0.2, 8)]
)
def test_anchors_off_their_known_kodak_curves_are_noticed(
    monkeypatch: pytest.MonkeyPatch, bpp: float, psnr_db: float, noticed: int
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import report_tables
    from expected_numbers import Expected

    known = json.loads((ROOT / report_tables.KODAK_CURVES).read_text(encoding="utf-8"))
    curve = known[report_tables.MEASURED_ON_KODAK["jpeg2000"]]
    rates, quality = (np.array(curve[name])[:8] for name in ("bpp", "psnr_db"))
    mean = np.stack([rates * bpp, quality + psnr_db, 0 * rates, 0 * rates], axis=1)
    pictures = [f"kodim{number:02}" for number in range(1, 25)]
    points = {"jpeg2000": np.repeat(mean[None], 24, axis=0)}
    draws = np.zeros((1, 24), int)
    kodak = Expected([], ["jpeg2000"], pictures, points, {}, {}, draws)
    problems = report_tables._check_kodak(ROOT, kodak)
    assert len(problems) == noticed
    assert all("jpeg2000 at" in problem for problem in problems)
    others = Expected([], ["jpeg2000"], ["a", *pictures[1:]], points, {}, {}, draws)
    assert report_tables._check_kodak(ROOT, others) == []
