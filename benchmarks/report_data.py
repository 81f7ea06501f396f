"""Whether the data behind README and report are what follows from files; part of `verify.py`.

reports/{metrics,cells}.json, plots/{about.json,*.csv} <-- compared --> Expected, tables of stages

Tables are compared as tables, number by number. Nothing reads Markdown or HTML: those are rendered
from these data.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.expected_numbers import METRICS, Expected, bd_rate

SLACK = {"psnr_db": 1e-3, "ssim_db": 0.03, "ms_ssim_db": 0.03, "ssimulacra2": 0.2}
"""Of BD-rates: the pipeline's SSIMULACRA 2 is another implementation."""

REFERENCES = ("jpeg", "jpeg2000", "avif_444")
RANKING = ("jpeg2000", "jpeg", "avif_444", "avif_420", "webp", "jpegxl")
SIGNIFICANT, P_SLACK = 0.05, 0.02
TWIN_SCORES = ("psnr_db", "ssimulacra2", "feature_distance")
TWIN_DRAWS = 2000

KODAK_CURVES = "src/linocut/lab/evaluation/kodak_curves.json"
PUBLISHED = {
    "BPG 4:4:4": "BPG 4:4:4 (0.9.8 x265, CompressAI)",
    "VTM": "VTM (VVC intra, CompressAI)",
    "factorized prior": "bmshj2018-factorized (MSE)",
    "factorized prior for MS-SSIM": "bmshj2018-factorized (MS-SSIM)",
    "hyperprior": "bmshj2018-hyperprior (MSE)",
    "hyperprior for MS-SSIM": "bmshj2018-hyperprior (MS-SSIM)",
    "mbt2018": "mbt2018 (MSE)",
    "cheng2020": "cheng2020-anchor (MSE)",
}

Row = dict[str, Any]

KEYS = {
    "rd": ("curve", "kind"),
    "bd_rate": ("curve", "kind", "metric", "anchor"),
    "leads": ("metric", "leader"),
    "ranking": ("metric", "arch", "curve", "best"),
    "costs": ("curve",),
    "published": ("metric", "codec", "cell"),
    "twins": ("cell", "point", "decoder", "score", "reference"),
    "gates": ("cell", "condition", "verdict"),
    "bit_errors": ("cell", "arm", "errors_in", "ber"),
}
"""Columns that name a row, by table; all others are numbers that are compared."""


def check_data(root: Path, expected: Expected) -> list[str]:
    """Everything in reports/ that does not follow from the files, one line each."""
    reports, artifacts = root / "reports", root / "artifacts"
    plots = reports / "plots"
    tables = {
        "rd": _points(expected),
        "bd_rate": _bd_rates(expected),
        "leads": _leads(expected),
        "ranking": _ranking(expected),
        "costs": _costs(artifacts, expected),
        "published": _published(root, expected),
        "twins": _twins(artifacts / "studies/twin"),
        "gates": _gates(artifacts / "studies/twin"),
        "bit_errors": _bit_errors(artifacts / "studies/robustness"),
    }
    problems = []
    for name, rows in tables.items():
        problems += compare_table(plots / f"{name}.csv", rows)
    problems += _compare_json(reports / "metrics.json", _metrics(tables, expected))
    cells = {
        cell: {
            metric.removesuffix("_db"): expected.bd[cell, metric, _anchor(expected)][0]
            for metric in METRICS
        }
        for cell in expected.cells
    }
    problems += _compare_json(reports / "cells.json", cells)
    versions = json.loads((artifacts / "anchors/versions.json").read_text(encoding="utf-8"))
    missing = [
        dict(zip(("curve", "metric", "anchor"), key, strict=True))
        for key, bd in expected.bd.items()
        if math.isnan(bd[0]) and key[0] in expected.cells and key[2] in REFERENCES
    ]
    about = {
        "pictures": expected.pictures,
        "anchor": _anchor(expected),
        "draws": len(expected.draws),
        "versions": versions,
        "missing": sorted(missing, key=str),
    }
    return problems + _compare_json(plots / "about.json", about)


def compare_table(path: Path, rows: Sequence[Row]) -> list[str]:
    """Every number of a CSV file that is another one than in `rows`."""
    if path.exists() != bool(rows):
        return [f"{path.name} is {'' if path.exists() else 'not '}there"]
    if not rows:
        return []
    keys, columns = KEYS[path.stem], [*rows[0]]
    table = pd.read_csv(path, keep_default_na=False, na_values=["nan"])
    if list(table.columns) != columns:
        return [f"{path.name} has the columns {', '.join(table.columns)}, not {', '.join(columns)}"]
    if path.stem == "rd":
        table = table[table["kind"] != "published"]
    found = _by_key(table.to_dict("records"), keys)
    wanted = _by_key(rows, keys)
    problems = [
        f"{path.name}: {' '.join(map(str, key))} is {'' if key in found else 'not '}there"
        for key in sorted(found.keys() ^ wanted.keys(), key=str)
    ]
    for key in [key for key in wanted if key in found]:
        for column, right in wanted[key].items():
            value = found[key][column]
            if not _same(value, right, _slack(path.stem, wanted[key], column)):
                place = f"{path.name}: {' '.join(map(str, key))}, {column}"
                problems.append(f"{place} is {_shown(value)}, expected {_shown(right)}")
    return problems


def _by_key(rows: Sequence[Row], keys: Sequence[str]) -> dict[tuple[Any, ...], Row]:
    """Rows by what names them, and by their number where several have one name."""
    found: dict[tuple[Any, ...], Row] = {}
    counts: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        key = tuple(row[name] for name in keys)
        found[*key, counts[key]] = row
        counts[key] += 1
    return found


def _slack(table: str, row: Row, column: str) -> float:
    if column == "p_value":
        return P_SLACK
    if table in ("bd_rate", "leads", "ranking", "published"):
        return SLACK[row["metric"]]
    known = {"psnr_db": 1e-3, "ssim_db": 5e-3, "ms_ssim_db": 5e-3, "ssimulacra2": 0.05}
    return known.get(column, 1e-4)


def _same(one: Any, two: Any, slack: float) -> bool:
    if isinstance(one, str) or isinstance(two, str):
        return bool(one == two)
    return bool(np.isclose(one, two, rtol=1e-6, atol=slack, equal_nan=True))


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _compare_json(path: Path, wanted: Mapping[str, Any]) -> list[str]:
    """A number may differ by rounding; what is NaN is left out; reasons are words, not data."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if "missing" in found:
        found["missing"] = sorted(
            [{k: v for k, v in one.items() if k != "reason"} for one in found["missing"]], key=str
        )
    one, two = _flat(found), _flat(wanted)
    return [
        f"{path.name}: {key} is {_shown(one.get(key))}, expected {_shown(two.get(key))}"
        for key in sorted(one.keys() | two.keys())
        if key not in one or key not in two
        or not _same(one[key], two[key], 0.005 + SLACK.get(f"{key.split('.')[-1]}_db", 2e-3))
    ]  # fmt: skip


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping | list | tuple):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        return {k: v for key, one in parts for k, v in _flat(one, f"{name}.{key}").items()}
    return {} if isinstance(value, float) and math.isnan(value) else {name.lstrip("."): value}


def _kind(expected: Expected, name: str) -> str:
    if name in expected.controls:
        return "control"
    return "cell" if name in expected.cells else "anchor"


def _anchor(expected: Expected) -> str:
    return next(name for name in RANKING if name in expected.anchors)


def _points(expected: Expected) -> list[Row]:
    rows = []
    for name in expected.points:
        curves = {metric: expected.curve(name, metric) for metric in METRICS}
        for place, bpp in enumerate(curves["psnr_db"][0]):
            quality = {metric: float(curve[1][place]) for metric, curve in curves.items()}
            rows.append({"curve": name, "kind": _kind(expected, name), "bpp": float(bpp)} | quality)
    return rows


def _bd_rates(expected: Expected) -> list[Row]:
    return [
        {"curve": curve, "kind": _kind(expected, curve), "metric": metric, "anchor": anchor}
        | dict(zip(("bd_rate", "low", "high"), bd, strict=True))
        for (curve, metric, anchor), bd in expected.bd.items()
    ]


def _leads(expected: Expected) -> list[Row]:
    rows = []
    for metric in METRICS:
        bds = {cell: expected.bd[cell, metric, _anchor(expected)] for cell in expected.cells}
        known = {cell: bd[0] for cell, bd in bds.items() if math.isfinite(bd[0])}
        leader = min(known, key=lambda cell: known[cell], default=expected.cells[0])
        tested = expected.p_values(metric, expected.cells)
        p = {cell: tested[frozenset((leader, cell))] for cell in bds if cell != leader}
        rows.append(
            {"metric": metric, "leader": leader}
            | dict(zip(("bd_rate", "low", "high"), bds[leader], strict=True))
            | {"p_value": float(np.max([*p.values()])) if p else math.nan}
            | {"not_told_apart": " ".join(cell for cell in p if not p[cell] < SIGNIFICANT)}
        )
    return rows


def _ranking(expected: Expected) -> list[Row]:
    names = ("bd_rate", "low", "high", "p_value", "detectable")
    return [
        {"metric": metric, "arch": arch, "curve": cell, "best": next(iter(ranked))}
        | dict(zip(names, numbers, strict=True))
        for metric in METRICS
        for arch in dict.fromkeys(cell.partition("-")[0] for cell in expected.cells)
        for ranked in [expected.ranking(metric, arch)]
        for cell, numbers in ranked.items()
    ]


def _costs(artifacts: Path, expected: Expected) -> list[Row]:
    """Rates of the files; the times, which nobody can measure again, are only added up."""
    anchors = pd.read_csv(artifacts / "anchors/anchors.csv")
    rows = []
    for name, points in expected.points.items():
        if name not in expected.anchors:
            cell = name in expected.cells
            measured, files = ("evaluated", "coded") if cell else ("controls", "controls")
            table = pd.read_csv(artifacts / measured / name / "evaluation.csv")
            coded = pd.read_csv(artifacts / files / name / "coded.csv")
            place = coded["picture"].map(expected.pictures.index)
            bpp = points[place, coded["point"], 0]
            estimated = (coded["estimated_bpp"] * coded["bytes"] / bpp).sum()
            gap = 100 * (coded["bytes"].sum() / estimated - 1)
            curves = [expected.curve(name, metric)[1] for metric in METRICS]
            rising = float(all(np.all(np.diff(quality) > 0) for quality in curves))
        else:
            table, gap, rising = anchors[anchors["codec"] == name], math.nan, math.nan
        megapixels = (8 * table["bytes"] / table["bpp"]).sum() / 1e6
        rates = expected.curve(name, "psnr_db")[0]
        rows.append({
            "curve": name, "files": int(np.prod(points.shape[:2])),
            "bpp_low": rates[0], "bpp_high": rates[-1], "over_estimate_percent": gap,
            "monotone": rising, "encode_s_per_mp": table["encode_s"].sum() / megapixels,
            "decode_s_per_mp": table["decode_s"].sum() / megapixels,
        })  # fmt: skip
    return rows


def _metrics(tables: Mapping[str, Sequence[Row]], expected: Expected) -> Row:
    leads = tables["leads"]
    gaps = [row["over_estimate_percent"] for row in tables["costs"]]
    taught: dict[str, bool] = {}
    for row in tables["gates"]:
        taught[row["cell"]] = taught.get(row["cell"], True) and row["verdict"] == "passed"
    return ({"adversary_taught": taught} if taught else {}) | {
        "leader": leads[0]["leader"],
        "leads_significantly": len(expected.cells) > 1 and not leads[0]["not_told_apart"],
        "lowest": {row["metric"].removesuffix("_db"): row["bd_rate"] for row in leads},
        "files": sum(expected.files.values()),
        "rate_over_estimate_percent": max((gap for gap in gaps if gap == gap), key=abs),
    }


def _twins(folder: Path) -> list[Row]:
    """Means and paired changes of the scores of single pictures, and the Frechet distances."""
    rows = []
    for file in sorted(folder.glob("*/scores.csv")):
        scores = pd.read_csv(file)
        for point, here in scores.groupby("point"):
            at = {"cell": file.parent.name, "point": point, "bpp": here["bpp"].mean()}
            for score in TWIN_SCORES:
                by = here.pivot(index="picture", columns="decoder", values=score)
                for decoder in by:
                    change = (by[decoder] - by["plain"]).to_numpy()
                    count = len(change)
                    draws = np.random.default_rng(0).integers(0, count, (TWIN_DRAWS, count))
                    low, high = np.percentile(change[draws].mean(1), [2.5, 97.5])
                    rows.append({
                        **at, "decoder": decoder, "score": score, "value": by[decoder].mean(),
                        "reference": "plain", "change": change.mean(), "low": low, "high": high,
                    })  # fmt: skip
            for row in pd.read_csv(file.parent / "frechet.csv").to_dict("records"):
                if row["point"] == point:
                    percent = {
                        new: 100.0 * (row[old] - 1.0)
                        for new, old in (("change", "ratio"), ("low", "low"), ("high", "high"))
                    }
                    rows.append({
                        **at, "decoder": row["decoder"], "score": "frechet_distance",
                        "value": row["frechet_distance"], "reference": row["reference"], **percent,
                    })  # fmt: skip
    return rows


def _gates(folder: Path) -> list[Row]:
    """As each cell's study says; its scores are derived again."""
    return [
        {"cell": file.parent.name, **row}
        for file in sorted(folder.glob("*/gate.csv"))
        for row in pd.read_csv(file).to_dict("records")
    ]


def _bit_errors(folder: Path) -> list[Row]:
    """Quantiles over the trials, which are seeded and not run again here."""
    rows = []
    cells = sorted(file.parent.name for file in folder.glob("*/errors.csv"))
    for cell in cells if cells != ["classical"] else ():
        trials = pd.read_csv(folder / cell / "errors.csv")
        for place in ("payload", "all"):
            here = trials[trials["errors_in"].isin([place, "none"])]
            for (arm, ber), one in here.groupby(["arm", "ber"]):
                low, median, high = np.quantile(one["psnr_db"], [0.05, 0.5, 0.95])
                rows.append({
                    "cell": cell, "arm": arm, "errors_in": place, "ber": ber, "trials": len(one),
                    "decoded": one["decoded"].mean(), "psnr_low": low, "psnr_median": median,
                    "psnr_high": high, "ms_ssim_median": one["ms_ssim"].median(),
                    "bpp": one["bpp"].mean(),
                })  # fmt: skip
    return rows


def _published(root: Path, expected: Expected) -> list[Row]:
    """Cells against curves that others published: BD-rates of means, without intervals."""
    if expected.pictures != [f"kodim{number:02}" for number in range(1, 25)]:
        return []
    curves = json.loads((root / KODAK_CURVES).read_text(encoding="utf-8"))
    rows = []
    for metric in ("psnr_db", "ms_ssim_db"):
        column = {"ms_ssim_db": "ms_ssim"}.get(metric, metric)
        for short, name in PUBLISHED.items():
            known = curves[name]
            for cell in expected.cells:
                number = math.nan
                if column in known:
                    quality = np.array(known[column])
                    quality = -10 * np.log10(1 - quality) if column == "ms_ssim" else quality
                    order = np.argsort(known["bpp"])
                    one = np.array(known["bpp"])[order], quality[order]
                    number = bd_rate(one, expected.curve(cell, metric))
                rows.append({"metric": metric, "codec": short, "cell": cell, "bd_rate": number})
    return rows
