"""The report's sections on twin decoders and on bit errors, each from what its stage left.

artifacts/studies/twin/*/{scores,frechet,gate}.csv, crops/, adversarial/history.csv
    --> what an adversary changes in pictures of the same files: tables, verdict, curves, pictures
artifacts/studies/robustness/*/errors.csv, pictures/
    --> what decodes, beside the classical codecs: a table, curves, pictures
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from linocut.lab.evaluation.rd import percentile_interval, resample_pictures
from linocut.lab.evaluation.rows import (
    CLASSICAL,
    CLASSICAL_CELL,
    LEARNED,
    TWIN_DECODERS,
    ErrorRow,
    FrechetRow,
    GateRow,
    TwinRow,
    read_rows,
)
from linocut.lab.report.figures import CROP_PX, Lines, Series, labelled_row
from linocut.lab.report.tables import markdown_table
from linocut.pictures.image import RgbArray, busiest_corner, crop, read_image, write_png

# --- twin decoders --------------------------------------------------------------------------------

SCORES = {
    "psnr_db": "PSNR [dB]",
    "ssimulacra2": "SSIMULACRA 2",
    "feature_distance": "feature distance",
}
"""Of single pictures, in the order of the table."""
FRECHET = "frechet_distance"
DRAWS = 2000
DRAWS_SEED = 0
"""Of the draws behind the intervals."""

_GAME = {
    "discriminator's loss": "discriminator_loss",
    "discriminator's accuracy": "discriminator_accuracy",
}
_TWIN_TEXT = """\
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


def twin_table(folder: Path) -> pd.DataFrame:
    """Every score of every decoder and control at each rate, and its change against a reference.

    Columns: cell, point, bpp, decoder, score, value, reference, change, low, high. Changes of
    scores of single pictures are mean differences to plain, those of the Frechet distance are in
    per cent, of the adversarial decoder against its twin, too.
    """
    found = []
    for twins in read_twins(folder):
        frechet = read_rows(folder / twins.cell / "frechet.csv", FrechetRow)
        for point, rows in pd.DataFrame(twins.rows).groupby("point"):
            draws = resample_pictures(rows["picture"].nunique(), DRAWS, DRAWS_SEED)
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


def twin_gates(folder: Path) -> pd.DataFrame:
    """By cell, the conditions of a training that has taught, and whether they are met."""
    rows = [
        {"cell": twins.cell} | dataclasses.asdict(row)
        for twins in read_twins(folder)
        for row in read_rows(folder / twins.cell / "gate.csv", GateRow)
    ]
    return pd.DataFrame(rows)


def _verdict(gate: pd.DataFrame) -> list[str]:
    """Whether the adversary taught, as Markdown."""
    failed = (gate["verdict"] != "passed").any()
    head = (
        "**The adversary taught nothing that can be told here:** a condition failed.\n"
        if failed
        else "**The adversary taught:** all conditions are met.\n"
    )
    lines = [f"- {row.verdict}: {row.condition}: {row.value:.4g}" for row in gate.itertuples()]
    return [head, *lines, ""]


def _twin_markdown(found: pd.DataFrame) -> str:
    """The table of one cell: a row for each decoder and control at each rate."""
    rows = []
    for _, at in found.groupby("point"):
        for decoder in dict.fromkeys(at["decoder"]):
            mine = at[at["decoder"] == decoder]
            cells = [f"{decoder}, {at['bpp'].iloc[0]:.3f} bpp"]
            for score in SCORES:
                cells.append(_score(mine[mine["score"] == score].iloc[0], decoder, 3))
            frechet = mine[mine["score"] == FRECHET]
            cells.append(_score(frechet[frechet["reference"] == "plain"].iloc[0], decoder, 0))
            against = frechet[frechet["reference"] == "twin"]
            cells.append("" if against.empty else _change(against.iloc[0], "%", 0))
            rows.append(cells)
    heads = ["decoder, rate", *SCORES.values(), "Frechet distance", "of it against the twin"]
    return markdown_table(heads, rows)


def _score(row: pd.Series, decoder: str, digits: int) -> str:
    value = f"{row['value']:.4g}"
    unit = "%" if row["score"] == FRECHET else ""
    return value if decoder == "plain" else f"{value} ({_change(row, unit, digits)})"


def _change(row: pd.Series, unit: str, digits: int) -> str:
    change, low, high = (f"{row[name]:+.{digits}f}" for name in ("change", "low", "high"))
    space = "\N{NO-BREAK SPACE}" if unit else ""
    return f"{change}{space}{unit} [{low}, {high}]"


def twin_text(table: pd.DataFrame, gates: pd.DataFrame, pictures: Sequence[str]) -> list[str]:
    """The section as Markdown, a part for each cell; nothing if there are no twins.

    Args:
        table: what `twin_table` found.
        gates: what `twin_gates` found.
        pictures: names of the PNGs that were drawn.
    """
    if table.empty:
        return []
    parts = []
    for cell, found in table.groupby("cell", sort=False):
        parts += [
            f"## Twin decoders of {cell}\n",
            _TWIN_TEXT.format(cell=cell),
            *_verdict(gates[gates["cell"] == cell]),
            _twin_markdown(found),
            "",
            *(
                f"![The same file, decoded by each](plots/{name})\n"
                for name in pictures
                if name.startswith(f"twin-{cell}-")
            ),
        ]
    return [*parts, "![The adversary's training](plots/twin.png)\n"]


def draw_twins(folder: Path, plots: Path) -> None:
    """A PNG of crops for every cell and picture."""
    for twins in read_twins(folder):
        for picture, versions in twins.crops.items():
            write_png(plots / f"twin-{twins.cell}-{picture}.png", labelled_row(dict(versions)))


def twin_lines(folder: Path) -> Lines | None:
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


def twin_galleries(folder: Path) -> dict[str, dict[str, RgbArray]]:
    """Crops by version, by what the crops are of."""
    found = {}
    for twins in read_twins(folder):
        rate = {row.picture: row.bpp for row in twins.rows if row.point == 0}
        for picture, versions in twins.crops.items():
            title = f"{picture}, one file of {twins.cell} at {rate[picture]:.3f} bpp"
            found[title] = dict(versions)
    return found


# --- bit errors -----------------------------------------------------------------------------------

ARMS = {
    "fixed": "fixed-length latents",
    "lino": ".lino, checksum ignored",
    "resilient": ".lino, resilient",
    "jpeg": "JPEG",
    "jpeg_restart": "JPEG, restart markers",
    "jpeg2000": "JPEG 2000",
}
WHERE = {"payload": "behind the header", "all": "anywhere"}
_CLEAN = 1e-7
"""Where curves of logarithms show the undamaged file."""


@dataclass(frozen=True)
class Damaged:
    """A crop of one picture with bits wrong behind the header, as every arm decodes it.

    Attributes:
        cell: whose learned arms these are.
        picture: its name.
        rate: of bit errors, as in the names of files.
        crops: (h, w, 3) uint8 by arm, learned ones first.
    """

    cell: str
    picture: str
    rate: str
    crops: dict[str, RgbArray]


def damage_table(folder: Path) -> pd.DataFrame:
    """All trials of each arm at each bit error rate: medians, and outer quantiles of PSNR.

    The undamaged files are in it twice, once for each place of errors, at a rate of 0. Nothing if
    no cell was studied: classical codecs alone are nothing to compare.
    """
    cells = sorted(path.parent.name for path in folder.glob("*/errors.csv"))
    cells.sort(key=lambda name: name == CLASSICAL_CELL)
    if cells in ([], [CLASSICAL_CELL]):
        return pd.DataFrame()
    found = []
    for cell in cells:
        trials = pd.DataFrame(read_rows(folder / cell / "errors.csv", ErrorRow))
        for place in WHERE:
            chosen = trials[trials["errors_in"].isin((place, "none"))]
            for (arm, ber), rows in chosen.groupby(["arm", "ber"], sort=False):
                low, median, high = np.quantile(rows["psnr_db"], [0.05, 0.5, 0.95])
                found.append(
                    {
                        "cell": cell,
                        "arm": arm,
                        "errors_in": place,
                        "ber": ber,
                        "trials": len(rows),
                        "decoded": rows["decoded"].mean(),
                        "psnr_low": low,
                        "psnr_median": median,
                        "psnr_high": high,
                        "ms_ssim_median": rows["ms_ssim"].median(),
                        "bpp": rows["bpp"].mean(),
                    }
                )
    return pd.DataFrame(found)


def damage_lines(table: pd.DataFrame) -> Lines | None:
    """Median PSNR against the bit error rate, a column for each place of errors."""
    if table.empty:
        return None
    panels: dict[str, list[Series]] = {words: [] for words in WHERE.values()}
    for (place, cell, arm), rows in table.groupby(["errors_in", "cell", "arm"], sort=False):
        rows = rows.sort_values("ber")
        x = np.log10(np.maximum(rows["ber"].to_numpy(), _CLEAN))
        panels[WHERE[place]].append(Series(_arm(cell, arm), x, rows["psnr_median"].to_numpy()))
    return Lines(
        heading="Bit errors: curves",
        caption="Median PSNR of files of one rate against the rate of wrong bits, as a power of "
        "ten; -7 stands for no errors. Left: bits wrong behind the header, right: anywhere. What "
        "does not decode counts as a grey picture.",
        xlabel="bit error rate, power of ten",
        rows={"PSNR [dB]": panels},
    )


def _arm(cell: str, arm: str) -> str:
    return ARMS[arm] if cell == CLASSICAL_CELL else f"{ARMS[arm]} ({cell})"


def damage_text(table: pd.DataFrame, pictures: Sequence[str]) -> list[str]:
    """The section as Markdown; nothing if nothing was measured.

    Args:
        table: what `damage_table` found.
        pictures: names of the PNGs that were drawn.
    """
    if table.empty:
        return []
    parts = [
        "## Bit errors\n",
        f"Files of at most the same rate (mean {table['bpp'].mean():.2f} bpp, headers and "
        f"protection included), bits wrong at random; {table['trials'].iloc[-1]} trials at each "
        "rate. Each entry: median PSNR in dB, 5 % quantile, share that decodes. What does not "
        "decode counts as a grey picture.\n",
    ]
    for place, words in WHERE.items():
        here = table[table["errors_in"] == place]
        rates = sorted(here["ber"].unique())
        rows = []
        for (cell, arm), found in here.groupby(["cell", "arm"], sort=False):
            at = {row.ber: row for row in found.itertuples()}
            rows.append([_arm(cell, arm), *(_entry(at[rate]) for rate in rates)])
        names = ["no errors" if rate == 0 else f"{rate:g}" for rate in rates]
        parts += [f"### Bits wrong {words}\n", markdown_table(["arm", *names], rows), ""]
    shown = [name for name in pictures if name.startswith("bit-errors-")]
    return parts + [f"![Bit errors](plots/{name})\n" for name in ("bit_errors.png", *shown)]


def _entry(row: Any) -> str:
    if row.ber == 0:
        return f"{row.psnr_median:.1f}"
    return f"{row.psnr_median:.1f}, {row.psnr_low:.1f}, {100 * row.decoded:.0f} %"


def draw_damage(folder: Path, plots: Path) -> None:
    """A PNG of crops for every cell, picture and bit error rate."""
    for one in damaged(folder):
        titled = {ARMS[arm]: image for arm, image in one.crops.items()}
        write_png(plots / f"bit-errors-{one.cell}-{one.rate}.png", labelled_row(titled))


def damaged(folder: Path) -> list[Damaged]:
    """The pictures that the study kept, damaged ones only, for each cell and bit error rate."""
    found = []
    for cell in sorted(path.parent.name for path in folder.glob("*/pictures")):
        kept = folder / cell / "pictures"
        for path in sorted(kept.glob("*-resilient-*.png")):
            picture, rate = path.stem.split("-resilient-")
            files = {arm: kept / f"{picture}-{arm}-{rate}.png" for arm in LEARNED}
            for arm in CLASSICAL:
                files[arm] = folder / CLASSICAL_CELL / "pictures" / f"{picture}-{arm}-{rate}.png"
            if float(rate) == 0 or not all(file.is_file() for file in files.values()):
                continue
            corner = busiest_corner(read_image(kept / f"{picture}-lino-0.png"), CROP_PX)
            crops = {arm: crop(read_image(file), corner, CROP_PX) for arm, file in files.items()}
            found.append(Damaged(cell, picture, rate, crops))
    return found


def damage_galleries(folder: Path) -> dict[str, dict[str, RgbArray]]:
    """Crops by name of the arm, by what the crops are of: the rows of one picture and rate."""
    found: dict[str, dict[str, RgbArray]] = {}
    for one in sorted(damaged(folder), key=lambda one: (one.picture, float(one.rate))):
        gallery = found.setdefault(f"{one.picture}, bit error rate {float(one.rate):g}", {})
        learned = {_arm(one.cell, arm): one.crops[arm] for arm in LEARNED}
        classical = {arm: gallery.pop(ARMS[arm], one.crops[arm]) for arm in CLASSICAL}
        gallery |= learned | {ARMS[arm]: image for arm, image in classical.items()}
    return found
