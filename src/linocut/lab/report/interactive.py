"""The interactive figures of the page, as Plotly's JSON: plain dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from linocut.lab.evaluation.comparison import (
    METRICS,
    REFERENCES,
    Comparison,
    architectures,
    loss_of,
    title,
)
from linocut.lab.evaluation.rd import DRAWN, TITLES
from linocut.lab.evaluation.rows import RdRow
from linocut.lab.report.figures import GREY, Lines, Series, colour

_DASHES = {"jpeg": "dot", "jpeg2000": "solid", "webp": "dashdot", "avif_444": "dash"}
_SYMBOLS = ("circle", "square", "diamond", "x")
_ARCH_DASHES = ("solid", "4px,2px", "1px,2px", "8px,3px")
_FONT = {
    "family": "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif",
    "size": 13,
}


def rd_figure(comparison: Comparison) -> dict[str, Any]:
    """Curves of cells, anchors and, on Kodak, published ones; the views are the metrics."""
    archs = list(architectures(tuple(comparison.cells)))
    curves: dict[str, list[RdRow]] = {}
    for row in comparison.points:
        curves.setdefault(row.curve, []).append(row)
    data = []
    for name, rows in curves.items():
        kind = rows[0].kind
        trace: dict[str, Any] = {
            "name": TITLES.get(name, title(name)),
            "x": [rounded(row.bpp) for row in rows],
            "y": [rounded(row.psnr_db) for row in rows],
            "hovertemplate": "%{x:.3f} bpp: %{y:.2f}",
            "mode": "lines+markers",
            "legendgroup": kind,
        }
        if kind == "cell":
            style = archs.index(name.partition("-")[0]) % len(_SYMBOLS)
            symbol, dash = _SYMBOLS[style], _ARCH_DASHES[style]
            trace["line"] = {"color": colour(loss_of(name)), "width": 2.2, "dash": dash}
            trace["marker"] = {"symbol": symbol, "size": 7}
        elif kind == "anchor":
            trace["line"] = {"color": GREY, "width": 1.6, "dash": _DASHES.get(name, "longdash")}
            trace["mode"] = "lines"
        else:
            trace["line"] = {"color": "#b0a890", "width": 1.2}
            trace["mode"] = "lines"
            trace["visible"] = True if name in DRAWN else "legendonly"
        trace["legendgrouptitle"] = {"text": {"cell": "cells", "anchor": "anchors"}.get(kind, kind)}
        data.append(trace)
    rates = [row.bpp for row in comparison.points if row.kind == "cell"]
    layout = bare_layout(
        xaxis={
            **plain_axis("rate [bits per pixel]"),
            "type": "log",
            "range": [float(np.log10(min(rates) / 1.2)), float(np.log10(max(rates) * 1.2))],
            "tickvals": [0.05, 0.1, 0.2, 0.5, 1, 2, 5],
        },
        yaxis=plain_axis("PSNR [dB]"),
        legend={"groupclick": "toggleitem", "font": {"size": 12}},
        margin={"l": 60, "r": 10, "t": 30, "b": 50},
    )
    anchor = comparison.ranking_anchor
    views = []
    for metric, shown in METRICS.items():
        plain = [[rounded(getattr(row, metric)) for row in rows] for rows in curves.values()]
        views.append(_rd_view(shown.title, shown.label, plain))
    for metric, shown in METRICS.items():
        above = {name: _above(rows, curves[anchor], metric) for name, rows in curves.items()}
        label = f"{shown.label} above {title(anchor)}"
        view = _rd_view(f"{shown.title} above {title(anchor)}", label, list(above.values()))
        of_cells = [y for cell in comparison.cells for y in above[cell] if y is not None]
        low, high = min(of_cells, default=0.0), max(of_cells, default=0.0)
        room = 0.25 * (max(high, 0.0) - min(low, 0.0)) or 1.0
        view["layout"] = {  # the cells fill the figure, whatever JPEG does
            "yaxis.title.text": label,
            "yaxis.range": [rounded(min(low, 0.0) - room), rounded(max(high, 0.0) + room)],
        }
        views.append(view)
    return {"data": data, "layout": layout, "views": views}


def _rd_view(label: str, axis: str, y: list[list[float | None]]) -> dict[str, Any]:
    relayout = {"yaxis.title.text": axis, "yaxis.autorange": True}
    return {"label": label, "data": {"y": y}, "layout": relayout}


def _above(rows: Sequence[RdRow], anchor: Sequence[RdRow], metric: str) -> list[float | None]:
    """Quality above that of the anchor at the same rate; None where the anchor has no such rate."""
    bpp = [row.bpp for row in anchor]
    quality = [getattr(row, metric) for row in anchor]
    return [
        rounded(getattr(row, metric) - np.interp(np.log(row.bpp), np.log(bpp), quality))
        if bpp[0] <= row.bpp <= bpp[-1]
        else None
        for row in rows
    ]


def grid_figure(comparison: Comparison) -> dict[str, Any]:
    """Loss x architecture heat map of BD-rates; the views are the metrics and references."""
    archs = list(architectures(tuple(comparison.cells)))
    losses = list(dict.fromkeys(loss_of(cell) for cell in comparison.cells))
    choices = [
        (metric, anchor)
        for metric in METRICS
        for anchor in dict.fromkeys((comparison.ranking_anchor, *REFERENCES))
        if anchor in comparison.anchors
    ]
    views: list[dict[str, Any]] = []
    for metric, anchor in choices:
        values, texts = [], []
        for loss in losses:
            found = [
                comparison.bd_rate(f"{arch}-{loss}", metric, anchor)
                if f"{arch}-{loss}" in comparison.cells
                else None
                for arch in archs
            ]
            values.append([None if one is None else rounded(one.estimate) for one in found])
            texts.append(
                [
                    f"<b>{one.estimate:+.1f}</b><br>{one.low:+.0f} .. {one.high:+.0f}"
                    if one is not None and np.isfinite(one.estimate)
                    else ""
                    for one in found
                ]
            )
        largest = max((abs(z) for row in values for z in row if z is not None), default=1.0)
        label = f"{METRICS[metric].title} vs {title(anchor)}"
        shown = {"z": [values], "text": [texts], "zmin": -largest, "zmax": largest}
        views.append({"label": label, "data": shown, "layout": {}})
    first = views[0]["data"]
    data = {
        "type": "heatmap",
        "x": archs,
        "y": losses,
        **first,
        "z": first["z"][0],
        "text": first["text"][0],
        "texttemplate": "%{text}",
        "textfont": {"size": 13},
        "hoverinfo": "x+y+text",
        "xgap": 3,
        "ygap": 3,
        "colorscale": [[0, "#4393c3"], [0.5, "#f7f7f7"], [1, "#e58368"]],
        "showscale": False,
    }
    layout = bare_layout(
        xaxis={"side": "top", "title": {"text": ""}, "type": "category", "fixedrange": True},
        yaxis={
            "autorange": "reversed", "type": "category", "automargin": True, "fixedrange": True,
        },
        margin={"l": 20, "r": 10, "t": 40, "b": 10},
    )  # fmt: skip
    return {"data": [data], "layout": layout, "views": views}


def lines_figure(lines: Lines) -> dict[str, Any]:
    """A grid of panels: a row per quantity, a column per architecture."""
    archs = list(dict.fromkeys(arch for row in lines.rows.values() for arch in row))
    data: list[dict[str, Any]] = []
    layout = bare_layout(
        grid={
            "rows": len(lines.rows),
            "columns": len(archs),
            "pattern": "independent",
            "xgap": 0.16,
        },
        margin={"l": 60, "r": 10, "t": 40, "b": 50},
        annotations=[],
    )
    seen: set[str] = set()
    for row, (label, by_arch) in enumerate(lines.rows.items()):
        for column, arch in enumerate(archs):
            number = row * len(archs) + column + 1
            suffix = str(number) if number > 1 else ""
            last = row == len(lines.rows) - 1
            layout[f"xaxis{suffix}"] = plain_axis(lines.xlabel if last and column == 0 else "")
            layout[f"yaxis{suffix}"] = plain_axis(label if column == 0 else "")
            if lines.logarithmic:
                layout[f"yaxis{suffix}"]["type"] = "log"
            if lines.counts:
                layout[f"xaxis{suffix}"]["tickformat"] = "d"
                layout[f"xaxis{suffix}"]["dtick"] = max(1, _longest(by_arch.get(arch, ())) // 8)
            for one in by_arch.get(arch, ()):
                data.append(
                    {
                        "name": one.loss,
                        "legendgroup": one.loss,
                        "mode": "lines+markers" if lines.counts else "lines",
                        "x": [rounded(value) for value in one.x],
                        "y": [rounded(value) for value in one.y],
                        "xaxis": f"x{suffix}",
                        "yaxis": f"y{suffix}",
                        "line": {"color": lines.colours[one.loss], "width": 2},
                        "showlegend": one.loss not in seen,
                    }
                )
                seen.add(one.loss)
            if row == 0:
                layout["annotations"].append(
                    {
                        "text": f"<b>{arch}</b>",
                        "xref": f"x{suffix} domain",
                        "x": 0,
                        "yref": f"y{suffix} domain",
                        "y": 1.0,
                        "yanchor": "bottom",
                        "xanchor": "left",
                        "showarrow": False,
                    }
                )
    return {"data": data, "layout": layout}


def _longest(series: Sequence[Series]) -> int:
    return max((len(one.x) for one in series), default=0)


def bare_layout(**parts: Any) -> dict[str, Any]:
    """What all layouts share, and these parts."""
    return {
        "font": _FONT,
        "template": {},
        "hovermode": "closest",
        "paper_bgcolor": "white",
        **parts,
    }


def plain_axis(label: str) -> dict[str, Any]:
    """An axis with a label and a pale grid."""
    return {
        "title": {"text": label},
        "gridcolor": "#e6e6e6",
        "zeroline": False,
        "linecolor": "#888",
    }


def rounded(value: float) -> float | None:
    """Five digits of a number, which keep the page small; None for what JSON has no number for."""
    return float(f"{value:.5g}") if np.isfinite(value) else None
