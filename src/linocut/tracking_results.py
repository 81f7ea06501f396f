"""What the page of a run shows: the numbers, curves and pictures of one finished cell.

    evaluated/, coded/, trained/ of a cell + anchors/ --> numbers with steps, a figure, a key

The rate-distortion curve of a cell is a metric whose steps are rates: `rd/psnr_db` at step 250 is
the PSNR at 0.25 bits per pixel. Charts of several runs then show their curves in one frame.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from linocut import rd, tracking_store
from linocut.anchors import AnchorRow
from linocut.dvc_lock import Cell, Files
from linocut.evaluation import EvaluationRow
from linocut.metrics import to_db
from linocut.rd import Floats
from linocut.tables import read_rows
from linocut.tracking_store import KILOPIXELS, digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MILLIBPP = 1000
"""The steps of the rate-distortion curves are thousandths of a bit per pixel."""
QUOTED_BPP = (0.25, 0.5, 1.0)
QUOTED_ANCHORS = ("jpeg", "jpeg2000", "avif_444")


class Point(NamedTuple):
    """One number of a run; `seconds` since its start, where that is known."""

    name: str
    value: float
    step: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Curve:
    """Means over the pictures at every rate point, (n,) each, in the order of the rate."""

    bpp: Floats
    psnr_db: Floats
    ms_ssim_db: Floats


def cell_curve(cell: Cell) -> Curve:
    """The measured curve of a cell."""
    rows = _evaluation(cell)
    return _curve((row.point, row.bpp, row.psnr_db, row.ms_ssim) for row in rows)


def anchor_curves(files: Files | None) -> dict[str, Curve]:
    """The curves of the classical codecs, by their names; none where there are no anchors."""
    if files is None:
        return {}
    rows = read_rows(files["anchors.csv"], AnchorRow)
    return {
        codec: _curve(
            (row.setting, row.bpp, row.psnr_db, row.ms_ssim) for row in rows if row.codec == codec
        )
        for codec in dict.fromkeys(row.codec for row in rows)
    }


def result_key(cell: Cell) -> str:
    """Identity of a result: how it was made, its codec, and what was measured but for the times."""
    codec = {name: digest(path.read_bytes()) for name, path in codec_files(cell).items()}
    measured = [(row.picture, row.point, row.bytes, row.psnr_db) for row in _evaluation(cell)]
    made = [cell.name, tracking_store.flat(dict(cell.params)), dict(cell.data)]
    return digest(json.dumps([made, codec, measured], sort_keys=True).encode())


def codec_files(cell: Cell) -> dict[str, Path]:
    """Files that `Codec.load` reads, by their names in the codec's folder."""
    coded = cell.files["entropy_code"]
    return {
        name.removeprefix("codec/"): path
        for name, path in sorted(coded.items())
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


def results(cell: Cell, anchors: Mapping[str, Curve]) -> list[Point]:
    """The measured curve and the numbers to sort and to compare runs by."""
    rows, curve = _evaluation(cell), cell_curve(cell)
    points = [
        Point(f"rd/{name}", float(value), round(float(bpp) * MILLIBPP))
        for name in ("psnr_db", "ms_ssim_db")
        for bpp, value in zip(curve.bpp, getattr(curve, name), strict=True)
    ]
    for bpp in QUOTED_BPP:
        if curve.bpp[0] <= bpp <= curve.bpp[-1]:
            for name in ("psnr_db", "ms_ssim_db"):
                value = np.interp(math.log(bpp), np.log(curve.bpp), getattr(curve, name))
                points.append(Point(f"eval/{name} at {bpp:g} bpp", float(value)))
    for codec in QUOTED_ANCHORS:
        for name, measure in (("psnr_db", "PSNR"), ("ms_ssim_db", "MS-SSIM")):
            value = _bd_rate(anchors.get(codec), curve, name)
            if value is not None:
                points.append(Point(f"eval/BD-rate {measure} vs {codec} in percent", value))
    estimated = sum(row.estimated_bpp for row in rows)
    points += [
        Point(
            "eval/rate over estimate in percent", 100 * sum(r.bpp for r in rows) / estimated - 100
        ),
        Point("eval/encode_s", float(np.mean([row.encode_s for row in rows]))),
        Point("eval/decode_s", float(np.mean([row.decode_s for row in rows]))),
        Point("eval/codec_bytes", sum(path.stat().st_size for path in codec_files(cell).values())),
    ]
    return [point for point in points if math.isfinite(point.value)]


def ranking(cell: Cell, anchors: Mapping[str, Curve]) -> float:
    """BD-rate in PSNR against JPEG 2000, per cent: the lowest is the champion."""
    value = _bd_rate(anchors.get("jpeg2000"), cell_curve(cell), "psnr_db")
    return math.inf if value is None else value


def middle_step(cell: Cell) -> float:
    """The quantisation step that gave about half a bit per pixel."""
    steps = [(abs(math.log(row.bpp / 0.5)), row.step) for row in _evaluation(cell)]
    return min(steps)[1]


def figure(curves: Mapping[str, Curve], anchors: Mapping[str, Curve]) -> Figure:
    """Rate-distortion curves of cells, before those of the anchors in grey."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(11, 4.5))
    axes = drawing.subplots(1, 2)
    styles = ("-", "--", ":", "-.", (0, (1, 1)))
    for axis, (name, label) in zip(
        axes, (("psnr_db", "PSNR [dB]"), ("ms_ssim_db", "MS-SSIM [dB]")), strict=True
    ):
        for style, (title, curve) in zip(styles, anchors.items(), strict=False):
            axis.plot(curve.bpp, getattr(curve, name), ls=style, c="0.6", lw=1.2, label=title)
        for title, curve in curves.items():
            axis.plot(curve.bpp, getattr(curve, name), marker="o", ms=3.5, label=title)
        axis.set(xlabel="rate [bits per pixel]", ylabel=label, xscale="log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    drawing.subplots_adjust(left=0.06, right=0.99, top=0.97, bottom=0.11, wspace=0.14)
    axes[1].legend(fontsize="small", loc="lower right")
    return drawing


def _evaluation(cell: Cell) -> list[EvaluationRow]:
    return read_rows(cell.files["evaluate"]["evaluation.csv"], EvaluationRow)


def _curve(rows: Iterable[tuple[int, float, float, float]]) -> Curve:
    by_point: dict[int, list[tuple[float, float, float]]] = {}
    for point, *values in rows:
        by_point.setdefault(point, []).append((values[0], values[1], values[2]))
    means = np.array(sorted(tuple(np.mean(group, axis=0)) for group in by_point.values()))
    return Curve(means[:, 0], means[:, 1], to_db(means[:, 2]))


def _bd_rate(anchor: Curve | None, curve: Curve, name: str) -> float | None:
    if anchor is None:
        return None
    try:
        return rd.bd_rate(anchor.bpp, getattr(anchor, name), curve.bpp, getattr(curve, name))
    except rd.CurveError:
        return None
