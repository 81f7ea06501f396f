"""The report as one HTML file that needs no network: figures, tables, pictures to slide over.

Tables, report.md, pictures --> page.html (the template) --> report.html

Plotly's JavaScript is written into the page. Pictures to slide over are lossless WebP, cut to a
window where they are large; damaged ones, which show more than codecs do, are lossy.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from linocut.lab.evaluation.rd import is_kodak
from linocut.lab.report.figures import Lines
from linocut.lab.report.interactive import (
    as_json,
    grid_views,
    lines_figure,
    rd_views,
    split_views,
)
from linocut.lab.report.markdown import headline
from linocut.lab.report.side_by_side import Exhibit
from linocut.lab.report.tables import Tables
from linocut.pictures.crop import busiest_corner
from linocut.pictures.image import RgbArray

WINDOW_PX = (384, 576)
"""Height and width that pictures are cut to."""

MOST_PICTURES = 2
"""Pictures on the page, which has to stay below 8 MB with Plotly's 5."""

PICTURE_BYTES = 1_300_000
"""Once the pictures have this many bytes, cells other than the leading one are left out."""

GALLERIES = {
    "twins": (
        "Twin decoders",
        "Crops of one file at the lowest rate, decoded by networks that were trained without and "
        "with an adversary.",
    ),
    "damaged": (
        "Bit errors",
        "Crops of files with wrong bits behind the header; grey: does not decode.",
    ),
}
"""Heading and caption of a section of pictures, by its anchor."""


def page_text(
    tables: Tables,
    markdown: str,
    exhibits: Sequence[Exhibit],
    *,
    coded: Path,
    lines: Sequence[Lines],
    provenance: Mapping[str, str],
    galleries: Mapping[str, Mapping[str, Mapping[str, RgbArray]]],
) -> str:
    """The whole page.

    Args:
        tables: the numbers.
        markdown: the report as Markdown, whose tables and text the page repeats.
        exhibits: pictures in all versions.
        coded: the folder of the cells' planes.csv.
        lines: further figures.
        provenance: longer texts by heading: parameters, versions, data.
        galleries: by a key of `GALLERIES`, crops by title, by what they are of.
    """
    views = {"rd": rd_views(tables), "grid": grid_views(tables)}
    views["split"] = split_views(list(tables.cells), coded)
    views |= {f"lines-{index}": {"": lines_figure(one)} for index, one in enumerate(lines)}
    exhibits = exhibits[:MOST_PICTURES]
    room = PICTURE_BYTES / max(len(exhibits), 1)
    texts = sections(markdown)
    del texts[""]
    environment = Environment(
        loader=PackageLoader("linocut.lab.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.get_template("page.html").render(
        kodak=is_kodak(tables.about["pictures"]),
        count=len(tables.about["pictures"]),
        files=tables.metrics["files"],
        headline=Markup(_MARKDOWN.render(headline(tables))),
        views={name: as_json(figures) for name, figures in views.items() if figures},
        lines=lines,
        exhibits=exhibits,
        pictures={exhibit.picture: _versions(exhibit, room) for exhibit in exhibits},
        galleries=[
            (key, *GALLERIES[key], {name: _tiles(crops) for name, crops in gallery.items()})
            for key, gallery in galleries.items()
            if gallery
        ],
        texts={name: Markup(text) for name, text in texts.items()},
        provenance=provenance,
        plotly=Markup(get_plotlyjs()),
    )


def sections(markdown: str) -> dict[str, str]:
    """HTML by second-level heading; pictures are left out, as are empty sections.

    What comes before the first such heading is under "".
    """
    found: dict[str, list[Token]] = {"": []}
    name = ""
    for block in _blocks(_MARKDOWN.parse(markdown)):
        if block[0].type == "heading_open" and block[0].tag == "h2":
            name = block[1].content
            found[name] = []
        elif not _left_out(block):
            found[name] += block
    rendered = {
        name: _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
        for name, tokens in found.items()
    }
    return {name: text for name, text in rendered.items() if text or not name}


def _markdown() -> MarkdownIt:
    """CommonMark and tables; wide tables scroll by themselves."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


_MARKDOWN = _markdown()


def _blocks(tokens: Sequence[Token]) -> list[list[Token]]:
    """Tokens of each block on the outermost level."""
    depth, numbered = 0, []
    number = 0
    for token in tokens:
        numbered.append((number, token))
        depth += token.nesting
        number += depth == 0
    return [[token for _, token in group] for _, group in groupby(numbered, lambda one: one[0])]


def _left_out(block: Sequence[Token]) -> bool:
    first = block[0]
    picture = len(block) > 1 and block[1].content.startswith("![")
    return first.type == "html_block" or first.tag == "h1" or picture


def _tiles(crops: Mapping[str, RgbArray]) -> list[dict[str, Any]]:
    """Pictures of a gallery, with their names and sizes."""
    return [
        {"title": title, "image": _address(_webp(crop, lossless=False)),
         "width": crop.shape[1], "height": crop.shape[0]}
        for title, crop in crops.items()
    ]  # fmt: skip


def _versions(exhibit: Exhibit, room: float) -> dict[str, dict[str, Any]]:
    """Pictures of one exhibit: the leading cell and the anchors, others while there is room."""
    corner = busiest_corner(exhibit.original.image, min(WINDOW_PX))
    others = [one for one in exhibit.cells if one.name != exhibit.leader]
    versions, used = {}, 0
    needed = (exhibit.original, exhibit.of_leader, *exhibit.anchors)
    for place, version in enumerate((*needed, *others)):
        if place >= len(needed) and used > room:
            break
        data = _webp(_window(version.image, corner), lossless=True)
        used += len(data)
        versions[version.name] = {
            "image": _address(data),
            "note": version.note,
            "width": min(version.image.shape[1], WINDOW_PX[1]),
        }
    return versions


def _window(image: RgbArray, corner: tuple[int, int]) -> RgbArray:
    """The window around a corner (y, x), inside the picture."""
    top, left = (
        max(min(start - (size - min(WINDOW_PX)) // 2, length - size), 0)
        for start, size, length in zip(corner, WINDOW_PX, image.shape[:2], strict=True)
    )
    return image[top : top + WINDOW_PX[0], left : left + WINDOW_PX[1]]


def _webp(image: RgbArray, *, lossless: bool) -> bytes:
    file = io.BytesIO()
    quality = 40 if lossless else 85
    Image.fromarray(image).save(file, "WEBP", lossless=lossless, quality=quality, method=2)
    return file.getvalue()


def _address(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
