"""The figures of the comparison, curves and BD-rates, and the style that all figures share.

One colour a loss everywhere (Okabe and Ito's, told apart by colour-blind readers), one panel an
architecture; reference codecs in grey. Curves carry their names at their ends instead of a legend.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from linocut.lab.evaluation.comparison import METRICS, Comparison, RdRow, title
from linocut.lab.evaluation.published import DRAWN, TITLES
from linocut.lab.evaluation.rd import Floats
from linocut.lab.report.curve_labels import FAINT, GREY, INK, label_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "l2": "#0072B2",
    "l1": "#E69F00",
    "ssim": "#009E73",
    "ms_ssim": "#D55E00",
    "mix": "#CC79A7",
}
"""Colour of each loss; others take `OTHER_COLOURS` in turn."""

OTHER_COLOURS = ("#56B4E9", "#8C6D31", "#7B5EA7", "#117733", "#882255")

_DASHES: Mapping[str, Any] = {
    "jpeg": (0, (1, 1.2)),
    "jpeg2000": "-",
    "webp": (0, (6, 1.5, 1, 1.5)),
    "avif_420": (0, (4, 3)),
    "avif_444": (0, (4, 1.5)),
}

STYLE: Any = {
    "font.size": 9,
    "axes.edgecolor": "#555555",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "lines.solid_capstyle": "round",
    "savefig.dpi": 140,
}


def colour(loss: str) -> str:
    """The colour of a loss."""
    return COLOURS.get(loss) or OTHER_COLOURS[sum(map(ord, loss)) % len(OTHER_COLOURS)]


def architectures(cells: Sequence[str]) -> dict[str, list[str]]:
    """Cells by architecture, both in their order."""
    groups: dict[str, list[str]] = {}
    for cell in cells:
        groups.setdefault(cell.partition("-")[0], []).append(cell)
    return groups


def loss_of(cell: str) -> str:
    """The loss in the name of a cell, `arch-loss`."""
    return cell.partition("-")[2]


def draw_rd(cells: Sequence[str], points: Sequence[RdRow], path: Path) -> None:
    """Rate-distortion curves: a row per metric, a column per architecture.

    Args:
        cells: which curves to draw in colour.
        points: of the mean curves of cells, anchors and published codecs.
        path: the PNG to write.
    """
    groups = architectures(cells)
    figure, panels = small_multiples(len(METRICS), len(groups), width=5.4, height=4.1)
    of_cells = [row.bpp for row in points if row.kind == "cell"]
    limits = (min(of_cells) / 1.12, max(of_cells) * 1.04)
    for row, (metric, kind) in enumerate(METRICS.items()):
        for column, (arch, members) in enumerate(groups.items()):
            axes = panels[row][column]
            set_title(axes, arch if row == 0 else "")
            axes.set_ylabel(kind.label if column == 0 else "")
            axes.set_xlabel("rate [bits per pixel]" if row == len(METRICS) - 1 else "")
            _draw_curves(axes, points, members, metric, limits)
    save(figure, path)


def draw_bd_rates(comparison: Comparison, path: Path) -> None:
    """BD-rates of all cells and anchors with their intervals, a panel per metric."""
    anchor = comparison.ranking_anchor
    others = [name for name in comparison.anchors if name != anchor]
    groups = architectures(tuple(comparison.cells))
    lines: list[str | None] = []
    for cells in (*groups.values(), others):
        lines += [*cells, None]
    height = 0.9 + 0.27 * len(lines)
    figure, panels = small_multiples(1, len(METRICS), width=5.0, height=height, sharey=True)
    for axes, (metric, kind) in zip(panels[0], METRICS.items(), strict=True):
        set_title(axes, f"BD-rate in {kind.title} against {title(anchor)}")
        axes.axvline(0, color=INK, lw=1)
        axes.grid(visible=False, axis="y")
        for place, name in enumerate(lines):
            if name is not None:
                _draw_interval(axes, comparison, name, metric, place)
        axes.set_xlabel(
            "\N{LEFTWARDS ARROW} fewer    bits at equal quality [%]    more \N{RIGHTWARDS ARROW}"
        )
        axes.tick_params(left=False)
        axes.margins(x=0.16)
    panels[0][0].set_yticks(
        [place for place, name in enumerate(lines) if name],
        [title(name) for name in lines if name],
    )
    panels[0][0].set_ylim(len(lines) - 1.4, -0.6)
    save(figure, path)


def small_multiples(
    rows: int, columns: int, *, width: float, height: float, sharey: bool = False
) -> tuple[Figure, list[list[Axes]]]:
    """An empty figure and its panels, row by row; width and height of one panel in inches."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
        figure = Figure(figsize=(width * columns, height * rows), layout=layout)
        panels = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, [list(row) for row in panels]


def save(figure: Figure, path: Path) -> None:
    """Write a PNG of 256 colours: a quarter of the bytes, for figures that live in git."""
    import matplotlib
    from PIL import Image

    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(drawn)
    page = Image.open(drawn).convert("RGB")
    page.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def set_title(axes: Axes, text: str) -> None:
    """The bold title of a panel."""
    axes.set_title(text, loc="left", fontsize=10.5, fontweight="bold", color=INK)


def _draw_curves(
    axes: Axes,
    points: Sequence[RdRow],
    cells: Sequence[str],
    metric: str,
    limits: tuple[float, float],
) -> None:
    """Anchors and published curves below, cells above, names at the right end."""
    curves: dict[str, list[RdRow]] = {}
    for row in points:
        curves.setdefault(row.curve, []).append(row)
    ends, lows = [], []
    for name, rows in curves.items():
        style = _style(name, rows[0].kind, cells)
        x = np.array([row.bpp for row in rows])
        y = np.array([getattr(row, metric) for row in rows])
        if style is None or not np.all(np.isfinite(y)):
            continue
        label, options = style
        axes.plot(x, y, **options)
        inside = min(limits[1], float(x[-1]))
        ends.append((label, inside, float(_at(inside, x, y)), str(options["color"])))
        lows.append(float(_at(max(limits[0], float(x[0])), x, y)))
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    ticks = [tick for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5) if limits[0] <= tick <= limits[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    if ends:
        top, bottom = max(end[2] for end in ends), min(lows)
        axes.set_ylim(bottom - 0.03 * (top - bottom), top + 0.03 * (top - bottom))
    label_ends(axes, ends)


def _style(name: str, kind: str, cells: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """Label and line of a curve, or None for one that this panel leaves out."""
    if name in cells:
        loss = loss_of(name)
        line = {"color": colour(loss), "lw": 1.9, "marker": "o", "ms": 3.6, "zorder": 3}
        return loss, line
    if kind == "anchor" and name != "avif_420":
        return title(name), {"color": GREY, "lw": 1.3, "ls": _DASHES.get(name, "-"), "zorder": 2}
    if kind == "published" and name in DRAWN:
        return TITLES[name], {"color": FAINT, "lw": 0.9, "zorder": 1}
    return None


def _at(bpp: float, x: Floats, y: Floats) -> Floats:
    return np.asarray(np.interp(np.log(bpp), np.log(x), y))


def _draw_interval(axes: Axes, comparison: Comparison, name: str, metric: str, place: int) -> None:
    interval = comparison.bd_rate(name, metric, comparison.ranking_anchor)
    if not np.isfinite(interval.estimate):
        axes.text(0, place, "  not comparable", va="center", fontsize=8, color=GREY)
        return
    is_cell = name in comparison.cells
    ink = colour(loss_of(name)) if is_cell else GREY
    axes.plot([interval.low, interval.high], [place, place], color=ink, lw=2.2, alpha=0.55)
    axes.plot(interval.estimate, place, "o" if is_cell else "D", color=ink, ms=6 if is_cell else 5)
    fewer = interval.estimate < 0  # the number stands on the side away from zero
    ends = (interval.low, interval.estimate, interval.high)
    axes.annotate(
        f"{interval.estimate:+.1f}",
        (min(ends) if fewer else max(ends), place),
        xytext=(-5 if fewer else 5, 0),
        textcoords="offset points",
        ha="right" if fewer else "left",
        va="center",
        fontsize=8,
        color=INK,
    )
