"""Figures of lines by loss: training, energy compaction, bit errors, what else has an x axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from linocut.lab.evaluation.rd import Floats
from linocut.lab.report.curve_labels import label_ends
from linocut.lab.report.figures import COLOURS, OTHER_COLOURS, save, set_title, small_multiples


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
