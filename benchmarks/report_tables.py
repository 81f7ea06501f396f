"""What the report must say, given measured points, and whether it does; part of `verify.py`."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bit_error_table import check_bit_errors
from expected_numbers import METRICS, Expected, bd_rate
from report_page import SLACK, TITLES, check_page
from twin_table import check_twins

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
MEASURED_ON_KODAK = {
    "jpeg": "MEASURED JPEG 4:2:0 progressive+optimize (Pillow 13.0.0)",
    "jpeg2000": "MEASURED J2K 9/7 + MCT (Pillow 13.0.0)",
    "webp": "MEASURED WebP m6 (Pillow 13.0.0)",
    "avif_420": "MEASURED AVIF 4:2:0 speed6 (Pillow 13.0.0)",
    "avif_444": "MEASURED AVIF 4:4:4 speed6 (Pillow 13.0.0)",
}


def check_report(
    root: Path,
    reports: Path,
    expected: Expected,
    estimates: Mapping[str, Sequence[Mapping[str, str]]],
) -> list[str]:
    """Compare reports/ and README with what follows from the files."""
    problems = _check_csv(reports / "plots", expected)
    metrics = json.loads((reports / "metrics.json").read_text(encoding="utf-8"))
    rates = json.loads((reports / "cells.json").read_text(encoding="utf-8"))
    gaps = {cell: _gap(cell, rows, expected) for cell, rows in estimates.items()}
    problems += _check_metrics(metrics, expected, gaps) + _check_rates(rates, expected)
    text = (reports / "report.md").read_text(encoding="utf-8")
    tables = markdown_tables(text)
    for heading, header, rows in tables:
        if header[0] == "arm":
            problems += check_bit_errors(root, heading, header, rows)
        elif header[0] == "decoder, rate":
            problems += check_twins(root, heading, header, rows)
        elif header[0].endswith(" against"):
            problems += _check_published(root, header, rows, expected)
        else:
            problems += _check_table(heading, header, rows, expected, gaps)
    metric_of = {title: metric for metric, title in METRICS.items()}
    headline = re.compile(
        r"in (PSNR|MS-SSIM|SSIMULACRA 2) \*\*(\S+)\*\* with (\S+) % \[(\S+), (\S+)\]"
    )
    for title, curve, *printed in headline.findall(text):
        metric = metric_of[title]
        numbers = _bd(expected, curve, metric, _ranking_anchor(expected))
        problems += _compare(f"headline, {title}, {curve}", " ".join(printed), numbers, metric)
    sentence = re.search(r"^Best against .*$", text, re.MULTILINE)
    problems += check_page(
        reports / "report.html", tables, sentence[0] if sentence else "", expected
    )
    block = re.compile(r"<!-- results\b[^>]*-->\n(.*?)\n?<!-- /results -->", re.DOTALL)
    readme = block.search((root / "README.md").read_text(encoding="utf-8"))
    report = block.search(text)
    if readme and report and readme[1].strip() and readme[1].strip() != report[1].strip():
        problems.append("README.md does not repeat the results of report.md: run `make readme`")
    return problems + _check_kodak(root, expected)


def markdown_tables(text: str) -> list[tuple[str, list[str], list[list[str]]]]:
    """Every table: the heading above it, its header, its rows."""
    tables: list[tuple[str, list[str], list[list[str]]]] = []
    heading, inside = "", False
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif not inside:
            tables.append((heading, cells, []))
            inside = True
        elif set(line) - set("|-: "):
            tables[-1][2].append(cells)
    return tables


def _check_csv(plots: Path, expected: Expected) -> list[str]:
    problems = []
    rows = [row for row in _read(plots / "rd.csv") if row["kind"] != "published"]
    for name in expected.points:
        found = [row for row in rows if row["curve"] == name]
        bpp, psnr = expected.curve(name, "psnr_db")
        columns = {
            "bpp": (bpp, 1e-5),
            "psnr_db": (psnr, 1e-3),
            "ms_ssim_db": (expected.curve(name, "ms_ssim_db")[1], 5e-3),
            "ssimulacra2": (expected.curve(name, "ssimulacra2")[1], 0.05),
        }
        for column, (values, slack) in columns.items():
            listed = [float(row[column]) for row in found]
            if len(listed) != len(values) or not np.allclose(
                listed, values, rtol=0, atol=slack, equal_nan=True
            ):
                problems.append(f"plots/rd.csv: {column} of {name}")
    for row in _read(plots / "bd_rate.csv"):
        numbers = expected.bd[row["curve"], row["metric"], row["anchor"]]
        given = [float(row[key]) for key in ("bd_rate", "low", "high")]
        if not np.allclose(given, numbers, rtol=0, atol=SLACK[row["metric"]], equal_nan=True):
            problems.append(f"plots/bd_rate.csv: {row['curve']} {row['metric']} {row['anchor']}")
    return problems


def _check_metrics(
    metrics: Mapping[str, Any], expected: Expected, gaps: Mapping[str, float]
) -> list[str]:
    problems = []
    for metric in METRICS:
        anchor = _ranking_anchor(expected)
        rates = [expected.bd[cell, metric, anchor][0] for cell in expected.cells]
        lowest = min((rate for rate in rates if math.isfinite(rate)), default=math.nan)
        value = metrics["best"].get(metric.removesuffix("_db"), math.nan)
        if abs(value - lowest) > 0.005 + SLACK[metric] or math.isnan(value) != math.isnan(lowest):
            problems.append(f"metrics.json: best in {metric} is {value}")
    if metrics["files"] != sum(expected.files.values()):
        problems.append(f"metrics.json: files is {metrics['files']}")
    value = metrics["rate_over_estimate_percent"]
    if not abs(value - max(gaps.values(), key=abs)) < 2e-3:
        problems.append(f"metrics.json: rate over estimate is {value}")
    ranked = {
        cell: _bd(expected, cell, "psnr_db", _ranking_anchor(expected))[0]
        for cell in expected.cells
    }
    if metrics["best_cell"] != min(ranked, key=lambda c: (math.isnan(ranked[c]), ranked[c])):
        problems.append(f"metrics.json: best_cell is {metrics['best_cell']}")
    return problems


def _check_rates(rates: Mapping[str, Mapping[str, float]], expected: Expected) -> list[str]:
    """cells.json: a row for each cell, a column for each metric that has a BD-rate."""
    if list(rates) != expected.cells:
        return [f"cells.json: cells are {', '.join(rates)}"]
    problems = []
    for cell, found in rates.items():
        for metric in METRICS:
            value = found.get(metric.removesuffix("_db"), math.nan)
            wanted = expected.bd[cell, metric, _ranking_anchor(expected)][0]
            both_missing = math.isnan(value) and math.isnan(wanted)
            if not both_missing and not abs(value - wanted) <= 0.005 + SLACK[metric]:
                problems.append(f"cells.json: {cell} {metric} is {value}")
    return problems


def _check_table(
    heading: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    expected: Expected,
    gaps: Mapping[str, float],
) -> list[str]:
    names = {title: name for name, title in TITLES.items()} | {c: c for c in expected.cells}
    problems = []
    for row in rows:
        where = f"report.md, {heading}, {' '.join(row[:3] if header[0] == 'metric' else row[:1])}"
        if header[0] == "metric":
            metric = next(key for key, title in METRICS.items() if title == row[0])
            ranking = expected.ranking(metric, row[1].partition("-")[0])
            best, numbers = ranking.get(row[2], ("", []))
            if best != row[1]:
                problems.append(f"{where}: the best is {best}")
                continue
            problems += _compare(where, row[3], numbers[:3], metric)
            problems += _compare(where, row[4].replace("< ", "-"), numbers[3:4], "p")
            problems += _compare(where, row[5], numbers[4:], metric)
            continue
        if row[0] not in names:
            problems.append(f"{where}: a table that nobody verifies")
            continue
        for title, text in zip(header[1:], row[1:], strict=True):
            name, place = names[row[0]], f"{where}, {title}"
            told = {heading, title.split(" vs ")[0]}
            metric = next((key for key in METRICS if METRICS[key] in told), "psnr_db")
            if "vs " in title:
                rates = _bd(expected, name, metric, names[title.split("vs ")[1]])
                problems += _compare(place, text, rates, metric)
            elif title.endswith(" bpp") and title[0].isdigit():
                for key, part in zip(METRICS, text.split(" / "), strict=True):
                    number = _at(expected, name, key, float(title.split()[0]))
                    problems += _compare(place, part, [number], key)
            elif title == "files":
                problems += _compare(
                    place, text, [float(np.prod(expected.points[name].shape[:2]))], "psnr_db"
                )
            elif title == "mean bpp":
                bpp = expected.curve(name, "psnr_db")[0]
                problems += _compare(place, text, [bpp[0], bpp[-1]], "psnr_db")
            elif title == "over estimate":
                problems += _compare(place, text, [gaps[name]] if name in gaps else [], "psnr_db")
            elif title == "monotone":
                rising = all(np.all(np.diff(expected.curve(name, m)[1]) > 0) for m in METRICS)
                if text and ("yes" in text) != rising:
                    problems.append(f"{place}: says {text}")
            elif "s/MP" not in title:
                problems.append(f"{place}: a column that nobody verifies")
    return problems


def _compare(where: str, text: str, numbers: Sequence[float], kind: str) -> list[str]:
    """The numbers of a text against what they should be, at the precision they are printed with."""
    printed = re.findall(r"[-+]?\d+(?:\.\d+)?", text.replace(" .. ", " "))
    wanted = [number for number in numbers if math.isfinite(number)]
    if len(printed) != len(wanted):
        return [f"{where}: {text!r} has {len(printed)} numbers, expected {len(wanted)}"]
    for one, number in zip(printed, wanted, strict=True):
        rounding = 0.5 * 10.0 ** -len(one.partition(".")[2])
        slack = 0.02 if kind == "p" else SLACK[kind]
        if abs(float(one) - number) > rounding + slack:
            return [f"{where}: {text!r}, expected {number:.3f}"]
    return []


def _bd(expected: Expected, name: str, metric: str, anchor: str) -> Sequence[float]:
    return expected.bd[name, metric, anchor] if name != anchor else (0.0,)


def _ranking_anchor(expected: Expected) -> str:
    order = ("jpeg2000", "jpeg", "avif_444", "avif_420", "webp")
    return next(name for name in order if name in expected.anchors)


def _at(expected: Expected, name: str, metric: str, bpp: float) -> float:
    rates, quality = expected.curve(name, metric)
    if not rates[0] <= bpp <= rates[-1]:
        return math.nan
    return float(np.interp(math.log(bpp), np.log(rates), quality))


def _gap(cell: str, rows: Iterable[Mapping[str, str]], expected: Expected) -> float:
    """Bytes of all files over their estimate, per cent."""
    total = estimated = 0.0
    for row in rows:
        picture = expected.pictures.index(row["picture"])
        bpp = expected.points[cell][picture, int(row["point"]), 0]
        total += float(row["bytes"])
        estimated += float(row["estimated_bpp"]) * float(row["bytes"]) / bpp
    return 100 * (total / estimated - 1)


def _check_kodak(root: Path, expected: Expected) -> list[str]:
    """Anchors within 1 % of the measured curves, where the test pictures are the Kodak ones."""
    if expected.pictures != [f"kodim{number:02}" for number in range(1, 25)]:
        return []
    curves = json.loads((root / KODAK_CURVES).read_text(encoding="utf-8"))
    problems = []
    for anchor in expected.anchors:
        known = curves[MEASURED_ON_KODAK[anchor]]
        for bpp, psnr in zip(*expected.curve(anchor, "psnr_db"), strict=True):
            distance = [
                max(abs(rate / bpp - 1) / 0.01, abs(quality - psnr) / 0.05)
                for rate, quality in zip(known["bpp"], known["psnr_db"], strict=True)
            ]
            if min(distance) > 1:
                problems.append(
                    f"{anchor} at {bpp:.3f} bpp, {psnr:.2f} dB is not on its known curve"
                )
    return problems


def _check_published(
    root: Path, header: Sequence[str], rows: Sequence[Sequence[str]], expected: Expected
) -> list[str]:
    """Cells against curves that others published: BD-rates of means, without intervals."""
    curves = json.loads((root / KODAK_CURVES).read_text(encoding="utf-8"))
    title = header[0].removesuffix(" against")
    metric = next(key for key in METRICS if METRICS[key] == title)
    problems = []
    for short, *entries in rows:
        known = curves[PUBLISHED[short]]
        column = metric.removesuffix("_db") if metric == "ms_ssim_db" else metric
        for cell, text in zip(header[1:], entries, strict=True):
            number = math.nan
            if column in known:
                quality = np.array(known[column])
                quality = -10 * np.log10(1 - quality) if column == "ms_ssim" else quality
                order = np.argsort(known["bpp"])
                one = np.array(known["bpp"])[order], quality[order]
                number = bd_rate(one, expected.curve(cell, metric))
            problems += _compare(f"report.md, {header[0]} {short}, {cell}", text, [number], metric)
    return problems


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
