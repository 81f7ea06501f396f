"""Whether the report's tables of bit errors follow from errors.csv; part of `verify.py`.

The trials themselves are not run again here: they are seeded, and `robustness` is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PLACES = {"Bits wrong behind the header": "payload", "Bits wrong anywhere": "all"}
TITLES = {
    "fixed-length latents": "fixed", ".lino, checksum ignored": "lino",
    ".lino, resilient": "resilient", "JPEG": "jpeg", "JPEG, restart markers": "jpeg_restart",
    "JPEG 2000": "jpeg2000",
}  # fmt: skip


def check_bit_errors(
    root: Path, heading: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
    """Compare one table, a row for each arm, with the trials of the stage."""
    problems = []
    for arm, *entries in rows:
        title, _, cell = arm.partition(" (")
        folder = root / "artifacts/studies/robustness" / (cell.rstrip(")") or "classical")
        with (folder / "errors.csv").open(encoding="utf-8", newline="") as file:
            trials = [
                row
                for row in csv.DictReader(file)
                if row["arm"] == TITLES[title] and row["errors_in"] in ("none", PLACES[heading])
            ]
        for name, text in zip(header[1:], entries, strict=True):
            rate = 0.0 if name == "no errors" else float(name)
            chosen = [row for row in trials if float(row["ber"]) == rate]
            psnr_db = [float(row["psnr_db"]) for row in chosen]
            expected = [np.median(psnr_db), np.quantile(psnr_db, 0.05)]
            expected.append(100 * np.mean([int(row["decoded"]) for row in chosen]))
            found = [float(number) for number in re.findall(r"-?[0-9.]+", text)]
            wanted = expected[:1] if rate == 0 else expected
            allowed = [0.051, 0.051, 0.51][: len(wanted)]
            if len(found) != len(wanted) or np.any(np.abs(np.subtract(found, wanted)) > allowed):
                shown = ", ".join(f"{number:.1f}" for number in wanted)
                problems.append(f"report.md, {heading}, {arm}, {name}: says {text}, is {shown}")
    return problems
