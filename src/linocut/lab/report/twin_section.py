"""The report's section on twin decoders: what an adversary changes in pictures of the same files.

artifacts/studies/twin/*/{scores,frechet,gate}.csv, crops/, adversarial/history.csv
    --> tables, verdict, curves, pictures
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from linocut.lab.evaluation.rd import percentile_interval, resample_pictures
from linocut.lab.evaluation.rows import (
    TWIN_DECODERS,
    FrechetRow,
    GateRow,
    TwinRow,
    read_rows,
)
from linocut.lab.report.figures import Lines, Series
from linocut.lab.report.side_by_side import labelled_row
from linocut.lab.report.tables import markdown_table
from linocut.pictures.image import RgbArray, read_image, write_png

SCORES = {
    "psnr_db": "PSNR [dB]",
    "ssimulacra2": "SSIMULACRA 2",
    "feature_distance": "feature distance",
}
"""Of single pictures, in the order of the table."""
FRECHET = "frechet_distance"
DRAWS = 2000
SEED = 0
"""Of the draws behind the intervals."""

_GAME = {
    "discriminator's loss": "discriminator_loss",
    "discriminator's accuracy": "discriminator_accuracy",
}
_TEXT = """\
The files of {cell} through its own decoder (plain), and through two that were trained further for
the same length on the same crops and costs: one without an adversary (twin), one with. The controls
need no training: they are made of the plain decodings. Changes are against plain, with 95 %
intervals over the pictures. The feature distance compares places of decoded and original pictures
by features of EfficientNet-Lite1, which no training saw, and is the guard: noise worsens it. The
Frechet distance compares the means and covariances of such features over all patches of 16 px; it
is not FID. Lower is better for both. An adversary has earned its place where it lowers the Frechet
distance by more than twin and controls do, and the guard does not rise.
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
    """Every score of every decoder and control at each rate, and its change against a reference.

    Columns: cell, point, bpp, decoder, score, value, reference, change, low, high. Changes of
    scores of single pictures are mean differences to plain, those of the Frechet distance are in
    per cent, of the adversarial decoder against its twin, too.
    """
    found = []
    for twins in read_twins(folder):
        frechet = read_rows(folder / twins.cell / "frechet.csv", FrechetRow)
        for point, rows in pd.DataFrame(twins.rows).groupby("point"):
            draws = resample_pictures(rows["picture"].nunique(), DRAWS, SEED)
            at = {"cell": twins.cell, "point": point, "bpp": rows["bpp"].mean()}
            for score in SCORES:
                by = rows.pivot(index="picture", columns="decoder", values=score)
                for decoder in dict.fromkeys(rows["decoder"]):
                    change = (by[decoder] - by["plain"]).to_numpy()
                    interval = percentile_interval(float(change.mean()), change[draws].mean(1))
                    found.append(
                        at
                        | {"decoder": decoder, "score": score, "value": by[decoder].mean()}
                        | {"reference": "plain", "change": interval.estimate}
                        | {"low": interval.low, "high": interval.high}
                    )
            for row in frechet:
                if row.point == point:
                    bounds = {"change": row.ratio, "low": row.low, "high": row.high}
                    found.append(
                        at
                        | {"decoder": row.decoder, "score": FRECHET}
                        | {"value": row.frechet_distance, "reference": row.reference}
                        | {name: 100.0 * (ratio - 1.0) for name, ratio in bounds.items()}
                    )
    return pd.DataFrame(found)


def gates(folder: Path) -> pd.DataFrame:
    """By cell, the conditions of a training that has taught, and whether they are met."""
    rows = [
        {"cell": twins.cell} | dataclasses.asdict(row)
        for twins in read_twins(folder)
        for row in read_rows(folder / twins.cell / "gate.csv", GateRow)
    ]
    return pd.DataFrame(rows)


def verdict(gate: pd.DataFrame) -> list[str]:
    """Whether the adversary taught, as Markdown."""
    failed = (gate["verdict"] != "passed").any()
    head = (
        "**The adversary taught nothing that can be told here:** a condition failed.\n"
        if failed
        else "**The adversary taught:** all conditions are met.\n"
    )
    lines = [f"- {row.verdict}: {row.condition}: {row.value:.4g}" for row in gate.itertuples()]
    return [head, *lines, ""]


def markdown(found: pd.DataFrame) -> str:
    """The table of one cell: a row for each decoder and control at each rate."""
    rows = []
    for _, at in found.groupby("point"):
        for decoder in dict.fromkeys(at["decoder"]):
            mine = at[at["decoder"] == decoder]
            cells = [f"{decoder}, {at['bpp'].iloc[0]:.3f} bpp"]
            for score in SCORES:
                cells.append(_cell(mine[mine["score"] == score].iloc[0], decoder, 3))
            frechet = mine[mine["score"] == FRECHET]
            cells.append(_cell(frechet[frechet["reference"] == "plain"].iloc[0], decoder, 0))
            against = frechet[frechet["reference"] == "twin"]
            cells.append("" if against.empty else _change(against.iloc[0], "%", 0))
            rows.append(cells)
    heads = ["decoder, rate", *SCORES.values(), "Frechet distance", "of it against the twin"]
    return markdown_table(heads, rows)


def _cell(row: pd.Series, decoder: str, digits: int) -> str:
    value = f"{row['value']:.4g}"
    unit = "%" if row["score"] == FRECHET else ""
    return value if decoder == "plain" else f"{value} ({_change(row, unit, digits)})"


def _change(row: pd.Series, unit: str, digits: int) -> str:
    change, low, high = (f"{row[name]:+.{digits}f}" for name in ("change", "low", "high"))
    space = "\N{NO-BREAK SPACE}" if unit else ""
    return f"{change}{space}{unit} [{low}, {high}]"


def text(table: pd.DataFrame, gates: pd.DataFrame, pictures: Sequence[str]) -> list[str]:
    """The section as Markdown, a part for each cell; nothing if there are no twins.

    Args:
        table: what `table` found.
        gates: what `gates` found.
        pictures: names of the PNGs that were drawn.
    """
    if table.empty:
        return []
    parts = []
    for cell, found in table.groupby("cell", sort=False):
        parts += [
            f"## Twin decoders of {cell}\n",
            _TEXT.format(cell=cell),
            *verdict(gates[gates["cell"] == cell]),
            markdown(found),
            "",
            *(
                f"![The same file, decoded by each](plots/{name})\n"
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
        if not set(_GAME.values()) <= set(history.columns):
            continue  # shorter than its own warm-up
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
