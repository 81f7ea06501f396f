"""Names of curves at their ends instead of a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GREY, FAINT = "#222222", "#8a8a8a", "#b9b9b9"
"""Text, reference curves, published curves."""

LINE_PT = 12.0
"""Distance of neighbouring names, points."""


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
