"""What the page of a run shows: the numbers, curves and pictures of one finished cell.

    trained/, coded/, evaluated/ of a cell + anchors/ --> numbers with steps, a figure, a key

The rate-distortion curve of a cell is a metric whose steps are rates: `rd/PSNR dB` at step 250
is the PSNR at 0.25 bits per pixel. Charts of several runs then show their curves in one frame.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from linocut.errors import LinocutError
from linocut.lab.evaluation import rd
from linocut.lab.evaluation.comparison import (
    METRICS,
    RANKING,
    REFERENCES,
    mean_points,
    picture_curves,
)
from linocut.lab.evaluation.recorded import Anchors, Cell, measured
from linocut.lab.evaluation.rows import AnchorRow, EvaluationRow, MeasuredRow
from linocut.lab.report import figures
from linocut.lab.tracking.store import KILOPIXELS, digest, flat

MILLIBPP = 1000
"""The steps of the rate-distortion curves are thousandths of a bit per pixel."""
QUOTED_BPP = (0.25, 0.5, 1.0)
BD_RATES = "BD-rate"
PALER = {"generative": 0.45, "cae2018": 0.7}
"""Architectures whose runs have the colour of their loss with so much white in it."""


class Point(NamedTuple):
    """One number of a run; `seconds` since its start, where that is known."""

    name: str
    value: float
    step: int = 0
    seconds: float = 0.0


def result_key(cell: Cell) -> str:
    """Identity of a result: how it was made, its codec, and what was measured but for the times."""
    codec = {name: digest(path.read_bytes()) for name, path in codec_files(cell).items()}
    quality = [(row.picture, row.point, row.bytes, row.psnr_db) for row in measured(cell)]
    made = [cell.name, flat(dict(cell.params)), dict(cell.data)]
    return digest(json.dumps([made, codec, quality], sort_keys=True).encode())


def codec_files(cell: Cell) -> dict[str, Path]:
    """Files that `Codec.load` reads, by their names in the codec's folder."""
    return {
        name.removeprefix("codec/"): path
        for name, path in sorted(cell.files["entropy_code"].items())
        if name.startswith("codec/")
    }


def history(cell: Cell) -> list[Point]:
    """The curves of the training."""
    with cell.files["train"]["history.csv"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Point(
            f"train/{name}",
            float(text),
            round(float(row["megapixels"]) * KILOPIXELS),
            float(row.get("seconds") or 0),
        )
        for row in rows
        for name, text in row.items()
        if name != "megapixels" and text
    ]


def results(cell: Cell, anchors: Anchors) -> list[Point]:
    """The measured curve, and the numbers to sort and to compare runs by."""
    rows, points = measured(cell), []
    for metric, kind in METRICS.items():
        bpp, quality = picture_curves(cell.name, rows, metric).mean()
        name = kind.title if metric == "ssimulacra2" else f"{kind.title} dB"
        points += [
            Point(f"rd/{name}", float(value), round(float(rate) * MILLIBPP))
            for rate, value in zip(bpp, quality, strict=True)
        ]
        points += [
            Point(
                f"eval/{name} at {quoted:g} bpp",
                round(float(np.interp(math.log(quoted), np.log(bpp), quality)), 3),
            )
            for quoted in QUOTED_BPP
            if bpp[0] <= quoted <= bpp[-1]
        ]
        points += [
            Point(
                f"{BD_RATES}/{kind.title} vs {anchor}",
                round(_bd_rate(anchors[anchor], rows, metric), 2),
            )
            for anchor in REFERENCES
            if anchor in anchors
        ]
    excess = sum(row.bpp for row in rows) / sum(row.estimated_bpp for row in rows) - 1
    points += [
        Point("eval/rate over estimate percent", round(100 * excess, 3)),
        Point("eval/encode s", round(float(np.mean([row.encode_s for row in rows])), 3)),
        Point("eval/decode s", round(float(np.mean([row.decode_s for row in rows])), 3)),
        Point("eval/codec kB", sum(p.stat().st_size for p in codec_files(cell).values()) / 1000),
    ]
    return [point for point in points if math.isfinite(point.value)]


def ranking(cell: Cell, anchors: Anchors) -> float:
    """BD-rate in PSNR against the anchor that ranks cells in the report; the lowest is the best."""
    anchor = next((name for name in RANKING if name in anchors), None)
    value = _bd_rate(anchors[anchor], measured(cell), "psnr_db") if anchor else math.inf
    return value if math.isfinite(value) else math.inf


def middle_step(cell: Cell) -> float:
    """The quantisation step that gave about half a bit per pixel."""
    return min((abs(math.log(row.bpp / 0.5)), row.step) for row in measured(cell))[1]


def colour(cell: Cell) -> str:
    """Colour of a run in MLflow's charts: that of its loss in the report."""
    white = PALER.get(cell.arch, 0.0)
    channels = bytes.fromhex(figures.colour(cell.loss).removeprefix("#"))
    return "#" + bytes(round(value + white * (255 - value)) for value in channels).hex()


def draw_curves(cells: Sequence[Cell], anchors: Anchors, path: Path) -> None:
    """Rate-distortion curves of cells, before those of the anchors."""
    names = [cell.name for cell in cells]
    rows: dict[str, Sequence[MeasuredRow]] = {**anchors}
    rows |= {cell.name: measured(cell) for cell in cells}
    kinds = {name: "cell" if name in names else "anchor" for name in rows}
    curves = {
        metric: {name: picture_curves(name, rows[name], metric) for name in rows}
        for metric in METRICS
    }
    figures.draw_rd(names, mean_points(curves, kinds), path)


def _bd_rate(anchor: Sequence[AnchorRow], rows: Sequence[EvaluationRow], metric: str) -> float:
    try:
        return rd.bd_rate_between(
            picture_curves("anchor", anchor, metric), picture_curves("cell", rows, metric)
        )
    except LinocutError:
        return math.nan
