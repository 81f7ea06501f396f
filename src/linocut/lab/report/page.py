"""The report as one HTML file that needs no network: figures, tables, pictures to slide over.

Tables, report.md, pictures --> page.html (the template) --> report.html
Tables, planes.csv, Lines --> go.Figure, or several by label: the views that a control chooses from

Plotly's JavaScript is written into the page. Pictures to slide over are lossless WebP, cut to a
window where they are large; damaged ones, which show more than codecs do, are lossy.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from linocut.lab.evaluation.comparison import METRICS, architectures, loss_of, title
from linocut.lab.evaluation.rd import DRAWN, is_kodak
from linocut.lab.evaluation.rd import TITLES as PUBLISHED
from linocut.lab.evaluation.rows import PlaneRow, read_rows
from linocut.lab.report.figures import GREY, Exhibit, Lines, colour
from linocut.lab.report.tables import Tables
from linocut.pictures.image import RgbArray, busiest_corner

WINDOW_PX = (384, 576)
"""Height and width that pictures are cut to."""

MOST_PICTURES = 2
"""Pictures on the page, which has to stay below 8 MB with Plotly's 5."""

PICTURE_BYTES = 1_300_000
"""Once the pictures have this many bytes, cells other than the leading one are left out."""

GALLERIES = {
    "twins": (
        "Twin decoders",
        "Crops of one file at the lowest rate, decoded by networks that were trained without and "
        "with an adversary.",
    ),
    "damaged": (
        "Bit errors",
        "Crops of files with wrong bits behind the header; grey: does not decode.",
    ),
}
"""Heading and caption of a section of pictures, by its anchor."""


def page_text(
    tables: Tables,
    headline: str,
    markdown: str,
    exhibits: Sequence[Exhibit],
    *,
    coded: Path,
    lines: Sequence[Lines],
    provenance: Mapping[str, str],
    galleries: Mapping[str, Mapping[str, Mapping[str, RgbArray]]],
) -> str:
    """The whole page.

    Args:
        tables: the numbers.
        headline: what was found, as Markdown.
        markdown: the report as Markdown, whose tables and text the page repeats.
        exhibits: pictures in all versions.
        coded: the folder of the cells' planes.csv.
        lines: further figures.
        provenance: longer texts by heading: parameters, versions, data.
        galleries: by a key of `GALLERIES`, crops by title, by what they are of.
    """
    views = {"rd": rd_views(tables), "grid": grid_views(tables)}
    views["split"] = split_views(list(tables.cells), coded)
    views |= {f"lines-{index}": {"": lines_figure(one)} for index, one in enumerate(lines)}
    exhibits = exhibits[:MOST_PICTURES]
    room = PICTURE_BYTES / max(len(exhibits), 1)
    texts = sections(markdown)
    del texts[""]
    environment = Environment(
        loader=PackageLoader("linocut.lab.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.get_template("page.html").render(
        kodak=is_kodak(tables.about["pictures"]),
        count=len(tables.about["pictures"]),
        files=tables.metrics["files"],
        headline=Markup(_MARKDOWN.render(headline)),
        views={name: as_json(figures) for name, figures in views.items() if figures},
        lines=lines,
        exhibits=exhibits,
        pictures={exhibit.picture: _versions(exhibit, room) for exhibit in exhibits},
        galleries=[
            (key, *GALLERIES[key], {name: _tiles(crops) for name, crops in gallery.items()})
            for key, gallery in galleries.items()
            if gallery
        ],
        texts={name: Markup(text) for name, text in texts.items()},
        provenance=provenance,
        plotly=Markup(get_plotlyjs()),
    )


def sections(markdown: str) -> dict[str, str]:
    """HTML by second-level heading; pictures are left out, as are empty sections.

    What comes before the first such heading is under "".
    """
    found: dict[str, list[Token]] = {"": []}
    name = ""
    for block in _blocks(_MARKDOWN.parse(markdown)):
        if block[0].type == "heading_open" and block[0].tag == "h2":
            name = block[1].content
            found[name] = []
        elif not _left_out(block):
            found[name] += block
    rendered = {
        name: _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
        for name, tokens in found.items()
    }
    return {name: text for name, text in rendered.items() if text or not name}


def _markdown() -> MarkdownIt:
    """CommonMark and tables; wide tables scroll by themselves."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


_MARKDOWN = _markdown()


def _blocks(tokens: Sequence[Token]) -> list[list[Token]]:
    """Tokens of each block on the outermost level."""
    depth, numbered = 0, []
    number = 0
    for token in tokens:
        numbered.append((number, token))
        depth += token.nesting
        number += depth == 0
    return [[token for _, token in group] for _, group in groupby(numbered, lambda one: one[0])]


def _left_out(block: Sequence[Token]) -> bool:
    first = block[0]
    picture = len(block) > 1 and block[1].content.startswith("![")
    return first.type == "html_block" or first.tag == "h1" or picture


def _tiles(crops: Mapping[str, RgbArray]) -> list[dict[str, Any]]:
    """Pictures of a gallery, with their names and sizes."""
    return [
        {"title": title, "image": _address(_webp(crop, lossless=False)),
         "width": crop.shape[1], "height": crop.shape[0]}
        for title, crop in crops.items()
    ]  # fmt: skip


def _versions(exhibit: Exhibit, room: float) -> dict[str, dict[str, Any]]:
    """Pictures of one exhibit: the leading cell and the anchors, others while there is room."""
    corner = busiest_corner(exhibit.original.image, min(WINDOW_PX))
    others = [one for one in exhibit.cells if one.name != exhibit.leader]
    versions, used = {}, 0
    needed = (exhibit.original, exhibit.of_leader, *exhibit.anchors)
    for place, version in enumerate((*needed, *others)):
        if place >= len(needed) and used > room:
            break
        data = _webp(_window(version.image, corner), lossless=True)
        used += len(data)
        versions[version.name] = {
            "image": _address(data),
            "note": version.note,
            "width": min(version.image.shape[1], WINDOW_PX[1]),
        }
    return versions


def _window(image: RgbArray, corner: tuple[int, int]) -> RgbArray:
    """The window around a corner (y, x), inside the picture."""
    top, left = (
        max(min(start - (size - min(WINDOW_PX)) // 2, length - size), 0)
        for start, size, length in zip(corner, WINDOW_PX, image.shape[:2], strict=True)
    )
    return image[top : top + WINDOW_PX[0], left : left + WINDOW_PX[1]]


def _webp(image: RgbArray, *, lossless: bool) -> bytes:
    file = io.BytesIO()
    quality = 40 if lossless else 85
    Image.fromarray(image).save(file, "WEBP", lossless=lossless, quality=quality, method=2)
    return file.getvalue()


def _address(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"


# --- interactive figures --------------------------------------------------------------------------
#
# Views are whole figures and never changes to one: Plotly forgets the type of an axis whose data
# are exchanged, and a category such as "0.12" becomes a number.

_DASHES = {
    "jpeg": "dot", "jpeg2000": "solid", "webp": "dashdot", "avif_444": "dash",
    "jpegxl": "longdashdot",
}  # fmt: skip
_SYMBOLS = ("circle", "square", "diamond", "x")
_ARCH_DASHES = ("solid", "4px,2px", "1px,2px", "8px,3px")
_GROUPS = {
    "cell": "cells", "control": "controls", "anchor": "anchors", "published": "published"
}  # fmt: skip
_GRID = "#e6e6e6"
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif"

MOST_CHANNELS = 6
"""Channels with a bar of their own; the others share one."""

LEVEL_SHADES = ("#08306b", "#2171b5", "#6baed6", "#a8cce4", "#d6e6f2", "#eef4fa")
CHANNEL_SHADES = ("#7f2704", "#d95f0e", "#fd9e54", "#fdc38d", "#fee0c2", "#fef0e2", "#f4f0ec")


def rd_views(tables: Tables) -> dict[str, go.Figure]:
    """Curves of cells, anchors and, on Kodak, published ones: each metric, and above an anchor."""
    anchor = tables.about["anchor"]
    rates = tables.rd["bpp"][tables.rd["kind"] == "cell"]
    reference = tables.rd[tables.rd["curve"] == anchor]
    views = {}
    for above in (False, True):
        for metric, shown in METRICS.items():
            points = tables.rd.assign(y=tables.rd[metric])
            name, label = shown.title, shown.label
            if above:
                points["y"] -= np.interp(
                    np.log(points["bpp"]), np.log(reference["bpp"]), reference[metric],
                    left=np.nan, right=np.nan,
                )  # fmt: skip
                name, label = (f"{text} above {title(anchor)}" for text in (name, label))
            figure = _bare(go.Figure(_curves(points)))
            figure.update_layout(
                legend={"groupclick": "toggleitem"}, margin={"l": 60, "r": 10, "t": 30, "b": 50}
            )
            figure.update_xaxes(
                title_text="rate [bits per pixel]",
                type="log",
                range=np.log10([rates.min() / 1.2, rates.max() * 1.2]).tolist(),
                tickvals=[0.05, 0.1, 0.2, 0.5, 1, 2, 5],
            )
            figure.update_yaxes(title_text=label, uirevision=name)
            if above:  # the cells fill the figure, whatever JPEG does
                of_cells = points["y"][points["kind"] == "cell"].dropna()
                low, high = min([0.0, *of_cells]), max([0.0, *of_cells])
                room = 0.25 * (high - low) or 1.0
                figure.update_yaxes(range=[low - room, high + room])
            views[name] = figure
    return views


def _curves(points: pd.DataFrame) -> list[go.Scatter]:
    """A trace for each curve, of columns bpp and y."""
    archs = list(architectures(list(points["curve"][points["kind"] == "cell"].unique())))
    traces = []
    for name, rows in points.groupby("curve", sort=False):
        kind = rows["kind"].iloc[0]
        style: dict[str, Any] = {"mode": "lines"}
        if kind == "cell":
            place = archs.index(name.partition("-")[0]) % len(_SYMBOLS)
            line = {"color": colour(loss_of(name)), "width": 2.2, "dash": _ARCH_DASHES[place]}
            style = {"mode": "lines+markers", "marker": {"symbol": _SYMBOLS[place], "size": 7}}
        elif kind == "control":
            line = {"color": GREY, "width": 1.6, "dash": "dot"}
        elif kind == "anchor":
            line = {"color": GREY, "width": 1.6, "dash": _DASHES.get(name, "longdash")}
        else:
            line = {"color": "#b0a890", "width": 1.2}
            style["visible"] = True if name in DRAWN else "legendonly"
        traces.append(
            go.Scatter(
                name=PUBLISHED.get(name, title(name)),
                x=rounded(rows["bpp"]),
                y=rounded(rows["y"]),
                hovertemplate="%{x:.3f} bpp: %{y:.2f}",
                legendgroup=kind,
                legendgrouptitle={"text": _GROUPS[kind]},
                line=line,
                **style,
            )
        )
    return traces


def grid_views(tables: Tables) -> dict[str, go.Figure]:
    """Loss x architecture heat maps of BD-rates: each metric against each reference.

    Empty where no cell has a BD-rate.
    """
    cells = tables.bd_rate[tables.bd_rate["kind"] == "cell"]
    if not np.isfinite(cells["bd_rate"]).any():
        return {}
    archs = list(architectures(list(tables.cells)))
    losses = list(dict.fromkeys(map(loss_of, tables.cells)))
    views = {}
    for metric, shown in METRICS.items():
        for anchor in dict.fromkeys((tables.about["anchor"], *tables.references)):
            found = [
                [
                    tables.bd(f"{arch}-{loss}", metric, anchor)
                    if f"{arch}-{loss}" in tables.cells
                    else (np.nan,) * 3
                    for arch in archs
                ]
                for loss in losses
            ]
            rates = np.array(found)[..., 0]
            largest = float(np.nanmax(np.abs(rates))) if np.isfinite(rates).any() else 1.0
            figure = _bare(
                go.Figure(
                    go.Heatmap(
                        x=archs,
                        y=losses,
                        z=[rounded(row) for row in rates],
                        text=[[_entry(*one) for one in row] for row in found],
                        texttemplate="%{text}",
                        textfont={"size": 13},
                        hoverinfo="x+y+text",
                        xgap=3,
                        ygap=3,
                        zmin=-largest,
                        zmax=largest,
                        colorscale=[[0, "#4393c3"], [0.5, "#f7f7f7"], [1, "#e58368"]],
                        showscale=False,
                    )
                )
            )
            figure.update_layout(margin={"l": 20, "r": 10, "t": 40, "b": 10})
            figure.update_xaxes(side="top", type="category", fixedrange=True)
            figure.update_yaxes(autorange="reversed", type="category", fixedrange=True)
            views[f"{shown.title} vs {title(anchor)}"] = figure
    return views


def _entry(estimate: float, low: float, high: float) -> str:
    if not np.isfinite(estimate):
        return ""
    return f"<b>{estimate:+.1f}</b><br>{low:+.0f} .. {high:+.0f}"


def split_views(cells: Sequence[str], coded: Path) -> dict[str, go.Figure]:
    """Where the bits of each cell go: bars per rate point, levels left, rotated channels right.

    The shares are of ideal code lengths, which the files exceed by well under one per cent.
    """
    files = {cell: coded / cell / "planes.csv" for cell in cells}
    planes = {cell: read_rows(file, PlaneRow) for cell, file in files.items() if file.exists()}
    return {cell: _split(pd.DataFrame(rows)) for cell, rows in planes.items()}


def _split(planes: pd.DataFrame) -> go.Figure:
    totals = planes.groupby("point")["bpp"].sum()
    x = [f"{total:.2f}" for total in totals]
    figure = _bare(make_subplots(1, 2, horizontal_spacing=0.1, x_title="rate [bits per pixel]"))
    parts = {"levels": (planes["band"].map(_level), LEVEL_SHADES),
             "channels": (planes["channel"].map(_channel), CHANNEL_SHADES)}  # fmt: skip
    for column, (group, (part, shades)) in enumerate(parts.items(), start=1):
        shares = planes.groupby([part, "point"], sort=False)["bpp"].sum().unstack(fill_value=0.0)
        for place, (name, share) in enumerate(shares.iterrows()):
            bar = go.Bar(
                name=name,
                x=x,
                y=rounded(100 * share / totals),
                marker={"color": shades[min(place, len(shades) - 1)]},
                hovertemplate="%{x} bpp: %{y:.1f} %",
                legendgroup=group,
                legendgrouptitle={"text": group},
            )
            figure.add_trace(bar, row=1, col=column)
    figure.update_layout(
        barmode="stack",
        margin={"l": 60, "r": 10, "t": 40, "b": 50},
        legend={"traceorder": "grouped", "groupclick": "toggleitem"},
    )
    figure.update_xaxes(type="category")
    figure.update_yaxes(range=[0, 100])
    figure.update_yaxes(title_text="share of the bits [%]", col=1)
    return figure


def _level(band: str) -> str:
    """The level of a wavelet band such as HL3; other bands by their own names."""
    return band.lstrip("HL") if band[0] == "H" or band[:2] == "LH" else band


def _channel(channel: int) -> str:
    return str(channel) if channel < MOST_CHANNELS else f"{MOST_CHANNELS} and more"


def lines_figure(lines: Lines) -> go.Figure:
    """A grid of panels: a row per quantity, a column per architecture."""
    archs = list(dict.fromkeys(arch for row in lines.rows.values() for arch in row))
    figure = _bare(
        make_subplots(
            len(lines.rows), len(archs), column_titles=[f"<b>{arch}</b>" for arch in archs],
            x_title=lines.xlabel, horizontal_spacing=0.09, vertical_spacing=0.12,
        )
    )  # fmt: skip
    seen: set[str] = set()
    for row, (label, by_arch) in enumerate(lines.rows.items(), start=1):
        for column, arch in enumerate(archs, start=1):
            for one in by_arch.get(arch, ()):
                trace = go.Scatter(
                    name=one.loss,
                    legendgroup=one.loss,
                    mode="lines+markers" if lines.counts else "lines",
                    x=rounded(one.x),
                    y=rounded(one.y),
                    line={"color": lines.colours[one.loss], "width": 2},
                    showlegend=one.loss not in seen,
                )
                figure.add_trace(trace, row=row, col=column)
                seen.add(one.loss)
        figure.update_yaxes(title_text=label, row=row, col=1)
    if lines.logarithmic:
        figure.update_yaxes(type="log")
    if lines.counts:
        series = [one for row in lines.rows.values() for group in row.values() for one in group]
        longest = max((len(one.x) for one in series), default=0)
        figure.update_xaxes(tickformat="d", dtick=max(1, longest // 8))
    figure.update_annotations(font_size=13)
    figure.update_layout(margin={"l": 60, "r": 10, "t": 40, "b": 50})
    return figure


def _bare(figure: go.Figure) -> go.Figure:
    """What all figures share; choices of the reader outlive a change of the view."""
    figure.update_layout(
        template=go.layout.Template(),
        font={"family": _FONT, "size": 13},
        hovermode="closest",
        paper_bgcolor="white",
        uirevision="all views",
    )
    figure.update_xaxes(gridcolor=_GRID, zeroline=False, linecolor="#888")
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, linecolor="#888", automargin=True)
    return figure


def rounded(values: Any) -> list[float | None]:
    """Numbers to five digits, which keep the page small; None for what JSON has no number for."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]


def as_json(views: Mapping[str, go.Figure]) -> dict[str, Any]:
    """Data and layout of each view."""
    return {label: figure.to_dict() for label, figure in views.items()}
