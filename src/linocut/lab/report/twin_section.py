"""The report's section on twin decoders: what an adversary changes in pictures of the same files.

artifacts/studies/twin/*/{scores.csv,crops/,adversarial/history.csv} --> tables, curves, pictures
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from linocut.lab.evaluation.rd import percentile_interval, resample_pictures
from linocut.lab.evaluation.rows import TWIN_DECODERS, TwinRow, read_rows
from linocut.lab.report.figures import Lines, Series
from linocut.lab.report.side_by_side import labelled_row
from linocut.lab.report.tables import markdown_table
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


def table(folder: Path) -> pd.DataFrame:
    """Mean scores of both decoders at each rate, and their difference with a 95 % interval."""
    found = []
    for twins in read_twins(folder):
        for point, rows in pd.DataFrame(twins.rows).groupby("point"):
            draws = resample_pictures(rows["picture"].nunique(), DRAWS, SEED)
            for score in SCORES:
                by = rows.pivot(index="picture", columns="decoder", values=score)
                change = (by["adversarial"] - by["plain"]).to_numpy()
                interval = percentile_interval(float(change.mean()), change[draws].mean(1))
                found.append(
                    {
                        "cell": twins.cell,
                        "point": point,
                        "bpp": rows["bpp"].mean(),
                        "score": score,
                        **by.mean(),
                        "difference": interval.estimate,
                        "low": interval.low,
                        "high": interval.high,
                    }
                )
    return pd.DataFrame(found)


def text(table: pd.DataFrame, pictures: Sequence[str]) -> list[str]:
    """The section as Markdown, a part for each cell; nothing if there are no twins.

    Args:
        table: what `table` found.
        pictures: names of the PNGs that were drawn.
    """
    if table.empty:
        return []
    parts = []
    for cell, found in table.groupby("cell", sort=False):
        rows = []
        for _, at in found.groupby("point"):
            bpp = at["bpp"].iloc[0]
            for decoder in TWIN_DECODERS:
                rows.append([f"{decoder}, {bpp:.3f} bpp", *(f"{mean:.4g}" for mean in at[decoder])])
            rows.append(["difference", *(
                f"{row.difference:+.3g} [{row.low:+.2g}, {row.high:+.2g}]"
                for row in at.itertuples()
            )])  # fmt: skip
        parts += [
            f"## Twin decoders of {cell}\n",
            _TEXT.format(cell=cell),
            markdown_table(["decoder, rate", *SCORES.values()], rows),
            "",
            *(
                f"![The same file, decoded by both](plots/{name})\n"
                for name in pictures
                if name.startswith(f"twin-{cell}-")
            ),
        ]
    return [*parts, "![The adversary's training](plots/twin.png)\n"]


def draw(folder: Path, plots: Path) -> None:
    """A PNG of crops for every cell and picture."""
    for twins in read_twins(folder):
        for picture, versions in twins.crops.items():
            write_png(plots / f"twin-{twins.cell}-{picture}.png", labelled_row(dict(versions)))


def lines(folder: Path) -> Lines | None:
    """How well the discriminator told the decoded crops from the original ones."""
    curves: dict[str, dict[str, list[Series]]] = {label: {} for label in _GAME}
    for twins in read_twins(folder):
        loss = twins.cell.partition("-")[2]
        path = folder / twins.cell / "adversarial" / "history.csv"
        history = pd.read_csv(path)
        for label, column in _GAME.items():
            known = history.dropna(subset=[column])
            x, y = (np.asarray(known[name], np.float64) for name in ("megapixels", column))
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
