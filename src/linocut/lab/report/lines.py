"""Curves of the report that are not about rate and quality: trainings, and PCA energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from linocut.lab.evaluation.rd import Floats
from linocut.lab.evaluation.rows import read_rows
from linocut.lab.report import figures
from linocut.lab.report.line_figures import Lines, Series


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


def training(cells: Sequence[str], trained: Path) -> Lines | None:
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


def energy(cells: Sequence[str], rotated: Path) -> Lines | None:
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


def _left_out(variances: Sequence[float]) -> Floats:
    """Share of the energy outside the 1, 2, ... strongest of n channels, (n - 1,)."""
    weakest_first = np.cumsum(np.sort(variances))
    return np.asarray(weakest_first[:-1][::-1] / max(weakest_first[-1], 1e-12))


def _by_architecture(
    lines: Mapping[str, tuple[Floats, Floats]],
) -> dict[str, list[Series]]:
    return {
        arch: [Series(figures.loss_of(cell), *lines[cell]) for cell in group]
        for arch, group in figures.architectures(tuple(lines)).items()
    }
