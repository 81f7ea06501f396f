"""The comparison stage: everything that people read about a set of cells.

artifacts/{anchors,evaluated,prepared,rotated,studies,trained}  -->  reports/
    metrics.json        the headline numbers, for `dvc metrics` and `dvc exp show`
    cells.json          BD-rates of all cells, for `dvc metrics diff --targets`
    report.md           tables, figures and pictures
    plots/*.csv         the numbers behind the figures, for `dvc plots`
    plots/*.png         the figures
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linocut.errors import DataError
from linocut.lab.evaluation.comparison import (
    METRICS,
    REFERENCES,
    Comparison,
    Ranked,
    architectures,
    compare_curves,
    rank,
    title,
)
from linocut.lab.evaluation.rows import BdRow, RdRow, read_rows, write_rows
from linocut.lab.report import figures, robustness_section, side_by_side, twin_section
from linocut.lab.report import page as report_html
from linocut.lab.report.markdown import bd_cell, report_text
from linocut.lab.report.rate_split import read_planes

if TYPE_CHECKING:
    from linocut.lab.config.params import CompareConfig


@dataclass(frozen=True)
class RankingRow:
    """A loss beside the best one of its architecture, see `statistics.Ranked`."""

    metric: str
    arch: str
    curve: str
    best: str
    bd_rate: float
    low: float
    high: float
    p_value: float
    detectable: float


def compare(
    cells: Sequence[str],
    *,
    artifacts: Path,
    reports: Path,
    config: CompareConfig,
    seed: int,
    params: Path | None = None,
) -> None:
    """Compare exactly these cells with the anchors and write `reports/` anew.

    Args:
        cells: names of cells, `arch-loss`, in the order in which they are shown.
        artifacts: what the stages before have made.
        reports: where the report goes; its `plots/` is replaced.
        config: draws behind the intervals.
        seed: of the draws.
        params: the params.yaml that the page shows.

    Raises:
        DataError: a stage's output is missing or incomplete.
    """
    comparison = compare_curves(cells, artifacts, bootstrap_draws=config.bootstrap_draws, seed=seed)
    plots = reports / "plots"
    shutil.rmtree(plots, ignore_errors=True)
    plots.mkdir(parents=True)
    write_rows(plots / "rd.csv", RdRow, comparison.points)
    write_rows(plots / "bd_rate.csv", BdRow, comparison.bd_rates)
    rankings = rank_losses(comparison)
    rows = [
        RankingRow(metric, arch, **vars(row))
        for (metric, arch), ranked in rankings.items()
        for row in ranked
    ]
    write_rows(plots / "ranking.csv", RankingRow, rows)
    figures.draw_rd(cells, comparison.points, plots / "rd.png")
    figures.draw_bd_rates(comparison, plots / "bd_rate.png")
    drawable = {
        "pca.png": figures.energy_lines(cells, artifacts / "rotated"),
        "training.png": figures.training_lines(cells, artifacts / "trained"),
        "twin.png": twin_section.lines(artifacts / "studies/twin"),
        "bit_errors.png": robustness_section.lines(artifacts / "studies/robustness"),
    }
    lines = {name: one for name, one in drawable.items() if one is not None}
    for name, one in lines.items():
        figures.draw_lines(one, plots / name)
    exhibits = side_by_side.collect(comparison, artifacts, _shown_anchors(comparison))
    columns = max(len(group) for group in architectures(cells).values())
    for exhibit in exhibits:
        side_by_side.draw_matched(exhibit, plots / f"matched-{exhibit.picture}.png")
        side_by_side.draw_cells(exhibit, plots / f"cells-{exhibit.picture}.png", columns)
    for name, numbers in (("metrics", metrics(comparison)), ("cells", cell_rates(comparison))):
        text = json.dumps(numbers, indent=2) + "\n"
        (reports / f"{name}.json").write_text(text, encoding="utf-8")
    versions = json.loads((artifacts / "anchors" / "versions.json").read_text(encoding="utf-8"))
    drawn = sorted(path.name for path in plots.glob("*.png"))
    text = report_text(comparison, rankings, versions=versions, pictures=drawn)
    text += twin_section.section(artifacts / "studies/twin", plots)
    text += robustness_section.section(artifacts / "studies/robustness", plots)
    (reports / "report.md").write_text(text, encoding="utf-8")
    provenance = _provenance(artifacts, versions, params)
    planes = read_planes(cells, artifacts / "coded")
    galleries = {
        "twins": twin_section.galleries(artifacts / "studies/twin"),
        "damaged": robustness_section.galleries(artifacts / "studies/robustness"),
    }
    page = report_html.page(
        comparison, text, exhibits, list(lines.values()), provenance, planes, galleries
    )
    (reports / "report.html").write_text(page, encoding="utf-8")


def rank_losses(comparison: Comparison) -> dict[tuple[str, str], list[Ranked]]:
    """The losses of each architecture in order, by metric and architecture."""
    return {
        (metric, arch): rank({cell: curves[cell] for cell in cells}, comparison.draws)
        for metric, curves in comparison.curves.items()
        for arch, cells in architectures(tuple(comparison.cells)).items()
    }


def metrics(comparison: Comparison) -> dict[str, Any]:
    """The headline numbers, few enough for `dvc metrics diff` and `make exps`.

    `best` are the BD-rates of the best cell in each metric against the anchor that ranks the cells,
    in per cent of bits; one that does not exist is left out.
    """
    rates = cell_rates(comparison)
    best = {name.removesuffix("_db"): rates[comparison.best_cell(name)] for name in METRICS}
    gap = max((comparison.rate_gap_percent(cell) for cell in comparison.cells), key=abs)
    return {
        "best_cell": comparison.best_cell("psnr_db"),
        "best": {name: of_cell[name] for name, of_cell in best.items() if name in of_cell},
        "files": sum(len(rows) for rows in comparison.cells.values()),
        "rate_over_estimate_percent": round(gap, 3),
    }


def cell_rates(comparison: Comparison) -> dict[str, dict[str, float]]:
    """BD-rates of every cell against the anchor that ranks them, by cell and metric, in per cent.

    What `dvc metrics diff --targets reports/cells.json` compares. BD-rates that do not exist are
    left out; the intervals, and the other anchors, are in plots/bd_rate.csv.
    """
    anchor = comparison.ranking_anchor
    rates: dict[str, dict[str, float]] = {}
    for cell in comparison.cells:
        found = {
            metric.removesuffix("_db"): comparison.bd_rate(cell, metric, anchor).estimate
            for metric in METRICS
        }
        rates[cell] = {name: round(rate, 2) for name, rate in found.items() if math.isfinite(rate)}
    return rates


def comparison_table(reports: Path) -> str:
    """The comparison as text, from the files in `reports/`.

    Raises:
        DataError: there is no report yet.
    """
    path = reports / "metrics.json"
    if not path.exists():
        raise DataError(f"{path} does not exist: run `dvc repro` first")
    recorded = json.loads(path.read_text(encoding="utf-8"))
    rows = read_rows(reports / "plots" / "bd_rate.csv", BdRow)
    shown = [name for name in REFERENCES if any(row.anchor == name for row in rows)]
    curves = list(dict.fromkeys(row.curve for row in rows))
    width = max(map(len, map(title, curves)))
    lines = ["BD-rate, per cent of bits at equal quality (negative: fewer) [95 % interval]"]
    for metric, kind in METRICS.items():
        lines += ["", f"{kind.title:<{width}}" + "".join(f"  {title(a):>22}" for a in shown)]
        for curve in curves:
            found = {
                row.anchor: bd_cell(row)
                for row in rows
                if (row.curve, row.metric) == (curve, metric)
            }
            cells = "".join(f"  {found.get(anchor, ''):>22}" for anchor in shown)
            lines.append(f"{title(curve):<{width}}{cells}")
    lines += [
        "",
        f"Best cell in PSNR: {recorded['best_cell']}. {recorded['files']} files, "
        f"at most {recorded['rate_over_estimate_percent']:+.2f} % off their estimated size.",
        "Next: reports/report.md (pictures and curves), `make ui` (trainings in MLflow), "
        "`dvc metrics diff`.",
    ]
    return "\n".join(lines)


def _provenance(
    artifacts: Path, versions: Mapping[str, str], params: Path | None
) -> dict[str, str]:
    """What the page says about where its numbers come from."""
    found = {"Versions": "\n".join(f"{name}: {version}" for name, version in versions.items())}
    manifest = artifacts / "prepared" / "manifest.json"
    if manifest.exists():
        pictures = json.loads(manifest.read_text(encoding="utf-8"))["pictures"]
        found["Test pictures"] = "\n".join(
            f"{entry['name']}: {entry['width']} x {entry['height']}, {entry['licence']}\n"
            f"    SHA-256 {entry['sha256']}"
            for entry in pictures
            if entry["split"] == "test"
        )
    if params is not None:
        found["Parameters"] = params.read_text(encoding="utf-8")
    return found


def _shown_anchors(comparison: Comparison) -> list[str]:
    return [name for name in reversed(REFERENCES) if name in comparison.anchors]
