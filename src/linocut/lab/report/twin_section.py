"""The report's section on twin decoders: what an adversary changes in pictures of the same files.

artifacts/studies/twin/*/{scores.csv,crops/,adversarial/history.csv} --> tables, curves, pictures
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from linocut.lab.evaluation.rd import Interval, percentile_interval, resample_pictures
from linocut.lab.evaluation.rows import TWIN_DECODERS, TwinRow, read_rows
from linocut.lab.report.figures import Lines, Series
from linocut.lab.report.side_by_side import labelled_row
from linocut.pictures.image import RgbArray, read_image, write_png

SCORES = {
    "psnr_db": "PSNR [dB]",
    "ms_ssim": "MS-SSIM",
    "ssimulacra2": "SSIMULACRA 2",
    "patch_distance": "patch distance",
}
DRAWS = 2000
SEED = 0
"""Of the draws behind the intervals."""

_GAME = {
    "discriminator's loss": "discriminator_loss",
    "discriminator's accuracy": "discriminator_accuracy",
}
_TEXT = """\
The files of {cell}, decoded by two networks that were trained for the same length on the same
crops, from the cell's own decoder on: without and with an adversary. Mean over the pictures;
difference: adversarial - plain, with a 95 % interval over the pictures. Patch distance: of the
distributions of small patches, in thousandths, lower is better; it asks for the right textures, not
for the right pixels.
"""


@dataclass(frozen=True)
class Twins:
    """What one cell's twins gave.

    Attributes:
        cell: whose files.
        rows: scores of all files.
        crops: (h, w, 3) uint8 at the lowest rate, by version, by picture.
    """

    cell: str
    rows: Sequence[TwinRow]
    crops: Mapping[str, Mapping[str, RgbArray]]


def read_twins(folder: Path) -> list[Twins]:
    """The cells that have twins, in the order of their names."""
    found = []
    for file in sorted(folder.glob("*/scores.csv")):
        rows = read_rows(file, TwinRow)
        crops: dict[str, dict[str, RgbArray]] = {}
        for picture in dict.fromkeys(row.picture for row in rows):
            for version in ("original", *TWIN_DECODERS):
                path = file.parent / "crops" / f"{picture}-{version}.png"
                if path.is_file():
                    crops.setdefault(picture, {})[version] = read_image(path)
        found.append(Twins(file.parent.name, rows, crops))
    return found


def differences(rows: Sequence[TwinRow]) -> dict[tuple[int, str], Interval]:
    """Adversarial minus plain with a 95 % interval over pictures, by (point, score)."""
    found = {}
    for point in sorted({row.point for row in rows}):
        by = {(row.decoder, row.picture): row for row in rows if row.point == point}
        pictures = sorted({picture for _, picture in by})
        draws = resample_pictures(len(pictures), DRAWS, SEED)
        for score in SCORES:
            values = {
                decoder: np.array([getattr(by[decoder, name], score) for name in pictures])
                for decoder in TWIN_DECODERS
            }
            change = values["adversarial"] - values["plain"]
            found[point, score] = percentile_interval(float(change.mean()), change[draws].mean(1))
    return found


def table(rows: Sequence[TwinRow]) -> str:
    """Scores of both decoders at each rate, and their difference, in Markdown."""
    changes = differences(rows)
    lines = [
        f"| decoder, rate | {' | '.join(SCORES.values())} |",
        f"| --- |{' ---: |' * len(SCORES)}",
    ]
    for point in sorted({row.point for row in rows}):
        for decoder in TWIN_DECODERS:
            mine = [row for row in rows if (row.decoder, row.point) == (decoder, point)]
            bpp = np.mean([row.bpp for row in mine])
            means = [float(np.mean([getattr(row, score) for row in mine])) for score in SCORES]
            cells = " | ".join(f"{value:.4g}" for value in means)
            lines.append(f"| {decoder}, {bpp:.3f} bpp | {cells} |")
        cells = " | ".join(_signed(changes[point, score]) for score in SCORES)
        lines.append(f"| difference | {cells} |")
    return "\n".join(lines) + "\n"


def _signed(change: Interval) -> str:
    return f"{change.estimate:+.3g} [{change.low:+.2g}, {change.high:+.2g}]"


def section(folder: Path, plots: Path) -> str:
    """The section as Markdown, its pictures drawn into `plots`; empty if there are no twins."""
    parts = []
    for twins in read_twins(folder):
        parts += [f"## Twin decoders of {twins.cell}\n", _TEXT.format(cell=twins.cell)]
        parts.append(table(twins.rows))
        for picture, versions in twins.crops.items():
            name = f"twin-{twins.cell}-{picture}.png"
            write_png(plots / name, labelled_row(dict(versions)))
            parts.append(f"![The same file, decoded by both](plots/{name})\n")
    if parts:
        parts.append("![The adversary's training](plots/twin.png)\n")
    return "\n" + "\n".join(parts) if parts else ""


def lines(folder: Path) -> Lines | None:
    """How well the discriminator told the decoded crops from the original ones."""
    curves: dict[str, dict[str, list[Series]]] = {label: {} for label in _GAME}
    for twins in read_twins(folder):
        loss = twins.cell.partition("-")[2]
        path = folder / twins.cell / "adversarial" / "history.csv"
        with path.open(encoding="utf-8", newline="") as file:
            history = list(csv.DictReader(file))
        for label, column in _GAME.items():
            points = [(float(r["megapixels"]), float(r[column])) for r in history if r[column]]
            x, y = np.array(points).T
            curves[label][twins.cell] = [Series(loss, x, y)]
    if not any(curves.values()):
        return None
    return Lines(
        heading="Twin decoders: the adversary's training",
        caption="Shown an original crop and its decoded version, the discriminator says which is "
        "which; an accuracy of one half is guessing.",
        xlabel="megapixels seen",
        rows=curves,
    )


def galleries(folder: Path) -> dict[str, dict[str, RgbArray]]:
    """Crops by version, by what the crops are of."""
    found = {}
    for twins in read_twins(folder):
        rate = {row.picture: row.bpp for row in twins.rows if row.point == 0}
        for picture, versions in twins.crops.items():
            title = f"{picture}, one file of {twins.cell} at {rate[picture]:.3f} bpp"
            found[title] = dict(versions)
    return found
