"""Anchors at the size of a cell's files, so that what differs between pictures is not the rate.

evaluated/<cell>/pictures/*.png of the leading cell + prepared/test + anchors/
    --> studies/matched/{matched.csv, <picture>-<codec>.png}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from linocut.lab.evaluation.anchors import decode, encode_near
from linocut.lab.evaluation.comparison import REFERENCES, compare_curves
from linocut.lab.evaluation.rows import MatchedRow, write_rows
from linocut.pictures.image import read_image, write_png
from linocut.pictures.quality import measure


def match_sizes(cells: Sequence[str], artifacts: Path, out: Path, *, avif_speed: int) -> None:
    """Code the pictures that the leading cell shows with every reference that was measured.

    Args:
        cells: the names of the cells that are compared.
        artifacts: the folder with `anchors/`, `evaluated/` and `prepared/test/`.
        out: matched.csv and the decoded pictures.
        avif_speed: effort of AVIF, as in `artifacts/anchors`.

    Raises:
        DataError: a table is missing or incomplete.
    """
    # Only the estimates count here, so one draw does.
    comparison = compare_curves(cells, artifacts, bootstrap_draws=1, seed=0)
    leader = comparison.leader("psnr_db")
    sizes = {(row.picture, row.point): row.bytes for row in comparison.cells[leader]}
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in sorted((artifacts / "evaluated" / leader / "pictures").glob("*.png")):
        picture, _, point = path.stem.rpartition("-")
        original = read_image(artifacts / "prepared" / "test" / f"{picture}.png")
        for codec in reversed(REFERENCES):
            if codec not in comparison.anchors:
                continue
            anchor = comparison.anchors[codec]
            known = {row.setting: row.bytes for row in anchor if row.picture == picture}
            size = sizes[picture, int(point)]
            data = encode_near(codec, original, size, avif_speed, known)
            decoded = decode(data)
            quality = measure(original, decoded)
            write_png(out / f"{picture}-{codec}.png", decoded)
            rows.append(
                MatchedRow(picture, codec, leader, len(data), quality.psnr_db, quality.ms_ssim)
            )
    write_rows(out / "matched.csv", MatchedRow, rows)
