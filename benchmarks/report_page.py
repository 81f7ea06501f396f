"""Whether report.html says what report.md and the files say; part of `verify.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from expected_numbers import METRICS, Expected

TITLES = {
    "jpeg": "JPEG", "jpeg2000": "JPEG 2000", "webp": "WebP",
    "avif_420": "AVIF 4:2:0", "avif_444": "AVIF 4:4:4",
}  # fmt: skip
SLACK = {"psnr_db": 1e-3, "ms_ssim_db": 0.03, "ssimulacra2": 0.2}
"""Allowed beyond rounding: the library's MS-SSIM and SSIMULACRA 2 run in float32."""

Table = tuple[str, list[str], list[list[str]]]
"""The heading above it, its header, its rows."""


class _Tables(HTMLParser):
    """Tables of a page, and the words in between."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.words: list[str] = []
        self._heading = self._text = ""
        self._row: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "table":
            self.tables.append((self._heading, [], []))
        elif tag == "tr":
            self._row = []
        if tag in {"h2", "h3", "th", "td"}:
            self._text = ""

    def handle_data(self, data: str) -> None:
        self._text += data
        self.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in {"h2", "h3"}:
            self._heading = self._text.strip()
        elif tag in {"th", "td"}:
            self._row.append(self._text.strip())
        elif tag == "tr" and not self.tables[-1][1]:
            self.tables[-1][1].extend(self._row)
        elif tag == "tr":
            self.tables[-1][2].append(self._row)


def check_page(page: Path, markdown: Sequence[Table], headline: str, exp: Expected) -> list[str]:
    """Compare the page's tables and text with the report's, its curves and grid with the files.

    Args:
        page: report.html.
        markdown: all tables of report.md.
        headline: the sentence of report.md about the best cells.
        exp: what follows from the files.
    """
    if not page.is_file():
        return ["report.html is missing: `dvc repro` makes it, `dvc pull` fetches it"]
    text = page.read_text(encoding="utf-8")
    parser = _Tables()
    parser.feed(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))
    problems = []
    if headline.replace("**", "") not in " ".join("".join(parser.words).split()):
        problems.append("report.html: the headline is not that of report.md")
    wanted = {(heading, tuple(header)): rows for heading, header, rows in markdown}
    for heading, header, rows in parser.tables:
        expected = wanted.get((heading, tuple(header)))
        if expected is None:
            problems.append(f"report.html, {heading}: a table that report.md does not have")
            continue
        for row, right in zip(rows, expected, strict=False):
            if row != right:
                problems.append(f"report.html, {heading}, {row[0]}: not as in report.md")
        if len(rows) != len(expected):
            problems.append(f"report.html, {heading}: {len(rows)} rows, report.md {len(expected)}")
    found = re.search(r"^const FIGURES = (.*);$", text, re.MULTILINE)
    if found is None:
        return [*problems, "report.html has no figures"]
    figures = json.loads(found[1])
    return problems + _check_curves(figures["rd"], exp) + _check_grid(figures["grid"], exp)


def _check_curves(figure: dict[str, Any], expected: Expected) -> list[str]:
    """The first views are the metrics as they are; the others follow from them."""
    problems = []
    names = [trace["name"] for trace in figure["data"]]
    for name in expected.points:
        title = TITLES.get(name, name)
        if title not in names:
            problems.append(f"report.html: no curve of {title}")
            continue
        place = names.index(title)
        rate, _ = expected.curve(name, "psnr_db")
        if not _near(figure["data"][place]["x"], rate, 1e-5):
            problems.append(f"report.html, rates of {title}")
        for view, metric in zip(figure["views"], METRICS, strict=False):
            if not _near(view["data"]["y"][place], expected.curve(name, metric)[1], SLACK[metric]):
                problems.append(f"report.html, {METRICS[metric]} of {title}")
        if figure["data"][place]["y"] != figure["views"][0]["data"]["y"][place]:
            problems.append(f"report.html: {title} begins with another curve")
    return problems


def _check_grid(figure: dict[str, Any], expected: Expected) -> list[str]:
    """BD-rates of the heat map, as colours and as text."""
    problems = []
    metric_of = {title: metric for metric, title in METRICS.items()}
    anchor_of = {TITLES.get(name, name): name for name in expected.anchors}
    archs, losses = figure["data"][0]["x"], figure["data"][0]["y"]
    for view in figure["views"]:
        title, _, against = view["label"].partition(" vs ")
        metric, anchor = metric_of[title], anchor_of[against]
        for row, loss in enumerate(losses):
            for column, arch in enumerate(archs):
                cell = f"{arch}-{loss}"
                if cell not in expected.cells:
                    continue
                rates = np.array(expected.bd[cell, metric, anchor])
                shown = [view["data"]["z"][0][row][column]]
                printed = re.findall(r"[-+]?\d+(?:\.\d+)?", view["data"]["text"][0][row][column])
                near = _near(shown, rates[:1], SLACK[metric]) and (
                    not np.isfinite(rates).all()
                    or _near([float(one) for one in printed], rates, 0.51 + SLACK[metric])
                )
                if not near:
                    problems.append(f"report.html, grid, {view['label']}, {cell}: {printed}")
    first = figure["views"][0]["data"]
    if [figure["data"][0][key] for key in ("z", "text")] != [first["z"][0], first["text"][0]]:
        problems.append("report.html, grid: begins with other numbers than its first view")
    return problems


def _near(found: Sequence[float | None], wanted: Any, slack: float) -> bool:
    """Five printed digits against numbers; None is NaN."""
    values = np.array([np.nan if one is None else one for one in found], np.float64)
    return values.shape == np.shape(wanted) and np.allclose(
        values, wanted, rtol=1e-4, atol=slack, equal_nan=True
    )
