"""The report as Markdown: the tables, the figures, and how everything was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from linocut.lab.evaluation.comparison import METRICS, REFERENCES, Comparison, Ranked, title
from linocut.lab.evaluation.rd import TITLES, Interval, bd_rate_to_published, is_kodak
from linocut.lab.evaluation.rows import BdRow, MeasuredRow

QUOTED_BPP = (0.1, 0.25, 0.5, 1.0)
"""Rates at which the curves are read off in a table."""

HOW = """\
## How this was measured
- **Rate**: 8 x bytes of the file on disk / pixels, header and tables of that file included.
- **Quality**: of the picture that a fresh process decodes from that file, against the original, on
  8-bit RGB. A curve goes through the means over the pictures of rate and PSNR, MS-SSIM or
  SSIMULACRA 2 at each setting; MS-SSIM is shown as -10 log10(1 - mean). SSIMULACRA 2 is 100 for no
  visible difference, 90 for hardly any, 70 for a good picture, 50 for a plain difference, 30 for a
  bad picture.
- **BD-rate**: average difference in rate at equal quality, PCHIP over log rate, on the qualities
  that both curves reach. Where they share less than half of the narrower range there is none.
- **Intervals**: 95 %, {draws} draws of the {pictures} pictures with replacement, the same draws for
  all curves. They say how the numbers would change with other pictures of this kind, and nothing
  about other seeds of the training: for these see `make seeds` (docs/experiments.md).
- **Anchors**: {versions}. JPEG: optimised Huffman tables, progressive, 4:2:0. JPEG 2000: 9/7
  wavelet, colour transform, bare codestream. WebP: method 6. AVIF: one thread.
- **Times**: wall clock of one process on one thread while others ran beside it.
"""


def report_text(
    comparison: Comparison,
    rankings: Mapping[tuple[str, str], Sequence[Ranked]],
    *,
    versions: Mapping[str, str],
    pictures: Sequence[str],
) -> str:
    """The whole report.

    Args:
        comparison: the numbers.
        rankings: of the losses, by metric and architecture.
        versions: of the anchors' libraries, by codec.
        pictures: names of the PNGs in plots/.
    """
    names = comparison.pictures
    kind = "the 24 Kodak pictures" if is_kodak(names) else f"{len(names)} pictures"
    parts = [
        "# Comparison\n",
        f"Test set: {kind} ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''}).\n",
        "<!-- results -->",
        results_block(comparison),
        "<!-- /results -->\n",
        _image("Rate-distortion curves", "rd.png", pictures),
        "## BD-rates\n",
        "Per cent of bits at equal quality, negative: fewer; 95 % interval in brackets.\n",
    ]
    for metric, shown in METRICS.items():
        parts += [f"### {shown.title}\n", _bd_table(comparison, metric), ""]
    parts += [
        *_refusals(comparison),
        *_published(comparison),
        _image("BD-rates with intervals", "bd_rate.png", pictures),
        *_ranking(comparison, rankings),
        "## Quality at equal rate\n",
        "PSNR and MS-SSIM in dB, and SSIMULACRA 2, read off the mean curves.\n",
        _quality_table(comparison),
        "",
        "## Pictures at matched size\n",
        "Rate of the file, PSNR and MS-SSIM (dB) of the whole picture. Anchors are coded to the "
        "size of the file of the best cell; the crop is where the original has its strongest "
        "gradients.\n",
    ]
    parts += [_image(name, name, pictures) for name in pictures if name.startswith("matched-")]
    parts += ["All cells at the same rate point:\n"]
    parts += [_image(name, name, pictures) for name in pictures if name.startswith("cells-")]
    parts += [
        "## Files and costs\n",
        _cost_table(comparison),
        "",
        _image("Energy compaction of the rotated latents", "pca.png", pictures),
        _image("Training", "training.png", pictures),
        HOW.format(
            draws=len(comparison.draws),
            pictures=len(names),
            versions=", ".join(f"{name} {version}" for name, version in versions.items()),
        ),
    ]
    return "\n".join(part for part in parts if part is not None)


def results_block(comparison: Comparison) -> str:
    """The summary that README repeats."""
    anchor = comparison.ranking_anchor
    sentences = []
    for metric, shown in METRICS.items():
        cell = comparison.best_cell(metric)
        interval = comparison.bd_rate(cell, metric, anchor)
        if math.isfinite(interval.estimate):
            sentences.append(
                f"in {shown.title} **{cell}** with {interval.estimate:+.1f} % "
                f"[{interval.low:+.1f}, {interval.high:+.1f}]"
            )
    best = f"Best against {title(anchor)}: {'; '.join(sentences)}.\n" if sentences else ""
    references = _references(comparison)
    pairs = [
        (metric, a) for metric in METRICS for a in references if metric == "psnr_db" or a != "jpeg"
    ]
    header = [f"{METRICS[metric].title} vs {title(a)}" for metric, a in pairs]
    rows = []
    for cell in comparison.cells:
        found = [comparison.bd_rate(cell, metric, a) for metric, a in pairs]
        rows.append([cell, *map(_short, found)])
    files = sum(len(rows) for rows in comparison.cells.values())
    note = (
        "\nBD-rate in per cent of bits at equal quality (negative: fewer), with 95 % intervals, "
        f"from {files} files of {len(comparison.pictures)} pictures."
    )
    if any("-" in row for row in rows):
        note += " A dash: the report says why there is none."
    return "\n".join([best, table(["cell", *header], rows), note])


def bd_cell(row: BdRow) -> str:
    """A BD-rate and its interval as a table shows it; a dash where there is none."""
    return interval_text(Interval(row.bd_rate, row.low, row.high))


def interval_text(interval: Interval) -> str:
    """An estimate and its bounds, to a tenth; a dash where there is none."""
    if not _known(interval.estimate):
        return "-"
    if not _known(interval.low):
        return f"{interval.estimate:+.1f}"
    return f"{interval.estimate:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"


def _short(interval: Interval) -> str:
    if not _known(interval.estimate):
        return "-"
    bounds = f" [{interval.low:.0f}, {interval.high:.0f}]" if _known(interval.low) else ""
    return f"{interval.estimate:+.1f}{bounds}"


def _known(value: float) -> bool:
    return math.isfinite(value)


def _references(comparison: Comparison) -> list[str]:
    return [name for name in REFERENCES if name in comparison.anchors]


def _bd_table(comparison: Comparison, metric: str) -> str:
    references = _references(comparison)
    cells = {
        (row.curve, row.anchor): bd_cell(row) for row in comparison.bd_rates if row.metric == metric
    }
    rows = [
        [title(curve), *(cells.get((curve, anchor), "0") for anchor in references)]
        for curve in (*comparison.cells, *comparison.anchors)
    ]
    return table(["curve", *(f"vs {title(anchor)}" for anchor in references)], rows)


def _published(comparison: Comparison) -> list[str]:
    """The cells against curves that others published; nothing for other pictures than Kodak's."""
    if not is_kodak(comparison.pictures):
        return []
    parts = [
        "## Against published curves\n",
        "BD-rate in per cent of every cell against means over the same pictures that others "
        "published (sources: `src/linocut/lab/evaluation/kodak_curves.json`); their files are not "
        "measured here, so there are no intervals.\n",
        "<!-- published -->",
    ]
    for metric in ("psnr_db", "ms_ssim_db"):
        curves = comparison.curves[metric]
        rows = []
        for name, short in TITLES.items():
            found = [bd_rate_to_published(name, metric, curves[cell]) for cell in comparison.cells]
            rows.append([short, *("-" if one is None else f"{one:+.1f}" for one in found)])
        header = [f"{METRICS[metric].title} against", *comparison.cells]
        parts += [table(header, rows), ""]
    return [*parts[:-1], "<!-- /published -->", ""]


def _refusals(comparison: Comparison) -> list[str]:
    """Why numbers are missing, for the cells against the references."""
    anchors: dict[tuple[str, str, str], list[str]] = {}
    for (curve, metric, anchor), reason in comparison.refusals.items():
        if curve in comparison.cells and anchor in REFERENCES:
            anchors.setdefault((metric, curve, reason), []).append(title(anchor))
    curves: dict[tuple[str, str, str], list[str]] = {}
    for (metric, curve, reason), names in anchors.items():
        curves.setdefault((metric, ", ".join(names), reason), []).append(curve)
    lines = [
        f"- {METRICS[metric].title}, {', '.join(found)} against {names}: {reason}."
        for (metric, names, reason), found in curves.items()
    ]
    return ["Not comparable (-):", *lines, ""] if lines else []


def _ranking(
    comparison: Comparison, rankings: Mapping[tuple[str, str], Sequence[Ranked]]
) -> list[str]:
    """The losses of each architecture against the best of them; nothing for a single loss."""
    if not ranking_table(rankings):
        return []
    count = len(comparison.pictures)
    return [
        "## Losses against each other\n",
        "Every loss against the best of its architecture, at equal quality. p: exact sign-flip "
        f"test over the {count} pictures, Holm's correction over all pairs of losses; below 0.05 "
        f"counts. With {count} pictures no uncorrected p is below {2.0 ** (1 - count):.2g}. "
        "Detectable: the difference that such a set of pictures shows four times in five.\n",
        ranking_table(rankings),
        "",
    ]


def ranking_table(rankings: Mapping[tuple[str, str], Sequence[Ranked]]) -> str:
    """Every loss that is not the best of its architecture; empty where there is none."""
    rows = []
    for (metric, _), ranked in rankings.items():
        for row in ranked[1:]:
            bounds = f"{row.bd_rate:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
            found = (bounds, _p_value(row.p_value), f"{row.detectable:.1f}")
            rows.append([METRICS[metric].title, row.best, row.curve, *found])
    header = ["metric", "best loss", "other loss", "more bits than best [%]", "p", "detectable [%]"]
    return table(header, rows) if rows else ""


def _p_value(p_value: float) -> str:
    if not _known(p_value):
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _quality_table(comparison: Comparison) -> str:
    rows = []
    for curve in (*comparison.cells, *comparison.anchors):
        values = []
        for wanted in QUOTED_BPP:
            pair = []
            for metric in METRICS:
                bpp, quality = comparison.curves[metric][curve].mean()
                inside = bpp[0] <= wanted <= bpp[-1]
                value = float(np.interp(np.log(wanted), np.log(bpp), quality))
                digits = 1 if metric == "ssimulacra2" else 2
                pair.append(f"{value:.{digits}f}" if inside and _known(value) else "-")
            values.append(" / ".join(pair))
        rows.append([title(curve), *values])
    return table(["curve", *(f"{bpp:g} bpp" for bpp in QUOTED_BPP)], rows)


def _cost_table(comparison: Comparison) -> str:
    rows = []
    for name in (*comparison.cells, *comparison.anchors):
        bpp, _ = comparison.curves["psnr_db"][name].mean()
        files: Sequence[MeasuredRow]
        if name in comparison.cells:
            files = comparison.cells[name]
            gap = f"{comparison.rate_gap_percent(name):+.2f} %"
            rises = "yes" if comparison.is_monotone(name) else "**no**"
        else:
            files, gap, rises = comparison.anchors[name], "", ""
        megapixels = sum(8 * row.bytes / row.bpp for row in files) / 1e6
        encode_s = sum(row.encode_s for row in files) / megapixels
        decode_s = sum(row.decode_s for row in files) / megapixels
        rates = f"{bpp[0]:.3f} .. {bpp[-1]:.2f}"
        times = (f"{encode_s:.2f}", f"{decode_s:.2f}")
        rows.append([title(name), str(len(files)), rates, gap, rises, *times])
    header = ["curve", "files", "mean bpp", "over estimate", "monotone"]
    return table([*header, "encode s/MP", "decode s/MP"], rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column reads from the left, numbers from the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _image(alt: str, name: str, pictures: Sequence[str]) -> str | None:
    if name not in pictures:
        return None
    alt = alt.removesuffix(".png").replace("-", " ")
    return f"![{alt}](plots/{name})\n"
