"""The figures: curves, BD-rates, lines over anything else, and crops beside each other.

rows, history.csv, energy.csv --> Lines and points --> PNGs (the page draws the same data itself)
evaluated/*/pictures, studies/matched, prepared/test --> Exhibit --> matched-*.png, cells-*.png

One colour a loss everywhere (Okabe and Ito's, told apart by colour-blind readers), one panel an
architecture; reference codecs in grey. Curves carry their names at their ends instead of a legend.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from linocut.errors import DataError
from linocut.lab.evaluation.comparison import METRICS, Comparison, architectures, loss_of, title
from linocut.lab.evaluation.rd import DRAWN, TITLES, Floats
from linocut.lab.evaluation.rows import MatchedRow, RdRow, read_rows
from linocut.pictures.image import RgbArray, busiest_corner, crop, read_image
from linocut.pictures.quality import to_db

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.ImageFont import FreeTypeFont

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
    "jpegxl": (0, (2.5, 1, 1, 1, 1, 1)),
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
    """Rate-distortion curves: a row per metric, a column per architecture; of one, two by two.

    Args:
        cells: which curves to draw in colour.
        points: of the mean curves of cells, anchors and published codecs.
        path: the PNG to write.
    """
    groups = architectures(cells)
    columns = max(2, len(groups))
    places = [(metric, arch) for metric in METRICS for arch in groups]
    rows = -(-len(places) // columns)
    figure, panels = small_multiples(rows, columns, width=5.4, height=4.1)
    of_cells = [row.bpp for row in points if row.kind == "cell"]
    limits = (min(of_cells) / 1.12, max(of_cells) * 1.04)
    for place, (metric, arch) in enumerate(places):
        row, column = divmod(place, columns)
        axes = panels[row][column]
        set_title(axes, arch if row == 0 and column < len(groups) else "")
        axes.set_ylabel(METRICS[metric].label if column == 0 or len(groups) == 1 else "")
        axes.set_xlabel("rate [bits per pixel]" if row == rows - 1 else "")
        _draw_curves(axes, points, groups[arch], metric, limits)
    save(figure, path)


def draw_bd_rates(comparison: Comparison, path: Path) -> None:
    """BD-rates of all cells and anchors with their intervals, two panels a row, one per metric."""
    anchor = comparison.ranking_anchor
    others = [name for name in comparison.anchors if name != anchor]
    groups = architectures(tuple(comparison.cells))
    lines: list[str | None] = []
    for cells in (*groups.values(), list(comparison.controls), others):
        lines += [*cells, None]
    height = 0.9 + 0.27 * len(lines)
    rows = -(-len(METRICS) // 2)
    figure, panels = small_multiples(rows, 2, width=5.0, height=height, sharey=True)
    axes_of = [axes for row in panels for axes in row]
    for axes, (metric, kind) in zip(axes_of, METRICS.items(), strict=True):
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


# --- pictures beside each other, at their own pixels ----------------------------------------------
#
# The crop is chosen by a rule that knows nothing of codecs: the square with the strongest
# gradients of the original.

CROP_PX = 192
GAP_PX = 8
LINE_PX = 18

PALE = "#6e6e6e"


@dataclass(frozen=True)
class Version:
    """A picture as one codec leaves it.

    Attributes:
        name: of the codec, or "original".
        image: (h, w, 3) uint8.
        note: its rate and quality in a few words.
        bytes: size of the file, 0 for the original.
    """

    name: str
    image: RgbArray
    note: str
    bytes: int


@dataclass(frozen=True)
class Exhibit:
    """One test picture in all versions that the report shows.

    Attributes:
        picture: its name.
        original: as it is.
        cells: decoded by each cell, at the same rate point.
        anchors: at the size of the file of `leader`.
        leader: name of the cell that anchors were matched with.
    """

    picture: str
    original: Version
    cells: tuple[Version, ...]
    anchors: tuple[Version, ...]
    leader: str

    @property
    def of_leader(self) -> Version:
        """The version of the leading cell."""
        return next(version for version in self.cells if version.name == self.leader)


def collect(comparison: Comparison, artifacts: Path) -> list[Exhibit]:
    """Read the decoded pictures that evaluation kept, and the anchors of matched size.

    Args:
        comparison: names the cells and the leading one.
        artifacts: the folder with `evaluated/`, `prepared/test/` and `studies/matched/`.

    Raises:
        DataError: a picture is missing, or was matched with another cell's.
    """
    leader = comparison.leader("psnr_db")
    kept = artifacts / "evaluated" / leader / "pictures"
    if not any(kept.glob("*.png")):
        return []
    matched = artifacts / "studies" / "matched"
    rows = read_rows(matched / "matched.csv", MatchedRow)
    if {row.cell for row in rows} != {leader}:
        raise DataError(f"{matched} is about {rows[0].cell}, expected {leader}")
    exhibits = []
    for path in sorted(kept.glob("*.png")):
        picture = path.stem.rpartition("-")[0]
        original = read_image(artifacts / "prepared" / "test" / f"{picture}.png")
        cells = []
        for cell in comparison.cells:
            folder = artifacts / "evaluated" / cell / "pictures"
            found = sorted(folder.glob(f"{picture}-*.png"))
            if not found:
                raise DataError(f"{cell} has no decoded picture of {picture}")
            cells.append(_cell_version(comparison, cell, found[0], original))
        anchors = tuple(
            Version(
                title(row.codec),
                read_image(matched / f"{picture}-{row.codec}.png"),
                _note(row.bytes, original, row.psnr_db, row.ms_ssim),
                row.bytes,
            )
            for row in rows
            if row.picture == picture
        )
        plain = Version("original", original, f"{original.shape[1]} x {original.shape[0]}", 0)
        exhibits.append(Exhibit(picture, plain, tuple(cells), anchors, leader))
    return exhibits


def draw_matched(exhibit: Exhibit, path: Path) -> None:
    """A strip: the whole original, then the crop of original, leading cell and anchors."""
    corner = busiest_corner(exhibit.original.image, CROP_PX)
    versions = [exhibit.original, exhibit.of_leader, *exhibit.anchors]
    whole = _framed(exhibit.original.image, corner)
    tiles = [_tile(whole, exhibit.picture, "the frame is shown beside")]
    tiles += [_tile(crop(one.image, corner, CROP_PX), one.name, one.note) for one in versions]
    _row(tiles).save(path, optimize=True)


def draw_cells(exhibit: Exhibit, path: Path, columns: int) -> None:
    """A grid: the crop of every cell in the order of the cells, the original before them.

    Args:
        exhibit: the picture.
        path: the PNG to write.
        columns: how many cells are in a row.
    """
    corner = busiest_corner(exhibit.original.image, CROP_PX)
    original = _tile(
        crop(exhibit.original.image, corner, CROP_PX), "original", exhibit.original.note
    )
    blank = Image.new("RGB", original.size, "white")
    rows = []
    for start in range(0, len(exhibit.cells), columns):
        cells = exhibit.cells[start : start + columns]
        tiles = [_tile(crop(one.image, corner, CROP_PX), one.name, one.note) for one in cells]
        rows.append(_row([original if start == 0 else blank, *tiles]))
    page = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for index, row in enumerate(rows):
        page.paste(row, (0, index * row.height))
    page.save(path, optimize=True)


def labelled_row(versions: Mapping[str, RgbArray]) -> RgbArray:
    """Small pictures beside each other, each under its name, as one picture."""
    return np.asarray(_row([_tile(image, name, "") for name, image in versions.items()]))


def _cell_version(comparison: Comparison, cell: str, path: Path, original: RgbArray) -> Version:
    picture, _, point = path.stem.rpartition("-")
    for row in comparison.cells[cell]:
        if (row.picture, str(row.point)) == (picture, point):
            note = _note(row.bytes, original, row.psnr_db, row.ms_ssim)
            return Version(cell, read_image(path), note, row.bytes)
    raise DataError(f"{path} is not in the table of {cell}")


def _note(size: int, original: RgbArray, psnr_db: float, ms_ssim: float) -> str:
    bpp = 8 * size / (original.shape[0] * original.shape[1])
    words = f"{bpp:.3f}_bpp · {psnr_db:.1f}_dB · {float(to_db(ms_ssim)):.1f}_dB"
    return words.replace("_", "\N{NO-BREAK SPACE}")


def _framed(image: RgbArray, corner: tuple[int, int]) -> RgbArray:
    """The whole picture at the height of a crop, with the crop outlined."""
    scale = CROP_PX / image.shape[0]
    size = (max(round(image.shape[1] * scale), 1), CROP_PX)
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    top, left = (round(value * scale) for value in corner)
    side = round(CROP_PX * scale)
    box = (left, top, min(left + side, size[0] - 1), min(top + side, size[1] - 1))
    ImageDraw.Draw(small).rectangle(box, outline=(255, 220, 0), width=2)
    return np.asarray(small)


def _tile(image: RgbArray, name: str, note: str) -> Image.Image:
    """A picture with two lines of text above it."""
    width = max(image.shape[1], CROP_PX)
    tile = Image.new("RGB", (width, max(image.shape[0], CROP_PX) + 2 * LINE_PX), "white")
    draw = ImageDraw.Draw(tile)
    draw.text((0, 0), name, fill=INK, font=_font(13, bold=True))
    draw.text((0, LINE_PX - 1), note, fill=PALE, font=_font(11, bold=False))
    tile.paste(Image.fromarray(image), (0, 2 * LINE_PX))
    return tile


def _row(tiles: Sequence[Image.Image]) -> Image.Image:
    width = sum(tile.width for tile in tiles) + GAP_PX * (len(tiles) + 1)
    row = Image.new("RGB", (width, tiles[0].height + GAP_PX), "white")
    left = GAP_PX
    for tile in tiles:
        row.paste(tile, (left, 0))
        left += tile.width + GAP_PX
    return row


@functools.cache
def _font(size: int, *, bold: bool) -> FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    from matplotlib import font_manager

    weight = "bold" if bold else "normal"
    found = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight))
    return ImageFont.truetype(found, size)
