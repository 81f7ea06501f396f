"""The figures: curves and BD-rates of a comparison, lines over anything else, and their style.

rows, history.csv, energy.csv --> Lines and points --> PNGs (the page draws the same data itself)

One colour a loss everywhere (Okabe and Ito's, told apart by colour-blind readers), one panel an
architecture; reference codecs in grey. Curves carry their names at their ends instead of a legend.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from linocut.lab.evaluation.comparison import METRICS, Comparison, architectures, loss_of, title
from linocut.lab.evaluation.rd import DRAWN, TITLES, Floats
from linocut.lab.evaluation.rows import RdRow, read_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, FAINT = "#222222", "#8a8a8a", "#b9b9b9"
"""Text, reference curves, published curves."""

LINE_PT = 12.0
"""Distance of neighbouring names of curves, points."""

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


@dataclass(frozen=True)
class Series:
    """A line of a small-multiples figure: the loss that colours it, and its points."""

    loss: str
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Lines:
    """A figure of lines by loss, a column per architecture.

    Attributes:
        heading: what it is about.
        caption: in a sentence.
        xlabel: of the x axes.
        rows: by label of the y axis, lines by architecture.
        logarithmic: y axes that count in factors.
        counts: x axes of whole numbers.
    """

    heading: str
    caption: str
    xlabel: str
    rows: Mapping[str, Mapping[str, Sequence[Series]]]
    logarithmic: bool = False
    counts: bool = False

    @property
    def colours(self) -> dict[str, str]:
        """By name of a line: a loss has its own, others take those that are left in turn."""
        panels = [series for row in self.rows.values() for series in row.values()]
        names = dict.fromkeys(one.loss for series in panels for one in series)
        left = [*OTHER_COLOURS, *(ink for loss, ink in COLOURS.items() if loss not in names)]
        others = [name for name in names if name not in COLOURS]
        return COLOURS | {name: left[i % len(left)] for i, name in enumerate(others)}


@dataclass(frozen=True)
class HistoryRow:
    """A moment of a training."""

    megapixels: float
    rate_bpp: float
    psnr_db: float


@dataclass(frozen=True)
class EnergyRow:
    """The variance of one rotated latent channel."""

    band: str
    channel: int
    variance: float


def colour(loss: str) -> str:
    """The colour of a loss."""
    return COLOURS.get(loss) or OTHER_COLOURS[sum(map(ord, loss)) % len(OTHER_COLOURS)]


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
    for cells in (*groups.values(), list(comparison.controls), others):
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


def draw_lines(lines: Lines, path: Path) -> None:
    """Small multiples: a row per quantity, a column per architecture."""
    from matplotlib.ticker import NullFormatter

    columns = max(len(row) for row in lines.rows.values())
    figure, panels = small_multiples(len(lines.rows), columns, width=5.0, height=2.9)
    for row, (label, by_arch) in enumerate(lines.rows.items()):
        for column, (arch, series) in enumerate(by_arch.items()):
            axes = panels[row][column]
            set_title(axes, arch if row == 0 else "")
            axes.set_ylabel(label if column == 0 else "")
            axes.set_xlabel(lines.xlabel if row == len(lines.rows) - 1 else "")
            ends = []
            for one in series:
                ink = lines.colours[one.loss]
                axes.plot(one.x, one.y, color=ink, lw=1.6)
                ends.append((one.loss, float(one.x[-1]), float(one.y[-1]), ink))
            axes.locator_params(axis="x", integer=lines.counts)
            if lines.logarithmic:
                axes.set_yscale("log")
                low, high = axes.get_ylim()
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())
            label_ends(axes, ends)
    save(figure, path)


def training_lines(cells: Sequence[str], trained: Path) -> Lines | None:
    """Quality and rate over the training, where there was one."""
    histories: dict[str, list[HistoryRow]] = {}
    for cell in cells:
        file = trained / cell / "history.csv"
        length = file.read_text(encoding="utf-8").count("\n") if file.exists() else 0
        if length > 2:  # a shipped network leaves the heading alone
            histories[cell] = read_rows(file, HistoryRow)
    if not histories:
        return None
    rows_of_panels = {}
    for label, column in {
        "validation PSNR [dB]": "psnr_db",
        "estimated rate [bpp]": "rate_bpp",
    }.items():
        lines = {
            cell: (
                np.array([row.megapixels for row in rows]),
                np.array([getattr(row, column) for row in rows]),
            )
            for cell, rows in histories.items()
        }
        rows_of_panels[label] = _by_architecture(lines)
    caption = "Validation crops while the cells were trained, from their base networks on."
    return Lines("Training", caption, "megapixels seen", rows_of_panels)


def energy_lines(cells: Sequence[str], rotated: Path) -> Lines | None:
    """Energy that the strongest channels of a band leave out, mean over the bands."""
    lines = {}
    for cell in cells:
        file = rotated / cell / "energy.csv"
        bands: dict[str, list[float]] = {}
        for row in read_rows(file, EnergyRow) if file.exists() else []:
            bands.setdefault(row.band, []).append(row.variance)
        channels = min(map(len, bands.values()), default=0)
        left_out = [_left_out(variances)[: channels - 1] for variances in bands.values()]
        if channels > 1:
            lines[cell] = (np.arange(1.0, channels), 100 * np.mean(left_out, axis=0))
    if not lines:
        return None
    caption = "Share of a band's energy outside its first principal components, mean over bands."
    rows = {"energy outside of them [%]": _by_architecture(lines)}
    return Lines(
        "Energy compaction", caption, "strongest components", rows, logarithmic=True, counts=True
    )


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
    if kind == "control":
        return title(name), {"color": GREY, "lw": 1.3, "ls": (0, (1, 1.5)), "zorder": 2}
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
        (np.nanmin(ends) if fewer else np.nanmax(ends), place),
        xytext=(-5 if fewer else 5, 0),
        textcoords="offset points",
        ha="right" if fewer else "left",
        va="center",
        fontsize=8,
        color=INK,
    )


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Write names beside the right edge, pushed apart, with a thin line to each curve's end."""
    figure, spec = axes.get_figure(root=True), axes.get_subplotspec()
    if not ends or figure is None or spec is None:
        return
    axes.get_xlim(), axes.get_ylim()  # settles the limits that the transform uses
    to_fraction = axes.transData + axes.transAxes.inverted()
    placed = sorted(
        ((*to_fraction.transform((x, y)), name, ink) for name, x, y, ink in ends),
        key=lambda end: float(end[1]),
    )
    height_pt = 0.8 * 72 * figure.get_figheight() / spec.get_gridspec().nrows
    gap = LINE_PT / height_pt
    heights = push_apart([float(end[1]) for end in placed], gap)
    for (x, y, name, ink), height in zip(placed, heights, strict=True):
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(1.045, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            color=INK if ink in {GREY, FAINT} else ink,
            fontweight="normal" if ink in {GREY, FAINT} else "bold",
            arrowprops={
                "arrowstyle": "-",
                "color": ink,
                "lw": 0.6,
                "shrinkA": 1,
                "shrinkB": 1,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
        )


def push_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights at least `gap` apart, each group of neighbours kept about its middle.

    Where there is room below, none is above 1.
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while len(groups) > 1:
            low, high = groups[-2], groups[-1]
            top_of_low = np.mean(low) + gap * (len(low) - 1) / 2
            bottom_of_high = np.mean(high) - gap * (len(high) - 1) / 2
            if bottom_of_high - top_of_low >= gap:
                break
            groups[-2:] = [low + high]
    placed = []
    for group in groups:
        first = float(np.mean(group)) - gap * (len(group) - 1) / 2
        placed += [first + gap * index for index in range(len(group))]
    return [min(height, 1 - gap * back) for back, height in enumerate(reversed(placed))][::-1]


def _left_out(variances: Sequence[float]) -> Floats:
    """Share of the energy outside the 1, 2, ... strongest of n channels, (n - 1,)."""
    weakest_first = np.cumsum(np.sort(variances))
    return np.asarray(weakest_first[:-1][::-1] / max(weakest_first[-1], 1e-12))


def _by_architecture(
    lines: Mapping[str, tuple[Floats, Floats]],
) -> dict[str, list[Series]]:
    return {
        arch: [Series(loss_of(cell), *lines[cell]) for cell in group]
        for arch, group in architectures(tuple(lines)).items()
    }
