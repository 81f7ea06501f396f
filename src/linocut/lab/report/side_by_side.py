"""Crops beside each other at their own pixels: the original, cells, and anchors of matched size.

evaluated/*/pictures, studies/matched, prepared/test --> Exhibit --> matched-*.png, cells-*.png

The crop is chosen by a rule that knows nothing of codecs: the square with the strongest gradients
of the original.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from linocut.errors import DataError
from linocut.lab.evaluation.comparison import Comparison, title
from linocut.lab.evaluation.rows import MatchedRow, read_rows
from linocut.pictures.image import RgbArray, busiest_corner, crop, read_image
from linocut.pictures.quality import to_db

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

CROP_PX = 192
GAP_PX = 8
LINE_PX = 18

INK, PALE = (34, 34, 34), (110, 110, 110)


@dataclass(frozen=True)
class Version:
    """A picture as one codec leaves it.

    Attributes:
        name: of the codec, or "original".
        image: (h, w, 3) uint8.
        note: its rate and quality in a few words.
        bytes: size of the file, 0 for the original.
    """

    name: str
    image: RgbArray
    note: str
    bytes: int


@dataclass(frozen=True)
class Exhibit:
    """One test picture in all versions that the report shows.

    Attributes:
        picture: its name.
        original: as it is.
        cells: decoded by each cell, at the same rate point.
        anchors: at the size of the file of `leader`.
        leader: name of the cell that anchors were matched with.
    """

    picture: str
    original: Version
    cells: tuple[Version, ...]
    anchors: tuple[Version, ...]
    leader: str

    @property
    def of_leader(self) -> Version:
        """The version of the leading cell."""
        return next(version for version in self.cells if version.name == self.leader)


def collect(comparison: Comparison, artifacts: Path) -> list[Exhibit]:
    """Read the decoded pictures that evaluation kept, and the anchors of matched size.

    Args:
        comparison: names the cells and the leading one.
        artifacts: the folder with `evaluated/`, `prepared/test/` and `studies/matched/`.

    Raises:
        DataError: a picture is missing, or was matched with another cell's.
    """
    leader = comparison.leader("psnr_db")
    kept = artifacts / "evaluated" / leader / "pictures"
    if not any(kept.glob("*.png")):
        return []
    matched = artifacts / "studies" / "matched"
    rows = read_rows(matched / "matched.csv", MatchedRow)
    if {row.cell for row in rows} != {leader}:
        raise DataError(f"{matched} is about {rows[0].cell}, expected {leader}")
    exhibits = []
    for path in sorted(kept.glob("*.png")):
        picture = path.stem.rpartition("-")[0]
        original = read_image(artifacts / "prepared" / "test" / f"{picture}.png")
        cells = []
        for cell in comparison.cells:
            folder = artifacts / "evaluated" / cell / "pictures"
            found = sorted(folder.glob(f"{picture}-*.png"))
            if not found:
                raise DataError(f"{cell} has no decoded picture of {picture}")
            cells.append(_cell_version(comparison, cell, found[0], original))
        anchors = tuple(
            Version(
                title(row.codec),
                read_image(matched / f"{picture}-{row.codec}.png"),
                _note(row.bytes, original, row.psnr_db, row.ms_ssim),
                row.bytes,
            )
            for row in rows
            if row.picture == picture
        )
        plain = Version("original", original, f"{original.shape[1]} x {original.shape[0]}", 0)
        exhibits.append(Exhibit(picture, plain, tuple(cells), anchors, leader))
    return exhibits


def draw_matched(exhibit: Exhibit, path: Path) -> None:
    """A strip: the whole original, then the crop of original, leading cell and anchors."""
    corner = busiest_corner(exhibit.original.image, CROP_PX)
    versions = [exhibit.original, exhibit.of_leader, *exhibit.anchors]
    whole = _framed(exhibit.original.image, corner)
    tiles = [_tile(whole, exhibit.picture, "the frame is shown beside")]
    tiles += [_tile(crop(one.image, corner, CROP_PX), one.name, one.note) for one in versions]
    _row(tiles).save(path, optimize=True)


def draw_cells(exhibit: Exhibit, path: Path, columns: int) -> None:
    """A grid: the crop of every cell in the order of the cells, the original before them.

    Args:
        exhibit: the picture.
        path: the PNG to write.
        columns: how many cells are in a row.
    """
    corner = busiest_corner(exhibit.original.image, CROP_PX)
    original = _tile(
        crop(exhibit.original.image, corner, CROP_PX), "original", exhibit.original.note
    )
    blank = Image.new("RGB", original.size, "white")
    rows = []
    for start in range(0, len(exhibit.cells), columns):
        cells = exhibit.cells[start : start + columns]
        tiles = [_tile(crop(one.image, corner, CROP_PX), one.name, one.note) for one in cells]
        rows.append(_row([original if start == 0 else blank, *tiles]))
    page = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for index, row in enumerate(rows):
        page.paste(row, (0, index * row.height))
    page.save(path, optimize=True)


def labelled_row(versions: Mapping[str, RgbArray]) -> RgbArray:
    """Small pictures beside each other, each under its name, as one picture."""
    return np.asarray(_row([_tile(image, name, "") for name, image in versions.items()]))


def _cell_version(comparison: Comparison, cell: str, path: Path, original: RgbArray) -> Version:
    picture, _, point = path.stem.rpartition("-")
    for row in comparison.cells[cell]:
        if (row.picture, str(row.point)) == (picture, point):
            note = _note(row.bytes, original, row.psnr_db, row.ms_ssim)
            return Version(cell, read_image(path), note, row.bytes)
    raise DataError(f"{path} is not in the table of {cell}")


def _note(size: int, original: RgbArray, psnr_db: float, ms_ssim: float) -> str:
    bpp = 8 * size / (original.shape[0] * original.shape[1])
    words = f"{bpp:.3f}_bpp · {psnr_db:.1f}_dB · {float(to_db(ms_ssim)):.1f}_dB"
    return words.replace("_", "\N{NO-BREAK SPACE}")


def _framed(image: RgbArray, corner: tuple[int, int]) -> RgbArray:
    """The whole picture at the height of a crop, with the crop outlined."""
    scale = CROP_PX / image.shape[0]
    size = (max(round(image.shape[1] * scale), 1), CROP_PX)
    small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    top, left = (round(value * scale) for value in corner)
    side = round(CROP_PX * scale)
    box = (left, top, min(left + side, size[0] - 1), min(top + side, size[1] - 1))
    ImageDraw.Draw(small).rectangle(box, outline=(255, 220, 0), width=2)
    return np.asarray(small)


def _tile(image: RgbArray, name: str, note: str) -> Image.Image:
    """A picture with two lines of text above it."""
    width = max(image.shape[1], CROP_PX)
    tile = Image.new("RGB", (width, max(image.shape[0], CROP_PX) + 2 * LINE_PX), "white")
    draw = ImageDraw.Draw(tile)
    draw.text((0, 0), name, fill=INK, font=_font(13, bold=True))
    draw.text((0, LINE_PX - 1), note, fill=PALE, font=_font(11, bold=False))
    tile.paste(Image.fromarray(image), (0, 2 * LINE_PX))
    return tile


def _row(tiles: Sequence[Image.Image]) -> Image.Image:
    width = sum(tile.width for tile in tiles) + GAP_PX * (len(tiles) + 1)
    row = Image.new("RGB", (width, tiles[0].height + GAP_PX), "white")
    left = GAP_PX
    for tile in tiles:
        row.paste(tile, (left, 0))
        left += tile.width + GAP_PX
    return row


@functools.cache
def _font(size: int, *, bold: bool) -> FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    from matplotlib import font_manager

    weight = "bold" if bold else "normal"
    found = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight))
    return ImageFont.truetype(found, size)
