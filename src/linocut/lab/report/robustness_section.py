"""The report's section on bit errors: what decodes, how it looks, beside the classical codecs.

artifacts/studies/robustness/*/errors.csv, pictures/ --> a table, a figure of curves, pictures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from linocut.lab.evaluation.rows import CLASSICAL, CLASSICAL_CELL, LEARNED, ErrorRow, read_rows
from linocut.lab.report.figures import Lines, Series
from linocut.lab.report.side_by_side import CROP_PX, labelled_row
from linocut.lab.report.tables import markdown_table
from linocut.pictures.image import RgbArray, busiest_corner, crop, read_image, write_png

TITLES = {
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


def table(folder: Path) -> pd.DataFrame:
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


def lines(table: pd.DataFrame) -> Lines | None:
    """Median PSNR against the bit error rate, a column for each place of errors."""
    if table.empty:
        return None
    panels: dict[str, list[Series]] = {words: [] for words in WHERE.values()}
    for (place, cell, arm), rows in table.groupby(["errors_in", "cell", "arm"], sort=False):
        rows = rows.sort_values("ber")
        x = np.log10(np.maximum(rows["ber"].to_numpy(), _CLEAN))
        panels[WHERE[place]].append(Series(_name(cell, arm), x, rows["psnr_median"].to_numpy()))
    return Lines(
        heading="Bit errors: curves",
        caption="Median PSNR of files of one rate against the rate of wrong bits, as a power of "
        "ten; -7 stands for no errors. Left: bits wrong behind the header, right: anywhere. What "
        "does not decode counts as a grey picture.",
        xlabel="bit error rate, power of ten",
        rows={"PSNR [dB]": panels},
    )


def _name(cell: str, arm: str) -> str:
    return TITLES[arm] if cell == CLASSICAL_CELL else f"{TITLES[arm]} ({cell})"


def text(table: pd.DataFrame, pictures: Sequence[str]) -> list[str]:
    """The section as Markdown; nothing if nothing was measured.

    Args:
        table: what `table` found.
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
            rows.append([_name(cell, arm), *(_entry(at[rate]) for rate in rates)])
        names = ["no errors" if rate == 0 else f"{rate:g}" for rate in rates]
        parts += [f"### Bits wrong {words}\n", markdown_table(["arm", *names], rows), ""]
    shown = [name for name in pictures if name.startswith("bit-errors-")]
    return parts + [f"![Bit errors](plots/{name})\n" for name in ("bit_errors.png", *shown)]


def _entry(row: Any) -> str:
    if row.ber == 0:
        return f"{row.psnr_median:.1f}"
    return f"{row.psnr_median:.1f}, {row.psnr_low:.1f}, {100 * row.decoded:.0f} %"


def draw(folder: Path, plots: Path) -> None:
    """A PNG of crops for every cell, picture and bit error rate."""
    for one in damaged(folder):
        titled = {TITLES[arm]: image for arm, image in one.crops.items()}
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


def galleries(folder: Path) -> dict[str, dict[str, RgbArray]]:
    """Crops by name of the arm, by what the crops are of: the rows of one picture and rate."""
    found: dict[str, dict[str, RgbArray]] = {}
    for one in sorted(damaged(folder), key=lambda one: (one.picture, float(one.rate))):
        gallery = found.setdefault(f"{one.picture}, bit error rate {float(one.rate):g}", {})
        learned = {_name(one.cell, arm): one.crops[arm] for arm in LEARNED}
        classical = {arm: gallery.pop(TITLES[arm], one.crops[arm]) for arm in CLASSICAL}
        gallery |= learned | {TITLES[arm]: image for arm, image in classical.items()}
    return found
