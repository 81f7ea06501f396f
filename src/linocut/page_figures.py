"""The interactive figures of the page, as Plotly's JSON: plain dictionaries."""

from __future__ import annotations

from typing import Any

import numpy as np

from linocut.comparison import METRICS, REFERENCES, Comparison, title
from linocut.curve_labels import GREY
from linocut.figures import PUBLISHED, Lines, architectures, colour, loss_of

_DASHES = {"jpeg": "dot", "jpeg2000": "solid", "webp": "dashdot", "avif_444": "dash"}
_SYMBOLS = ("circle", "square", "diamond", "x")
_ARCH_DASHES = ("solid", "4px,2px", "1px,2px", "8px,3px")
_FONT = {
    "family": "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif",
    "size": 13,
}


def rd_figure(comparison: Comparison) -> dict[str, Any]:
    """Curves of cells, anchors and, on Kodak, published ones; buttons choose the metric."""
    archs = list(architectures(tuple(comparison.cells)))
    curves: dict[str, list[Any]] = {}
    for row in comparison.points:
        curves.setdefault(row.curve, []).append(row)
    data, metrics = [], list(METRICS)
    for name, rows in curves.items():
        kind = rows[0].kind
        trace: dict[str, Any] = {
            "name": PUBLISHED.get(name, title(name)),
            "x": [_round(row.bpp) for row in rows],
            "y": [_round(row.psnr_db) for row in rows],
            "hovertemplate": "%{x:.3f} bpp, %{y:.2f} dB",
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
            trace["visible"] = True if name in PUBLISHED else "legendonly"
        trace["legendgrouptitle"] = {"text": {"cell": "cells", "anchor": "anchors"}.get(kind, kind)}
        data.append(trace)
    buttons = [
        {
            "label": METRICS[metric].title,
            "method": "update",
            "args": [
                {"y": [[_round(getattr(row, metric)) for row in rows] for rows in curves.values()]},
                {"yaxis.title.text": f"{METRICS[metric].title} [dB]", "yaxis.autorange": True},
            ],
        }
        for metric in metrics
    ]
    rates = [row.bpp for row in comparison.points if row.kind == "cell"]
    layout = _layout(
        xaxis={
            **_axis("rate [bits per pixel]"),
            "type": "log",
            "range": [float(np.log10(min(rates) / 1.2)), float(np.log10(max(rates) * 1.2))],
            "tickvals": [0.05, 0.1, 0.2, 0.5, 1, 2, 5],
        },
        yaxis=_axis("PSNR [dB]"),
        updatemenus=[
            {
                "type": "buttons",
                "direction": "right",
                "buttons": buttons,
                "active": 0,
                "x": 0,
                "xanchor": "left",
                "y": 1.02,
                "yanchor": "bottom",
                "pad": {"b": 6},
            }
        ],
        legend={"groupclick": "toggleitem", "font": {"size": 12}},
        margin={"l": 60, "r": 10, "t": 50, "b": 50},
    )
    return {"data": data, "layout": layout}


def grid_figure(comparison: Comparison) -> dict[str, Any]:
    """Architecture x loss heat maps of BD-rates; a menu chooses metric and reference."""
    archs = list(architectures(tuple(comparison.cells)))
    losses = list(dict.fromkeys(loss_of(cell) for cell in comparison.cells))
    data, buttons = [], []
    choices = [
        (metric, anchor)
        for metric in METRICS
        for anchor in dict.fromkeys((comparison.ranking_anchor, *REFERENCES))
        if anchor in comparison.anchors
    ]
    for index, (metric, anchor) in enumerate(choices):
        values, texts = [], []
        for arch in archs:
            found = [
                comparison.bd_rate(f"{arch}-{loss}", metric, anchor)
                if f"{arch}-{loss}" in comparison.cells
                else None
                for loss in losses
            ]
            values.append([None if one is None else _round(one.estimate) for one in found])
            texts.append(
                [
                    f"{one.estimate:+.1f}<br><sub>{one.low:+.0f} .. {one.high:+.0f}</sub>"
                    if one is not None and np.isfinite(one.estimate)
                    else ""
                    for one in found
                ]
            )
        data.append(
            {
                "type": "heatmap",
                "x": losses,
                "y": archs,
                "z": values,
                "text": texts,
                "texttemplate": "%{text}",
                "hoverinfo": "x+y+text",
                "visible": index == 0,
                "zmid": 0,
                "zmin": -60,
                "zmax": 60,
                "xgap": 3,
                "ygap": 3,
                "colorscale": [[0, "#2166ac"], [0.5, "#f7f7f7"], [1, "#d6604d"]],
                "colorbar": {"title": {"text": "%"}, "thickness": 12},
            }
        )
        label = f"{METRICS[metric].title} vs {title(anchor)}"
        visible = {"visible": [other == index for other in range(len(choices))]}
        buttons.append({"label": label, "method": "restyle", "args": [visible]})
    layout = _layout(
        xaxis={"side": "top", "title": {"text": ""}, "type": "category"},
        yaxis={"autorange": "reversed", "type": "category", "automargin": True},
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": -0.05, "yanchor": "top"}],
        margin={"l": 20, "r": 10, "t": 40, "b": 60},
    )
    return {"data": data, "layout": layout}


def lines_figure(lines: Lines) -> dict[str, Any]:
    """A grid of panels: a row per quantity, a column per architecture."""
    archs = list(dict.fromkeys(arch for row in lines.rows.values() for arch in row))
    data: list[dict[str, Any]] = []
    layout = _layout(
        grid={"rows": len(lines.rows), "columns": len(archs), "pattern": "independent"},
        margin={"l": 60, "r": 10, "t": 40, "b": 50},
        annotations=[],
    )
    seen: set[str] = set()
    for row, (label, by_arch) in enumerate(lines.rows.items()):
        for column, arch in enumerate(archs):
            number = row * len(archs) + column + 1
            suffix = str(number) if number > 1 else ""
            last = row == len(lines.rows) - 1
            layout[f"xaxis{suffix}"] = _axis(lines.xlabel if last else "")
            layout[f"yaxis{suffix}"] = _axis(label if column == 0 else "")
            if lines.logarithmic:
                layout[f"yaxis{suffix}"]["type"] = "log"
            for one in by_arch.get(arch, ()):
                data.append(
                    {
                        "name": one.loss,
                        "legendgroup": one.loss,
                        "mode": "lines",
                        "x": [_round(value) for value in one.x],
                        "y": [_round(value) for value in one.y],
                        "xaxis": f"x{suffix}",
                        "yaxis": f"y{suffix}",
                        "line": {"color": colour(one.loss), "width": 2},
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


def _layout(**parts: Any) -> dict[str, Any]:
    return {
        "font": _FONT,
        "template": {},
        "hovermode": "closest",
        "paper_bgcolor": "white",
        **parts,
    }


def _axis(label: str) -> dict[str, Any]:
    return {
        "title": {"text": label},
        "gridcolor": "#e6e6e6",
        "zeroline": False,
        "linecolor": "#888",
    }


def _round(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None
