"""Where the bits of a cell go: shares of the levels of its latent, and of its rotated channels.

coded/<cell>/planes.csv --> one figure of the page

The shares are of ideal code lengths, which the files exceed by well under one per cent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from linocut.lab.evaluation.rows import PlaneRow, read_rows
from linocut.lab.report.interactive import bare_layout, plain_axis, rounded

MOST_CHANNELS = 6
"""Channels with a bar of their own; the others share one."""

LEVEL_SHADES = ("#08306b", "#2171b5", "#6baed6", "#a8cce4", "#d6e6f2", "#eef4fa")
CHANNEL_SHADES = ("#7f2704", "#d95f0e", "#fd9e54", "#fdc38d", "#fee0c2", "#fef0e2", "#f4f0ec")


def read_planes(cells: Sequence[str], coded: Path) -> dict[str, list[PlaneRow]]:
    """Tables of the cells that have one."""
    files = {cell: coded / cell / "planes.csv" for cell in cells}
    return {cell: read_rows(file, PlaneRow) for cell, file in files.items() if file.exists()}


def split_figure(planes: Mapping[str, Sequence[PlaneRow]]) -> dict[str, Any]:
    """Stacked bars per rate point, levels on the left, channels on the right; a view per cell."""
    everything = [row for rows in planes.values() for row in rows]
    levels = list(dict.fromkeys(_level(row) for row in everything))
    channels = list(dict.fromkeys(_channel(row) for row in everything))
    parts = [(_level, name) for name in levels] + [(_channel, name) for name in channels]
    views: list[dict[str, Any]] = []
    for cell, rows in planes.items():
        points = [
            [row for row in rows if row.point == point] for point in {row.point: 0 for row in rows}
        ]
        totals = [sum(row.bpp for row in point) for point in points]
        shares = [
            [
                rounded(100 * sum(row.bpp for row in point if part(row) == name) / total)
                for point, total in zip(points, totals, strict=True)
            ]
            for part, name in parts
        ]
        x = [f"{total:.2f}" for total in totals]
        views.append({"label": cell, "data": {"x": [x] * len(parts), "y": shares}, "layout": {}})
    shown = views[0]["data"]
    traces = []
    for index, (part, name) in enumerate(parts):
        left = part is _level
        shades = LEVEL_SHADES if left else CHANNEL_SHADES
        place = index if left else index - len(levels)
        traces.append(
            {
                "type": "bar",
                "name": name,
                "x": shown["x"][index],
                "y": shown["y"][index],
                "xaxis": "x" if left else "x2",
                "yaxis": "y" if left else "y2",
                "marker": {"color": shades[min(place, len(shades) - 1)]},
                "hovertemplate": "%{x} bpp: %{y:.1f} %",
                "legendgroup": "level" if left else "channel",
                "legendgrouptitle": {"text": "levels" if left else "channels"},
            }
        )
    layout = bare_layout(
        barmode="stack",
        grid={"rows": 1, "columns": 2, "pattern": "independent", "xgap": 0.16},
        margin={"l": 60, "r": 10, "t": 20, "b": 50},
        legend={"traceorder": "grouped", "groupclick": "toggleitem"},
        xaxis={**plain_axis("rate [bits per pixel]"), "type": "category"},
        xaxis2={**plain_axis(""), "type": "category"},
        yaxis={**plain_axis("share of the bits [%]"), "range": [0, 100]},
        yaxis2={**plain_axis(""), "range": [0, 100]},
    )
    return {"data": traces, "layout": layout, "views": views}


def _level(row: PlaneRow) -> str:
    """The level of a wavelet band such as HL3; other bands by their own names."""
    return row.band.lstrip("HL") if row.band[0] == "H" or row.band[:2] == "LH" else row.band


def _channel(row: PlaneRow) -> str:
    return str(row.channel) if row.channel < MOST_CHANNELS else f"{MOST_CHANNELS} and more"
