"""The numbers of a report: what README, report.md and the page show, and `make verify` derives.

evaluated rows, anchors, studies --> Tables <--> reports/{metrics,cells}.json, plots/*.csv

Everything that people read is rendered from these files, so a number has one place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from linocut.errors import DataError
from linocut.lab.evaluation.comparison import (
    METRICS,
    REFERENCES,
    Comparison,
    architectures,
    corrected_p_values,
    picture_log_rates,
    rank,
)
from linocut.lab.evaluation.rd import TITLES, bd_rate_to_published, is_kodak

SIGNIFICANT = 0.05
"""Corrected p-values below it count."""

OPTIONAL = ("published", "twins", "gates", "bit_errors")
"""Tables of what not every experiment has."""


@dataclass(frozen=True)
class Tables:
    """All that the report says in numbers.

    Attributes:
        metrics: the headline, for `dvc metrics` and `dvc exp show`.
        cells: BD-rates of all cells, for `dvc metrics diff --targets`.
        about: names of the pictures, draws, versions of the anchors, why BD-rates are missing.
        rd: points of the mean curves, as `RdRow`.
        bd_rate: every curve against every anchor, as `BdRow`.
        leads: by metric, the cell with the lowest BD-rate and what is not told from it.
        ranking: every loss beside the leading one of its architecture.
        costs: files, rates and times by curve.
        published: cells against curves that others published; on Kodak alone.
        twins: scores of twin decoders; where there are some.
        gates: whether their adversaries taught anything.
        bit_errors: what decodes of damaged files; where that was studied.
    """

    metrics: Mapping[str, Any]
    cells: Mapping[str, Mapping[str, float]]
    about: Mapping[str, Any]
    rd: pd.DataFrame
    bd_rate: pd.DataFrame
    leads: pd.DataFrame
    ranking: pd.DataFrame
    costs: pd.DataFrame
    published: pd.DataFrame
    twins: pd.DataFrame
    gates: pd.DataFrame
    bit_errors: pd.DataFrame

    @property
    def references(self) -> list[str]:
        """The anchors that tables compare with."""
        return [name for name in REFERENCES if name in set(self.bd_rate["anchor"])]

    def curves(self, kind: str) -> list[str]:
        """Names of the cells, of the anchors or of the published curves."""
        return list(dict.fromkeys(self.rd["curve"][self.rd["kind"] == kind]))

    def bd(self, curve: str, metric: str, anchor: str) -> tuple[float, float, float]:
        """A BD-rate and the bounds of its interval, NaN where there is none."""
        table = self.bd_rate
        at = (table["curve"] == curve) & (table["metric"] == metric) & (table["anchor"] == anchor)
        estimate, low, high = table.loc[at, ["bd_rate", "low", "high"]].to_numpy()[0]
        return float(estimate), float(low), float(high)

    def write(self, reports: Path) -> None:
        """Write all files; tables without rows have none."""
        plots = reports / "plots"
        plots.mkdir(parents=True, exist_ok=True)
        for place, numbers in (
            (reports / "metrics.json", self.metrics),
            (reports / "cells.json", self.cells),
            (plots / "about.json", self.about),
        ):
            place.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        for name, table in vars(self).items():
            if isinstance(table, pd.DataFrame) and not table.empty:
                table.to_csv(plots / f"{name}.csv", index=False, float_format="%.8g", na_rep="nan")


def read_tables(reports: Path) -> Tables:
    """Read what `Tables.write` wrote.

    Raises:
        DataError: there is no report, or only a part of one.
    """
    plots = reports / "plots"
    texts = {"metrics": reports, "cells": reports, "about": plots}
    tables = ("rd", "bd_rate", "leads", "ranking", "costs", *OPTIONAL)
    try:
        found: dict[str, Any] = {
            name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            for name, folder in texts.items()
        }
        for name in tables:
            file = plots / f"{name}.csv"
            absent = name in (*OPTIONAL, "ranking") and not file.exists()
            found[name] = pd.DataFrame() if absent else pd.read_csv(file)
    except OSError as error:
        raise DataError(f"{error.filename} does not exist: run `dvc repro` first") from None
    return Tables(**found)


def tables_of(
    comparison: Comparison,
    *,
    versions: Mapping[str, str],
    twins: pd.DataFrame,
    gates: pd.DataFrame,
    bit_errors: pd.DataFrame,
) -> Tables:
    """The numbers that follow from a comparison, and those of the studies beside it."""
    leads = pd.DataFrame([_lead(comparison, metric) for metric in METRICS])
    missing = [
        {"curve": curve, "metric": metric, "anchor": anchor, "reason": reason}
        for (curve, metric, anchor), reason in comparison.refusals.items()
        if curve in comparison.cells and anchor in REFERENCES
    ]
    return Tables(
        metrics=_metrics(comparison, leads) | _taught(gates),
        cells=_cell_rates(comparison),
        about={
            "pictures": comparison.pictures,
            "anchor": comparison.ranking_anchor,
            "draws": len(comparison.draws),
            "versions": dict(versions),
            "missing": missing,
        },
        rd=pd.DataFrame(comparison.points),
        bd_rate=pd.DataFrame(comparison.bd_rates),
        leads=leads,
        ranking=_ranking(comparison),
        costs=pd.DataFrame([_costs(comparison, n) for n in comparison.curves["psnr_db"]]),
        published=_published(comparison),
        twins=twins,
        gates=gates,
        bit_errors=bit_errors,
    )


def _lead(comparison: Comparison, metric: str) -> dict[str, Any]:
    """The cell with the lowest BD-rate, and the cells that the pictures do not put behind it.

    Two that lie close to each other may change places where they are compared directly, over the
    qualities that they share: then none of them leads.
    """
    leader = comparison.leader(metric)
    curves = {cell: comparison.curves[metric][cell] for cell in comparison.cells}
    p_values = corrected_p_values(curves)
    against = {
        cell: p_values[frozenset((leader, cell))] for cell in comparison.cells if cell != leader
    }

    def is_behind(cell: str) -> bool:
        more_bits = picture_log_rates(curves[leader], curves[cell])
        return against[cell] < SIGNIFICANT and float(more_bits.mean()) > 0.0

    alike = [cell for cell in against if not is_behind(cell)]
    interval = comparison.bd_rate(leader, metric, comparison.ranking_anchor)
    return {
        "metric": metric,
        "leader": leader,
        "bd_rate": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "p_value": float(np.max([*against.values()])) if against else math.nan,
        "not_told_apart": " ".join(alike),
    }


def _metrics(comparison: Comparison, leads: pd.DataFrame) -> dict[str, Any]:
    """The headline numbers, few enough for `dvc metrics diff` and `make exps`.

    `lowest` are the BD-rates of the leading cell in each metric against the anchor that ranks the
    cells, in per cent of bits; one that does not exist is left out.
    """
    lowest = {
        row.metric.removesuffix("_db"): round(row.bd_rate, 2)
        for row in leads.itertuples()
        if math.isfinite(row.bd_rate)
    }
    gap = max((comparison.rate_gap_percent(cell) for cell in comparison.cells), key=abs)
    return {
        "leader": comparison.leader("psnr_db"),
        "leads_significantly": bool(len(comparison.cells) > 1 and not leads["not_told_apart"][0]),
        "lowest": lowest,
        "files": sum(len(rows) for rows in comparison.cells.values()),
        "rate_over_estimate_percent": round(gap, 3),
    }


def _taught(gates: pd.DataFrame) -> dict[str, Any]:
    """By cell with twins, whether its adversary has taught anything."""
    if gates.empty:
        return {}
    return {
        "adversary_taught": {
            str(cell): bool((rows["verdict"] == "passed").all())
            for cell, rows in gates.groupby("cell", sort=False)
        }
    }


def _cell_rates(comparison: Comparison) -> dict[str, dict[str, float]]:
    """BD-rates of every cell against the anchor that ranks them, by cell and metric, in per cent.

    Those that do not exist are left out; the intervals, and the other anchors, are in bd_rate.csv.
    """
    rates: dict[str, dict[str, float]] = {}
    for cell in comparison.cells:
        found = {
            metric.removesuffix("_db"): comparison.bd_rate(
                cell, metric, comparison.ranking_anchor
            ).estimate
            for metric in METRICS
        }
        rates[cell] = {name: round(rate, 2) for name, rate in found.items() if math.isfinite(rate)}
    return rates


def _ranking(comparison: Comparison) -> pd.DataFrame:
    """The losses of each architecture in order, by metric and architecture."""
    return pd.DataFrame(
        [
            {"metric": metric, "arch": arch, **vars(row)}
            for metric, curves in comparison.curves.items()
            for arch, cells in architectures(tuple(comparison.cells)).items()
            for row in rank({cell: curves[cell] for cell in cells}, comparison.draws)
        ]
    )


def _costs(comparison: Comparison, name: str) -> dict[str, Any]:
    """Files, rates and times of a curve; what only our files have is NaN for an anchor."""
    cell = name not in comparison.anchors
    rows: Sequence[Any] = comparison.files[name] if cell else comparison.anchors[name]
    bpp, _ = comparison.curves["psnr_db"][name].mean()
    megapixels = sum(8 * row.bytes / row.bpp for row in rows) / 1e6
    return {
        "curve": name,
        "files": len(rows),
        "bpp_low": bpp[0],
        "bpp_high": bpp[-1],
        "over_estimate_percent": comparison.rate_gap_percent(name) if cell else math.nan,
        "monotone": float(comparison.is_monotone(name)) if cell else math.nan,
        "encode_s_per_mp": sum(row.encode_s for row in rows) / megapixels,
        "decode_s_per_mp": sum(row.decode_s for row in rows) / megapixels,
    }


def _published(comparison: Comparison) -> pd.DataFrame:
    """The cells against curves that others published; nothing for other pictures than Kodak's."""
    if not is_kodak(comparison.pictures):
        return pd.DataFrame()
    rows = [
        {"metric": metric, "codec": short, "cell": cell, "bd_rate": rate}
        for metric in ("psnr_db", "ms_ssim_db")
        for name, short in TITLES.items()
        for cell in comparison.cells
        for rate in [bd_rate_to_published(name, metric, comparison.curves[metric][cell])]
    ]
    return pd.DataFrame(rows).astype({"bd_rate": np.float64})


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column reads from the left, numbers from the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
