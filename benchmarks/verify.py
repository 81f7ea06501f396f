"""Re-derive the numbers of the report from the compressed files and the original pictures.

    python -m benchmarks.verify       after `make repro`; exit 1 and one line per difference

Of this project only the decoder measures: metrics, curves, BD-rates, intervals, tests and reference
codecs are written again here, or taken from other people's packages, so that an error in the
pipeline's own measurement shows as a difference. What is compared are the data behind the report;
that its words and its page say what the data say is seen by rendering them once more. Not
re-derivable: times, the encoder's estimates of rate, which are only added up, trained networks, and
the seeded trials of bit errors.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import io
import json
import math
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imagecodecs
import numpy as np
import torch
import yaml
from PIL import Image
from tqdm import tqdm

from benchmarks.expected_numbers import Expected
from benchmarks.picture_metrics import Ssimulacra2, ms_ssim, psnr_db, ssim
from benchmarks.report_data import check_data
from linocut.lab.config.process import end_with_parent

ROOT = Path(__file__).resolve().parents[1]
DECODER = "linocut.codec.codec:Codec"
NETWORK = "linocut.lab.networks.store:load_model"
TRANSFORMS = "linocut.lab.networks.torch_transforms:TorchTransforms"
BITSTREAM = "linocut.format.bitstream"
RENDERING = "linocut.lab.report.build:compare"
RESULTS = "docs/results.md"

SAVE: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"optimize": True, "progressive": True, "subsampling": "4:2:0"}),
    "jpeg2000": ("JPEG2000", {
        "quality_mode": "rates", "irreversible": True, "mct": 1, "no_jp2": True}),
    "webp": ("WEBP", {"method": 6}),
    "avif_420": ("AVIF", {"subsampling": "4:2:0", "max_threads": 1}),
    "avif_444": ("AVIF", {"subsampling": "4:4:4", "max_threads": 1}),
}  # fmt: skip

CONTROLS = ("wavelet", "no_contexts")
"""Codecs with something taken away, beside the cells."""

COLUMNS = ("bpp", "psnr_db", "ssim", "ms_ssim", "ssimulacra2")
SLACK = (1e-6, 2e-3, 2e-5, 2e-5, 0.08)
"""Of each: two implementations of SSIMULACRA 2 differ by up to 0.05 on the finest files."""

Point = tuple[float, float, float, float, float]
"""Rate in bpp, PSNR in dB, SSIM, MS-SSIM, SSIMULACRA 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check everything under `--root`; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to verify")
    parser.add_argument("--decoder", default=DECODER, help="module:class with load and decompress")
    parser.add_argument("--skip-anchors", action="store_true", help="take anchors.csv as it is")
    options = parser.parse_args(arguments)
    problems = verify(options.root, options.decoder, skip_anchors=options.skip_anchors)
    for problem in problems:
        print(f"DIFFERENT: {problem}")
    found = "1 difference" if len(problems) == 1 else f"{len(problems)} differences"
    print(f"verify: {found}" if problems else "verify: everything agrees")
    return 1 if problems else 0


def verify(root: Path, decoder: str, *, skip_anchors: bool) -> list[str]:
    """Everything that differs, one line each."""
    artifacts = root / "artifacts"
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    originals = {path.stem: path for path in sorted((artifacts / "prepared/test").glob("*.png"))}
    problems = check_splits(artifacts / "prepared")
    cells = [f"{arch}-{loss}" for arch in params["grid"]["arch"] for loss in params["grid"]["loss"]]
    measured: dict[str, dict[str, list[Point]]] = {}
    tasks: list[tuple[Any, ...]] = []
    coded = {cell: artifacts / "coded" / cell for cell in cells}
    coded |= {name: artifacts / "controls" / name for name in CONTROLS}
    for name, folder in coded.items():
        for picture, path in originals.items():
            tasks.append(("cell", decoder, folder, name, picture, path))
    anchor_rows = read_csv(artifacts / "anchors" / "anchors.csv")
    speed = params["anchors"]["avif_speed"]
    settings: dict[str, list[int]] = defaultdict(list)
    for row in anchor_rows:
        if int(row["setting"]) not in settings[row["codec"]]:
            settings[row["codec"]].append(int(row["setting"]))
    if not skip_anchors:
        for codec, chosen in settings.items():
            for picture, path in originals.items():
                tasks.append(("anchor", chosen, speed, codec, picture, path))
    for name, picture, points, trouble in in_processes(measure, tasks):
        measured.setdefault(name, {})[picture] = points
        problems += trouble
    problems += check_tables(artifacts, cells, measured, anchor_rows)
    for trouble in in_processes(measure_twin, twin_tasks(artifacts, decoder, originals)):
        problems += trouble
    for row in anchor_rows:
        if skip_anchors:
            point = tuple(float(row[name]) for name in COLUMNS)
            measured.setdefault(row["codec"], {}).setdefault(row["picture"], []).append(point)
    if problems:
        return problems  # a report made from other files cannot agree
    expected = Expected.compute(
        cells,
        measured,
        seed=params["seed"],
        draws=params["compare"]["bootstrap_draws"],
        controls=CONTROLS,
    )
    return check_data(root, expected) or check_rendering(root, cells, params)


def measure(task: tuple[Any, ...]) -> tuple[str, str, list[Point], list[str]]:
    """All points of one picture through one codec, from files or by coding again."""
    torch.set_num_threads(1)
    kind, first, second, name, picture, path = task
    original = np.asarray(Image.open(path).convert("RGB"))
    points, problems = [], []
    if kind == "anchor":
        files = [("", encode(name, original, setting, second)) for setting in first]
    else:
        paths = sorted((second / "files").glob(f"{picture}-*.lino"), key=point_number)
        files = [(f"{name}/{file.name}", file.read_bytes()) for file in paths]
        codec = load(first).load(second / "codec")
    perceptual = Ssimulacra2(original)
    for label, data in files:
        try:
            decoded = decode(name, data) if kind == "anchor" else codec.decompress(data)
        except Exception as error:
            problems.append(f"{label} does not decode: {error}")
            continue
        bpp = 8 * len(data) / (original.shape[0] * original.shape[1])
        points.append((
            bpp, psnr_db(original, decoded), ssim(original, decoded), ms_ssim(original, decoded),
            perceptual.score(decoded),
        ))  # fmt: skip
    return name, picture, points, problems


TWIN_SLACK = {"bpp": 1e-6, "psnr_db": 1e-3, "ssimulacra2": 0.02}
"""Of one score; it is what another order of sums may change."""


def twin_tasks(artifacts: Path, decoder: str, originals: Mapping[str, Path]) -> list[Any]:
    """Every cell that has twins, with each of its decoders."""
    files = sorted((artifacts / "studies/twin").glob("*/scores.csv"))
    return [
        (decoder, artifacts / "coded" / file.parent.name, file.parent, which, originals)
        for file in files
        for which in ("plain", "twin", "adversarial")
    ]


def measure_twin(task: tuple[Any, ...]) -> list[str]:
    """What differs between scores.csv and the files, decoded once more by one of the decoders.

    A file's correction of the last layer is left aside: it was fitted to neither.
    """
    torch.set_num_threads(1)
    name, coded, folder, which, originals = task
    codec = load(name).load(coded / "codec")
    if which != "plain":
        codec = codec.with_transforms(load(TRANSFORMS)(load(NETWORK)(folder / which)))
    bitstream = importlib.import_module(BITSTREAM)
    problems = []
    for row in read_csv(folder / "scores.csv"):
        if row["decoder"] != which:
            continue
        label = f"{row['picture']}-{row['point']}.lino"
        original = np.asarray(Image.open(originals[row["picture"]]).convert("RGB"))
        data = (coded / "files" / label).read_bytes()
        file = bitstream.unpack(data).without(bitstream.CORRECTION)
        decoded = codec.decompress(bitstream.pack(file))
        found = {
            "bpp": 8 * len(data) / (original.shape[0] * original.shape[1]),
            "psnr_db": psnr_db(original, decoded),
            "ssimulacra2": Ssimulacra2(original).score(decoded),
        }
        problems += [
            f"twin {folder.name}, {which}, {label}: {column} is {value:.6g}, not {row[column]}"
            for column, value in found.items()
            if abs(float(row[column]) - value) > TWIN_SLACK[column]
        ]
    return problems


def check_rendering(root: Path, cells: Sequence[str], params: dict[str, Any]) -> list[str]:
    """Whether report.md, report.html and the results in docs are what the same data give again."""
    reports, problems = root / "reports", []
    config = SimpleNamespace(**params["compare"])
    with tempfile.TemporaryDirectory() as place:
        again = Path(place)
        load(RENDERING)(
            cells, artifacts=root / "artifacts", reports=again, config=config,
            seed=params["seed"], params=root / "params.yaml",
        )  # fmt: skip
        for name in ("report.md", "report.html"):
            path = reports / name
            if not path.is_file():
                problems.append(f"{name} is missing: `dvc repro` makes it, `dvc pull` fetches it")
            elif path.read_bytes() != (again / name).read_bytes():
                problems.append(f"{name} is not what its data give")
    text = (reports / "report.md").read_text(encoding="utf-8")
    block = text.partition("<!-- results -->\n")[2].partition("<!-- /results -->")[0]
    if block not in (root / RESULTS).read_text(encoding="utf-8"):
        problems.append(f"{RESULTS} does not repeat the results of report.md: run `make readme`")
    return problems


def point_number(path: Path) -> int:
    """The rate point in a file's name, `<picture>-<point>.lino`."""
    return int(path.stem.rpartition("-")[2])


def load(name: str) -> Any:
    """What is taken from the project, by module:name."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def encode(codec: str, image: np.ndarray[Any, Any], setting: int, speed: int) -> bytes:
    """Code a picture with Pillow, or as JPEG XL with imagecodecs."""
    if codec == "jpegxl":
        return bytes(imagecodecs.jpegxl_encode(image, level=setting, effort=7, numthreads=1))
    file_format, options = SAVE[codec]
    chosen: dict[str, Any] = {"quality": setting}
    if codec == "jpeg2000":
        chosen = {"quality_layers": [setting]}
    if file_format == "AVIF":
        chosen["speed"] = speed
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=file_format, **options, **chosen)
    return file.getvalue()


def decode(codec: str, data: bytes) -> np.ndarray[Any, Any]:
    """The picture of such a file."""
    if codec == "jpegxl":
        return np.asarray(imagecodecs.jpegxl_decode(data))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def check_splits(prepared: Path) -> list[str]:
    """No picture twice, by content; every test picture is the one of the manifest."""
    manifest = json.loads((prepared / "manifest.json").read_text(encoding="utf-8"))
    problems: list[str] = []
    seen: dict[str, str] = {}
    for entry in manifest["pictures"]:
        digest = entry["pixels_sha256"]
        if digest in seen:
            problems.append(f"{entry['name']} and {seen[digest]} are the same picture")
        seen[digest] = f"{entry['name']} ({entry['split']})"
    listed = {entry["name"]: entry for entry in manifest["pictures"] if entry["split"] == "test"}
    found = {path.stem: path for path in (prepared / "test").glob("*.png")}
    for name in sorted(set(listed) ^ set(found)):
        problems.append(
            f"test picture {name} is only in {'manifest' if name in listed else 'test'}"
        )
    for name in sorted(set(listed) & set(found)):
        image = np.asarray(Image.open(found[name]).convert("RGB"))
        digest = hashlib.sha256(f"{image.shape[0]}x{image.shape[1]}:".encode())
        digest.update(np.ascontiguousarray(image).tobytes())
        if digest.hexdigest() != listed[name]["pixels_sha256"]:
            problems.append(f"test picture {name} is not the one of the manifest")
    return problems


def check_tables(
    artifacts: Path,
    cells: Sequence[str],
    measured: dict[str, dict[str, list[Point]]],
    anchor_rows: Sequence[dict[str, str]],
) -> list[str]:
    """evaluation.csv and anchors.csv row by row against what was measured here."""
    tables = {cell: read_csv(artifacts / "evaluated" / cell / "evaluation.csv") for cell in cells}
    for name in CONTROLS:
        tables[name] = read_csv(artifacts / "controls" / name / "evaluation.csv")
    for row in anchor_rows:
        tables.setdefault(row["codec"], []).append(row)
    problems = []
    for name, rows in tables.items():
        if name not in measured:
            continue
        by_picture: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            by_picture[row["picture"]].append(row)
        for picture, points in measured[name].items():
            listed = by_picture.get(picture, [])
            if len(listed) != len(points):
                problems.append(f"{name}, {picture}: {len(points)} files, {len(listed)} in table")
            for row, point in zip(listed, points, strict=False):
                for column, value, slack in zip(COLUMNS, point, SLACK, strict=True):
                    if not same(float(row[column]), value, slack):
                        where = f"{name}, {picture}, {row.get('point') or row.get('setting')}"
                        problems.append(f"{where}: {column} is {row[column]}, found {value:.6g}")
    return problems


def same(one: float, two: float, slack: float) -> bool:
    """Equal up to slack; NaN equals NaN."""
    return abs(one - two) <= slack or (math.isnan(one) and math.isnan(two)) or one == two


def in_processes(function: Any, tasks: Sequence[Any]) -> list[Any]:
    """Results in order, from LINOCUT_WORKERS processes of one thread (1: from this one)."""
    workers = int(os.environ.get("LINOCUT_WORKERS") or os.cpu_count() or 1)
    progress = tqdm(total=len(tasks), desc="verify", unit="curve", disable=None)
    if workers == 1:
        return [function(task) for task in tasks]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # read by the numpy of processes that start now
    with progress, ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
        found = []
        for result in pool.map(function, tasks):
            found.append(result)
            progress.update()
        return found


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    sys.exit(main())
