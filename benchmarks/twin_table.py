"""The twin decoders' scores, from their files again, and the table about them; part of `verify.py`.

The networks of both decoders are taken as they are: training is not verified, only what they
decode. A file's correction of the last layer is left aside: it was fitted to neither.
"""

from __future__ import annotations

import csv
import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from linocut.format.bitstream import CORRECTION, pack, unpack
from picture_metrics import Ssimulacra2, ms_ssim, patch_distance, psnr_db

NETWORK = "linocut.lab.networks.store:load_model"
DRAWS = 2000
COLUMNS = {
    "PSNR [dB]": "psnr_db",
    "MS-SSIM": "ms_ssim",
    "SSIMULACRA 2": "ssimulacra2",
    "patch distance": "patch_distance",
}
SLACK = {"bpp": 1e-6, "psnr_db": 1e-3, "ms_ssim": 1e-5, "ssimulacra2": 0.02, "patch_distance": 0.02}
"""Of one score; it is what another order of sums may change."""


def twin_tasks(artifacts: Path, decoder: str, originals: Mapping[str, Path]) -> list[Any]:
    """Every cell that has twins, with each of its decoders."""
    files = sorted((artifacts / "studies/twin").glob("*/scores.csv"))
    return [
        (decoder, artifacts / "coded" / file.parent.name, file.parent, which, originals)
        for file in files
        for which in ("plain", "adversarial")
    ]


def measure_twin(task: tuple[Any, ...]) -> list[str]:
    """What differs between scores.csv and the files, decoded once more by one of the decoders."""
    torch.set_num_threads(1)
    name, coded, folder, which, originals = task
    codec = _load(name).load(coded / "codec")
    codec.network = _load(NETWORK)(folder / which)
    problems = []
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["decoder"] == which]
    for row in rows:
        label = f"{row['picture']}-{row['point']}.lino"
        original = np.asarray(Image.open(originals[row["picture"]]).convert("RGB"))
        data = (coded / "files" / label).read_bytes()
        decoded = codec.decompress(pack(unpack(data).without(CORRECTION)))
        found = {
            "bpp": 8 * len(data) / (original.shape[0] * original.shape[1]),
            "psnr_db": psnr_db(original, decoded),
            "ms_ssim": ms_ssim(original, decoded),
            "ssimulacra2": Ssimulacra2(original).score(decoded),
            "patch_distance": patch_distance(original, decoded),
        }
        problems += [
            f"twin {folder.name}, {which}, {label}: {column} is {value:.6g}, not {row[column]}"
            for column, value in found.items()
            if abs(float(row[column]) - value) > SLACK[column]
        ]
    return problems


def check_twins(
    root: Path, heading: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
    """Compare one table of the report, three rows for each rate, with scores.csv."""
    cell = heading.rpartition(" ")[2]
    with (root / "artifacts/studies/twin" / cell / "scores.csv").open(encoding="utf-8") as file:
        scores = list(csv.DictReader(file))
    pictures = sorted({row["picture"] for row in scores})
    draws = np.random.default_rng(0).integers(0, len(pictures), (DRAWS, len(pictures)))
    points = sorted({int(row["point"]) for row in scores})
    if len(rows) != 3 * len(points):
        return [f"report.md, {heading}: {len(rows)} rows, expected {3 * len(points)}"]
    problems = []
    for number, (label, *entries) in enumerate(rows):
        by = {
            (row["decoder"], row["picture"]): row
            for row in scores
            if int(row["point"]) == points[number // 3]
        }
        which = ("plain", "adversarial", "difference")[number % 3]
        for title, text in zip(header[1:], entries, strict=True):
            column = COLUMNS[title]
            values = {
                decoder: np.array([float(by[decoder, picture][column]) for picture in pictures])
                for decoder in ("plain", "adversarial")
            }
            change = values["adversarial"] - values["plain"]
            if which == "difference":
                outer = np.percentile(change[draws].mean(1), [2.5, 97.5])
                wanted = [f"{change.mean():+.3g}", *(f"{bound:+.2g}" for bound in outer)]
            else:
                wanted = [f"{values[which].mean():.4g}"]
            if re.sub(r"[],[]", " ", text).split() != wanted:
                place = f"report.md, {heading}, {label}, {title}"
                problems.append(f"{place}: says {text}, is {' '.join(wanted)}")
        bpp = np.mean([float(row["bpp"]) for row in by.values()])
        if label != (f"{which}, {bpp:.3f} bpp" if which != "difference" else which):
            problems.append(f"report.md, {heading}: row {label!r} is of {which} at {bpp:.3f} bpp")
    return problems


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
