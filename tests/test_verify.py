"""`make verify` agrees with an honest report, and notices every kind of change to it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
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
from linocut.lab.evaluation.rows import (
    CONTROLS,
    TWIN_DECODERS,
    CodedRow,
    ErrorRow,
    FrechetRow,
    GateRow,
    TwinRow,
    write_rows,
)
from linocut.lab.report.build import compare
from linocut.pictures.image import write_png

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
CELLS = ("cae-l2", "cae-l1")
CONFIG = CompareConfig(bootstrap_draws=20, shown_pictures=1, shown_bpp=0.5)
DRAWN = ("figures.collect", "figures.draw_rd", "figures.draw_bd_rates", "figures.draw_lines")


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
        for number, control in enumerate(CONTROLS):
            _code(artifacts / "controls" / control, name, image, 10 + number)
    manifest = json.dumps({"pictures": listed})
    (artifacts / "prepared" / "manifest.json").write_text(manifest)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("decode", "anchors"):
            patch.setattr(f"linocut.lab.evaluation.{module}.map_in_processes", plain_map)
        for cell in (*CELLS, *CONTROLS):
            coded = out = artifacts / "controls" / cell
            if cell in CELLS:
                coded, out = artifacts / "coded" / cell, artifacts / "evaluated" / cell
            write_rows(coded / "coded.csv", CodedRow, ROWS.pop(coded))
            evaluate_cell(coded, test, out, CONFIG, load=FakeCodec.load)
        run_anchors(test, artifacts / "anchors", AnchorsConfig(("jpeg", "jpeg2000"), 4, 10))
    (root / "reports").mkdir()
    write_studies(artifacts / "studies")
    params = {
        "seed": 3,
        "grid": {"arch": ["cae"], "loss": ["l2", "l1"]},
        "compare": vars(CONFIG),
        "anchors": {"avif_speed": 10},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        compare(
            CELLS, artifacts=artifacts, reports=root / "reports", config=CONFIG, seed=3,
            params=root / "params.yaml",
        )  # fmt: skip
    report = (root / "reports" / "report.md").read_text()
    start, end = report.index("<!-- results -->"), report.index("<!-- /results -->")
    (root / "docs").mkdir()
    (root / "docs" / "results.md").write_text(report[start:end] + "<!-- /results -->\n")
    return root


def without_pictures(patch: pytest.MonkeyPatch) -> None:
    """The numbers are what counts here."""
    for name in DRAWN:
        nothing: list[str] = []
        patch.setattr(f"linocut.lab.report.build.{name}", lambda *_, nothing=nothing: nothing)


def write_studies(folder: Path) -> None:
    """Damaged files of one cell, and the scores of its twins, as tables alone."""
    errors = [
        ErrorRow("lino", "coffee", place, ber, trial, 0.9, 9, 1, 30.0 + trial - ber, 0.9, 0.0)
        for place, ber in (("none", 0.0), ("payload", 0.1), ("all", 0.1))
        for trial in range(3)
    ]
    scores = [
        TwinRow(decoder, name, 0, 0.1, 30.0 + place, 50.0, 0.3 - 0.1 * place)
        for place, decoder in enumerate(TWIN_DECODERS)
        for name in ("chelsea", "coffee")
    ]
    history = "megapixels,discriminator_loss,discriminator_accuracy\n1,0.5,0.6\n2,0.4,0.7\n"
    for name in ("robustness/cae-l2", "twin/cae-l2/adversarial"):
        (folder / name).mkdir(parents=True)
    write_rows(folder / "robustness/cae-l2/errors.csv", ErrorRow, errors)
    write_rows(folder / "twin/cae-l2/scores.csv", TwinRow, scores)
    distances = [FrechetRow(name, 0, 9.0, "plain", 0.9, 0.8, 1.1) for name in TWIN_DECODERS]
    distances.append(FrechetRow("adversarial", 0, 9.0, "twin", 0.8, 0.7, 0.9))
    write_rows(folder / "twin/cae-l2/frechet.csv", FrechetRow, distances)
    gate = [GateRow("a", 0.5, "passed"), GateRow("b", 0.25, "failed")]
    write_rows(folder / "twin/cae-l2/gate.csv", GateRow, gate)
    (folder / "twin/cae-l2/adversarial/history.csv").write_text(history)


ROWS: dict[Path, list[CodedRow]] = {}


def _code(folder: Path, name: str, image: Any, number: int) -> None:
    (folder / "files").mkdir(parents=True, exist_ok=True)
    for point, quality in enumerate((5, 25, 60, 80)):
        data = FakeCodec(folder).compress(image, quality + number)
        (folder / "files" / f"{name}-{point}.lino").write_bytes(data)
        bpp = 8 * len(data) / (176 * 180)
        row = CodedRow(name, point, 0.1, len(data), bpp / 1.005, 0.1)
        ROWS.setdefault(folder, []).append(row)


def plain_map(
    function: Callable[[Any], Any], tasks: Sequence[Any], *, label: str, kept: object = None
) -> list[Any]:
    return [function(task) for task in tasks]


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[str]]:
    """The problems that `make verify` finds in a checkout."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("LINOCUT_WORKERS", "1")
    from benchmarks import verify as module

    without_pictures(monkeypatch)
    monkeypatch.setattr(module, "measure_twin", lambda _: [])  # the fake codec has no network
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


def test_every_number_of_the_data_is_derived(
    honest: Path,
    tmp_path: Path,
    verify: Callable[[Path], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every column of every table, and every number of the JSON files, is changed by itself."""
    from benchmarks import report_data
    from benchmarks import verify as module

    known: list[Any] = []
    monkeypatch.setattr(module, "check_data", lambda _, expected: known.append(expected) or [])
    assert verify(honest) == []
    shutil.copytree(honest, tmp_path / "changed")
    reports, tried = tmp_path / "changed/reports", 0
    for path in [
        *reports.glob("*.json"),
        *reports.glob("plots/*.json"),
        *reports.glob("plots/*.csv"),
    ]:
        text = path.read_text(encoding="utf-8")
        head = text.partition("\n")[0] if path.suffix == ".csv" else ""
        values = text[len(head) :].strip().partition("\n")[0] if head else text
        for value in re.finditer(r"[^,]+" if head else r"(?<= )-?\d+(\.\d+)?(?=,?\n)", values):
            place = value.start() + (len(head) + 1 if head else 0)
            other = "7" if value[0] == "nan" else f"4{value[0].lstrip('-')}"
            path.write_text(text[:place] + other + text[place + len(value[0]) :], encoding="utf-8")
            problems = report_data.check_data(tmp_path / "changed", known[0])
            assert any(path.name in problem for problem in problems), f"{path.name}: {value[0]}"
            tried += 1
        path.write_text(text, encoding="utf-8")
    assert tried > 60


def test_words_that_do_not_follow_from_the_data_are_noticed(
    honest: Path, tmp_path: Path, verify: Callable[[Path], list[str]]
) -> None:
    root = tmp_path / "changed"
    shutil.copytree(honest, root)
    change(root, "reports/report.md", r"### MS-SSIM\n\n.*\n.*\n\| cae-l2 \|")
    change(root, "reports/report.html", r"<td>cae-l2</td>", "first")
    change(root, "docs/results.md", r"the lowest is cae-l\d")
    noticed(verify(root), ["report.md is not", "report.html is not", "results.md does not repeat"])


def test_nothing_that_measures_is_shared_with_the_project() -> None:
    for name in ("verify", "picture_metrics", "expected_numbers", "report_data"):
        text = (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")
        named = set(re.findall(r"\blinocut\.[\w.:]+", text.partition('"""\n')[2]))
        assert named == (
            {
                "linocut.codec.codec:Codec",
                "linocut.format.bitstream",
                "linocut.lab.config.process",
                "linocut.lab.networks.torch_transforms:TorchTransforms",
                "linocut.lab.networks.store:load_model",
                "linocut.lab.report.build:compare",
            }
            if name == "verify"
            else set()
        )


def test_many_versions_of_a_picture_get_the_scores_of_the_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from benchmarks.picture_metrics import Ssimulacra2

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
    from benchmarks.expected_numbers import Expected

    rng = np.random.default_rng(5)
    base = np.array([
        [0.1, 26, 0.7, 0.9, 20], [0.3, 30, 0.8, 0.95, 50], [0.8, 34, 0.9, 0.98, 70],
        [2, 39, 0.95, 0.99, 80],
    ])  # fmt: skip
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
