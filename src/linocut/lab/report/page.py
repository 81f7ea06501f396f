"""The report as one HTML file that needs no network: figures, tables, pictures to slide over.

Plotly's JavaScript is written into the page. Pictures to slide over are lossless WebP, cut to a
window where they are large; damaged ones, which show more than codecs do, are lossy.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from linocut.lab.evaluation.comparison import Comparison
from linocut.lab.evaluation.rd import is_kodak
from linocut.lab.evaluation.rows import PlaneRow
from linocut.lab.report.figures import Lines
from linocut.lab.report.interactive import grid_figure, lines_figure, rd_figure
from linocut.lab.report.markdown_sections import sections
from linocut.lab.report.rate_split import split_figure
from linocut.lab.report.side_by_side import Exhibit
from linocut.pictures.crop import busiest_corner
from linocut.pictures.image import RgbArray

WINDOW_PX = (384, 576)
"""Height and width that pictures are cut to."""

MOST_PICTURES = 2
"""Pictures on the page, which has to stay below 8 MB with Plotly's 5."""

PICTURE_BYTES = 1_300_000
"""Once the pictures have this many bytes, cells other than the best are left out."""

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


def page(
    comparison: Comparison,
    markdown: str,
    exhibits: Sequence[Exhibit],
    lines: Sequence[Lines],
    provenance: Mapping[str, str],
    planes: Mapping[str, Sequence[PlaneRow]],
    galleries: Mapping[str, Mapping[str, Mapping[str, RgbArray]]],
) -> str:
    """The whole page.

    Args:
        comparison: the numbers.
        markdown: the report as Markdown, whose tables and text the page repeats.
        exhibits: pictures in all versions.
        lines: further figures.
        provenance: longer texts by heading: parameters, versions, data.
        planes: rates of the planes of the latent, by cell.
        galleries: by a key of `GALLERIES`, crops by title, by what they are of.
    """
    figures = {"rd": rd_figure(comparison)}
    rated = any(np.isfinite(row.bd_rate) for row in comparison.bd_rates if row.kind == "cell")
    if rated:
        figures["grid"] = grid_figure(comparison)
    figures |= {f"lines-{index}": lines_figure(one) for index, one in enumerate(lines)}
    if planes:
        figures["split"] = split_figure(planes)
    room = PICTURE_BYTES / max(min(len(exhibits), MOST_PICTURES), 1)
    exhibits = exhibits[:MOST_PICTURES]
    pictures = {exhibit.picture: _versions(exhibit, room) for exhibit in exhibits}
    names = comparison.pictures
    kind = "the 24 Kodak pictures" if is_kodak(names) else f"{len(names)} pictures"
    texts = sections(markdown)
    body = [
        "<header><h1>linocut: comparison</h1>",
        f'<p class="pale">Test set: {kind}. '
        f"{sum(map(len, comparison.cells.values()))} compressed files decoded and measured.</p>",
        f'<div class="headline">{_headline(texts.pop("", ""))}</div></header>',
        '<nav><a href="#rd-section">Curves</a>',
        '<a href="#grid-section">Grid</a>' if rated else "",
        '<a href="#pictures">Pictures</a>',
        *(f'<a href="#{key}">{GALLERIES[key][0]}</a>' for key in galleries if galleries[key]),
        '<a href="#tables">Tables</a><a href="#provenance">Provenance</a></nav>',
        '<section id="rd-section"><h2>Rate-distortion</h2>',
        '<p class="pale">Click a name to hide its curve, twice to see it alone; drag to zoom. The '
        "differences to one codec, at equal rate, tell close curves apart.</p>",
        '<div class="figure" id="rd"></div></section>',
    ]
    if rated:
        body += [
            '<section id="grid-section"><h2>Architectures and losses</h2>',
            '<p class="pale">BD-rate in per cent of bits at equal quality; blue: fewer than the '
            "reference.</p>",
            '<div class="figure low" id="grid"></div></section>',
        ]
    body += [
        '<section id="pictures"><h2>Pictures at matched size</h2>',
        '<p class="pale">Rate of the file, PSNR and MS-SSIM (dB) of the whole picture. Drag over '
        "the picture.</p>",
        *(_viewer(exhibit) for exhibit in exhibits),
        "</section>",
    ]
    if planes:
        body += [
            '<section id="split-section"><h2>Where the bits go</h2><p class="pale">Shares of the '
            "files at each rate point, mean over the pictures: by level of the latent (1 is the "
            "finest) and by rotated channel (0 is the strongest).</p>",
            '<div class="figure low" id="split"></div></section>',
        ]
    for index, one in enumerate(lines):
        body.append(
            f"<section><h2>{html.escape(one.heading)}</h2>"
            f'<p class="pale">{html.escape(one.caption)}</p>'
            f'<div class="figure {"low" if len(one.rows) == 1 else ""}" id="lines-{index}"></div>'
            "</section>"
        )
    for key, gallery in galleries.items():
        if gallery:
            heading, caption = GALLERIES[key]
            body.append(f'<section id="{key}"><h2>{heading}</h2><p class="pale">{caption}</p>')
            body += [_gallery(name, crops) for name, crops in gallery.items()]
            body.append("</section>")
    body.append('<div id="tables">')
    body += [f"<section><h2>{name}</h2>{text}</section>" for name, text in texts.items()]
    body.append('</div><section id="provenance"><h2>Provenance</h2>')
    body += [
        f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(text)}</pre></details>"
        for name, text in provenance.items()
    ]
    body.append("</section>")
    template = (resources.files("linocut.lab.report") / "page.html").read_text(encoding="utf-8")
    script = resources.files("plotly") / "package_data" / "plotly.min.js"
    parts = {
        "@BODY@": "\n".join(body),
        "@FIGURES@": _json(figures),
        "@PICTURES@": _json(pictures),
        "@PLOTLY@": script.read_text(encoding="utf-8"),
    }
    for mark, text in parts.items():
        before, _, after = template.partition(mark)
        template = before + text + after
    return template


def _headline(text: str) -> str:
    """The paragraph about the best cells, out of what stands before the first heading."""
    return "".join(line for line in text.splitlines() if line.startswith("<p>Best"))


def _viewer(exhibit: Exhibit) -> str:
    name = html.escape(exhibit.picture, quote=True)
    best = html.escape(exhibit.best, quote=True)
    right = html.escape(exhibit.anchors[0].name if exhibit.anchors else "original", quote=True)
    return f"""<div class="viewer" data-picture="{name}" data-left="{best}" data-right="{right}">
<div class="controls"><strong>{name}</strong>
<label>left <select aria-label="left version"></select></label>
<label>right <select aria-label="right version"></select></label>
<span>zoom <button data-zoom="1">1x</button> <button data-zoom="2">2x</button>
<button data-zoom="4">4x</button></span></div>
<div class="stage"><div class="pair"><img alt="{name}, right version"><img class="over"
alt="{name}, left version"><div class="edge"></div></div></div>
<div class="under"><input type="range" min="0" max="100" value="50" step="0.1"
aria-label="where the versions meet">
<div class="notes"><span></span><span></span></div></div></div>"""


def _gallery(name: str, crops: Mapping[str, RgbArray]) -> str:
    """Pictures that wrap, each above its name."""
    tiles = [
        f'<figure><img src="{_address(_webp(crop, lossless=False))}" width="{crop.shape[1]}" '
        f'height="{crop.shape[0]}" alt=""><figcaption>{html.escape(title)}</figcaption></figure>'
        for title, crop in crops.items()
    ]
    return f'<h3>{html.escape(name)}</h3><div class="gallery">{"".join(tiles)}</div>'


def _versions(exhibit: Exhibit, room: float) -> dict[str, dict[str, Any]]:
    """Pictures of one exhibit, the best cell and the anchors first, others while there is room."""
    corner = busiest_corner(exhibit.original.image, min(WINDOW_PX))
    others = [one for one in exhibit.cells if one.name != exhibit.best]
    versions, used = {}, 0
    needed = (exhibit.original, exhibit.of_best, *exhibit.anchors)
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


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, separators=(",", ":")).replace("</", "<\\/")
