"""The report's section on bit errors: what decodes, how it looks, beside the classical codecs.

artifacts/studies/robustness/*/errors.csv --> Summary rows --> a table, a figure of curves, pictures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from linocut.lab.evaluation.rows import CLASSICAL, CLASSICAL_CELL, LEARNED, ErrorRow, read_rows
from linocut.lab.report.figures import Lines, Series
from linocut.lab.report.side_by_side import CROP_PX, labelled_row
from linocut.pictures.crop import busiest_corner, crop
from linocut.pictures.image import RgbArray, read_image, write_png

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
class Summary:
    """All trials of one arm at one bit error rate; quantiles are of PSNR in dB and of MS-SSIM."""

    cell: str
    arm: str
    errors_in: str
    ber: float
    trials: int
    decoded: float
    psnr_low: float
    psnr_median: float
    psnr_high: float
    ms_ssim_median: float
    bpp: float


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


def summarise(folder: Path) -> list[Summary]:
    """Medians and 5 % and 95 % quantiles over pictures and trials; nothing if there is no cell.

    The undamaged files are in it twice, once for each place of errors, at a rate of 0.
    """
    cells = sorted(path.parent.name for path in folder.glob("*/errors.csv"))
    if cells == [CLASSICAL_CELL]:  # nothing to compare it with
        return []
    found = []
    for cell in sorted(cells, key=lambda name: name == CLASSICAL_CELL):
        rows = read_rows(folder / cell / "errors.csv", ErrorRow)
        arms = list(dict.fromkeys(row.arm for row in rows))
        for errors_in in WHERE:
            chosen = [row for row in rows if row.errors_in in (errors_in, "none")]
            found += [
                _summary(cell, errors_in, [r for r in chosen if (r.arm, r.ber) == (arm, ber)])
                for arm in arms
                for ber in sorted({row.ber for row in chosen})
            ]
    return found


def _summary(cell: str, errors_in: str, rows: Sequence[ErrorRow]) -> Summary:
    low, median, high = np.quantile([row.psnr_db for row in rows], [0.05, 0.5, 0.95]).tolist()
    return Summary(
        cell, rows[0].arm, errors_in, rows[0].ber, len(rows),
        float(np.mean([row.decoded for row in rows])), low, median, high,
        float(np.median([row.ms_ssim for row in rows])),
        float(np.mean([row.bpp for row in rows])),
    )  # fmt: skip


def lines(folder: Path) -> Lines | None:
    """Median PSNR against the bit error rate, a column for each place of errors."""
    rows = summarise(folder)
    if not rows:
        return None
    panels = {
        place: [
            _series(_name(cell, arm), [r for r in rows if (r.cell, r.arm) == (cell, arm)], place)
            for cell, arm in dict.fromkeys((row.cell, row.arm) for row in rows)
        ]
        for place in WHERE
    }
    return Lines(
        heading="Bit errors: curves",
        caption="Median PSNR of files of one rate against the rate of wrong bits, as a power of "
        "ten; -7 stands for no errors. Left: bits wrong behind the header, right: anywhere. What "
        "does not decode counts as a grey picture.",
        xlabel="bit error rate, power of ten",
        rows={"PSNR [dB]": {WHERE[place]: series for place, series in panels.items()}},
    )


def _series(name: str, rows: Sequence[Summary], place: str) -> Series:
    points = [(max(row.ber, _CLEAN), row.psnr_median) for row in rows if row.errors_in == place]
    x, y = np.array(points).T
    return Series(name, np.log10(x), y)


def _name(cell: str, arm: str) -> str:
    return TITLES[arm] if cell == CLASSICAL_CELL else f"{TITLES[arm]} ({cell})"


def section(folder: Path, plots: Path) -> str:
    """The section as Markdown, its pictures drawn into `plots`; empty if nothing was measured."""
    rows = summarise(folder)
    if not rows:
        return ""
    names = ["bit_errors.png"]
    for one in damaged(folder):
        names.append(f"bit-errors-{one.cell}-{one.rate}.png")
        titled = {TITLES[arm]: image for arm, image in one.crops.items()}
        write_png(plots / names[-1], labelled_row(titled))
    rate = np.mean([row.bpp for row in rows])
    parts = [
        "## Bit errors\n",
        f"Files of at most the same rate (mean {rate:.2f} bpp, headers and protection included), "
        f"bits wrong at random; {rows[-1].trials} trials at each rate. Each entry: median PSNR in "
        "dB, 5 % quantile, share that decodes. What does not decode counts as a grey picture.\n",
    ]
    for place, words in WHERE.items():
        parts += [f"### Bits wrong {words}\n", _table([r for r in rows if r.errors_in == place])]
    parts += [f"![Bit errors](plots/{name})\n" for name in names]
    return "\n" + "\n".join(parts)


def _table(rows: Sequence[Summary]) -> str:
    rates = sorted({row.ber for row in rows})
    names = ["no errors" if rate == 0 else f"{rate:g}" for rate in rates]
    text = [f"| arm | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for cell, arm in dict.fromkeys((row.cell, row.arm) for row in rows):
        found = {row.ber: row for row in rows if (row.cell, row.arm) == (cell, arm)}
        cells = [_entry(found[rate]) for rate in rates]
        text.append(f"| {_name(cell, arm)} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def _entry(row: Summary) -> str:
    if row.ber == 0:
        return f"{row.psnr_median:.1f}"
    return f"{row.psnr_median:.1f}, {row.psnr_low:.1f}, {100 * row.decoded:.0f} %"


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
