"""The comparison stage: everything that people read about a set of cells.

artifacts/{anchors,coded,controls,evaluated,prepared,rotated,studies,trained}  -->  reports/
    metrics.json        the headline numbers, for `dvc metrics` and `dvc exp show`
    cells.json          BD-rates of all cells, for `dvc metrics diff --targets`
    plots/*.csv         all other numbers, see `tables`; two of them for `dvc plots`
    plots/*.png         the figures
    report.md           tables, figures and pictures
    report.html         the same to play with
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from linocut.lab.evaluation.comparison import METRICS, architectures, compare_curves, title
from linocut.lab.evaluation.rd import is_kodak
from linocut.lab.evaluation.rows import CONTROLS
from linocut.lab.report import figures, page, study_sections
from linocut.lab.report.tables import SIGNIFICANT, Tables, markdown_table, read_tables, tables_of

if TYPE_CHECKING:
    from linocut.lab.config.params import CompareConfig


def compare(
    cells: Sequence[str],
    *,
    artifacts: Path,
    reports: Path,
    config: CompareConfig,
    seed: int,
    params: Path | None = None,
    controls: Iterable[str] = CONTROLS,
) -> None:
    """Compare exactly these cells with the anchors and write `reports/` anew.

    Args:
        cells: names of cells, `arch-loss`, in the order in which they are shown.
        artifacts: what the stages before have made.
        reports: where the report goes; its `plots/` is replaced.
        config: draws behind the intervals.
        seed: of the draws.
        params: the params.yaml that the page shows.
        controls: which are shown beside the cells.

    Raises:
        DataError: a stage's output is missing or incomplete.
    """
    comparison = compare_curves(
        cells, artifacts, bootstrap_draws=config.bootstrap_draws, seed=seed, controls=controls
    )
    plots = reports / "plots"
    shutil.rmtree(plots, ignore_errors=True)
    twins, damaged = artifacts / "studies/twin", artifacts / "studies/robustness"
    versions = json.loads((artifacts / "anchors" / "versions.json").read_text(encoding="utf-8"))
    tables_of(
        comparison,
        versions=versions,
        twins=study_sections.twin_table(twins),
        gates=study_sections.twin_gates(twins),
        bit_errors=study_sections.damage_table(damaged),
    ).write(reports)
    tables = read_tables(reports)  # what is shown is what the files hold
    drawable = {
        "pca.png": figures.energy_lines(cells, artifacts / "rotated"),
        "training.png": figures.training_lines(cells, artifacts / "trained"),
        "twin.png": study_sections.twin_lines(twins),
        "bit_errors.png": study_sections.damage_lines(tables.bit_errors),
    }
    lines = {name: one for name, one in drawable.items() if one is not None}
    for name, one in lines.items():
        figures.draw_lines(one, plots / name)
    figures.draw_rd(cells, comparison.points, plots / "rd.png")
    figures.draw_bd_rates(comparison, plots / "bd_rate.png")
    study_sections.draw_twins(twins, plots)
    study_sections.draw_damage(damaged, plots)
    exhibits = figures.collect(comparison, artifacts)
    columns = max(len(group) for group in architectures(cells).values())
    for exhibit in exhibits:
        figures.draw_matched(exhibit, plots / f"matched-{exhibit.picture}.png")
        figures.draw_cells(exhibit, plots / f"cells-{exhibit.picture}.png", columns)
    text = report_text(tables, sorted(path.name for path in plots.glob("*.png")))
    (reports / "report.md").write_text(text, encoding="utf-8")
    shown = page.page_text(
        tables,
        headline(tables),
        text,
        exhibits,
        coded=artifacts / "coded",
        lines=list(lines.values()),
        provenance=_provenance(artifacts, versions, params),
        galleries={
            "twins": study_sections.twin_galleries(twins),
            "damaged": study_sections.damage_galleries(damaged),
        },
    )
    (reports / "report.html").write_text(shown, encoding="utf-8")


def comparison_table(reports: Path) -> str:
    """The comparison as text, from the files in `reports/`.

    Raises:
        DataError: there is no report yet.
    """
    return printed_comparison(read_tables(reports))


def _provenance(
    artifacts: Path, versions: Mapping[str, str], params: Path | None
) -> dict[str, str]:
    """What the page says about where its numbers come from."""
    found = {"Versions": "\n".join(f"{name}: {version}" for name, version in versions.items())}
    manifest = artifacts / "prepared" / "manifest.json"
    if manifest.exists():
        pictures = json.loads(manifest.read_text(encoding="utf-8"))["pictures"]
        found["Test pictures"] = "\n".join(
            f"{entry['name']}: {entry['width']} x {entry['height']}, {entry['licence']}\n"
            f"    SHA-256 {entry['sha256']}"
            for entry in pictures
            if entry["split"] == "test"
        )
    if params is not None:
        found["Parameters"] = params.read_text(encoding="utf-8")
    return found


# --- the report as Markdown, rendered from its tables alone ---------------------------------------

QUOTED_BPP = (0.1, 0.25, 0.5, 1.0)
"""Rates at which the curves are read off in a table."""

HOW = """\
## How this was measured

- **Rate**: 8 x bytes of the file on disk / pixels, header and tables of that file included.
- **Quality**: of the picture that a fresh process decodes from that file, against the original, on
  8-bit RGB. A curve goes through the means over the pictures of rate and PSNR, SSIM, MS-SSIM or
  SSIMULACRA 2 at each setting; SSIM and MS-SSIM are shown as -10 log10(1 - mean). SSIMULACRA 2 is
  100 for no visible difference, 90 for hardly any, 70 for a good picture, 50 for a plain
  difference, 30 for a bad picture.
- **BD-rate**: average difference in rate at equal quality, PCHIP over log rate, on the qualities
  that both curves reach. Where they share less than half of the narrower range there is none.
- **Intervals**: 95 %, {draws} draws of the {pictures} pictures with replacement, the same draws for
  all curves. They say how the numbers would change with other pictures of this kind, and nothing
  about other seeds of the training: for these see `make seeds` (docs/experiments.md).
- **Leading**: a cell leads where a sign-flip test over the pictures tells it from every other cell
  (p below {level}, Holm's correction over all pairs of cells).
- **Anchors**: {versions}. JPEG: optimised Huffman tables, progressive, 4:2:0. JPEG 2000: 9/7
  wavelet, colour transform, bare codestream. WebP: method 6. AVIF: one thread.
- **Times**: wall clock of one process on one thread while others ran beside it.
"""


def report_text(tables: Tables, pictures: Sequence[str]) -> str:
    """The whole report.

    Args:
        tables: its numbers.
        pictures: names of the PNGs in plots/.
    """
    names = tables.about["pictures"]
    kind = "the 24 Kodak pictures" if is_kodak(names) else f"{len(names)} pictures"

    def images(alt: str, start: str) -> list[str]:
        return [
            f"![{alt or name[:-4].replace('-', ' ')}](plots/{name})\n"
            for name in pictures
            if name.startswith(start)
        ]

    parts = [
        "# Comparison\n",
        f"Test set: {kind} ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''}).\n",
        "<!-- results -->",
        results_block(tables),
        "<!-- /results -->\n",
        *images("Rate-distortion curves", "rd.png"),
        "## BD-rates\n",
        "Per cent of bits at equal quality, negative: fewer; 95 % interval in brackets.\n",
    ]
    for metric, shown in METRICS.items():
        parts += [f"### {shown.title}\n", _bd_table(tables, metric), ""]
    parts += [
        *_missing(tables),
        *_published(tables),
        *images("BD-rates with intervals", "bd_rate.png"),
        *_ranking(tables),
        "## Quality at equal rate\n",
        "PSNR, SSIM and MS-SSIM in dB, and SSIMULACRA 2, read off the mean curves.\n",
        _quality_table(tables),
        "",
        "## Pictures at matched size\n",
        "Rate of the file, PSNR and MS-SSIM (dB) of the whole picture. Anchors are coded to the "
        f"size of the file of {tables.metrics['leader']}, which has the lowest BD-rate in PSNR; "
        "the crop is where the original has its strongest gradients.\n",
        *images("", "matched-"),
        "All cells at the same rate point:\n",
        *images("", "cells-"),
        "## Files and costs\n",
        _cost_table(tables),
        "",
        *images("Energy compaction of the rotated latents", "pca.png"),
        *images("Training", "training.png"),
        HOW.format(
            draws=tables.about["draws"],
            pictures=len(names),
            level=SIGNIFICANT,
            versions=", ".join(f"{name} {v}" for name, v in tables.about["versions"].items()),
        ),
        *study_sections.twin_text(tables.twins, tables.gates, pictures),
        *study_sections.damage_text(tables.bit_errors, pictures),
    ]
    return "\n".join(parts)


def results_block(tables: Tables) -> str:
    """The summary that README repeats: the headline, and the BD-rates of the cells."""
    pairs = [
        (metric, anchor)
        for metric in METRICS
        for anchor in tables.references
        if _is_summarised(metric, anchor, tables.about["anchor"])
    ]
    header = [f"{METRICS[metric].title} vs {title(anchor)}" for metric, anchor in pairs]
    curves = [*tables.cells, *tables.curves("control")]
    rows = [[title(one), *(_short(*tables.bd(one, *pair)) for pair in pairs)] for one in curves]
    note = (
        "\nBD-rate in per cent of bits at equal quality (negative: fewer), with 95 % intervals, "
        f"from {tables.metrics['files']} files of {len(tables.about['pictures'])} pictures."
    )
    if any("-" in row for row in rows):
        note += " A dash: the report says why there is none."
    return "\n".join([headline(tables), "", markdown_table(["cell", *header], rows), note])


def _is_summarised(metric: str, anchor: str, ranking: str) -> bool:
    """Whether the summary has room for a metric against an anchor."""
    if metric == "psnr_db":
        return True
    return anchor == ranking if metric == "ssim_db" else anchor != "jpeg"


def headline(tables: Tables) -> str:
    """What is known about the leading cell, metric by metric, and no more than that."""
    anchor = tables.about["anchor"]
    lines = [
        f"- **{METRICS[row.metric].title}**: {_claim(tables, row)}."
        for row in tables.leads.itertuples()
        if math.isfinite(row.bd_rate)
    ]
    if not lines:
        return f"No cell can be compared with {title(anchor)}."
    count, pairs = len(tables.about["pictures"]), math.comb(len(tables.cells), 2)
    few = " (too few for any lead to be significant)" if pairs * 2 / 2**count > SIGNIFICANT else ""
    start = f"Bits against {title(anchor)} at equal quality, {count} pictures{few}:\n"
    return "\n".join([start, *lines])


def _claim(tables: Tables, lead: Any) -> str:
    """The claim about the leader in one metric; `lead` is a row of `leads`."""
    leader = lead.leader
    number = bd_cell(lead.bd_rate, lead.low, lead.high).replace(" [", " % [")
    if len(tables.cells) == 1:
        return f"{leader} {number}"
    alike = lead.not_told_apart.split() if isinstance(lead.not_told_apart, str) else []  # else NaN
    if not alike:
        claim = f"**{leader}** is best with {number}"
    elif len(alike) == len(tables.cells) - 1:
        claim = f"no cell leads significantly; the lowest is {leader} with {number}"
    else:
        names = ", ".join([leader, *alike[:-1]])
        claim = f"{names} and {alike[-1]} lead, not told from each other; the lowest is {leader} "
        claim += f"with {number}"
    return "; ".join([claim, *_close(tables, lead.metric)])


def _close(tables: Tables, metric: str) -> list[str]:
    """Groups whose cells all differ by less than the interval of their lowest one.

    All cells are one group where that holds for them, else those of each architecture.
    """
    anchor = tables.about["anchor"]

    def spread(cells: Sequence[str]) -> float | None:
        known = np.array([tables.bd(cell, metric, anchor) for cell in cells])
        low, low_bound, high_bound = known[known[:, 0].argmin()]
        found = float(known[:, 0].max() - low)
        close = len(cells) > 1 and np.isfinite(known).all() and found < high_bound - low_bound
        return found if close else None

    groups = {f"of {arch}": cells for arch, cells in architectures(tuple(tables.cells)).items()}
    if spread(list(tables.cells)) is not None:
        groups = {"cells": list(tables.cells)}
    said = [
        f"the {len(cells)} {name} within {found:.1f}"
        for name, cells in groups.items()
        if (found := spread(cells)) is not None
    ]
    return [f"{', '.join(said)}, less than the interval"] if said else []


def bd_cell(estimate: float, low: float, high: float) -> str:
    """A BD-rate and its interval as a table shows it; a dash where there is none."""
    if not math.isfinite(estimate):
        return "-"
    if not math.isfinite(low):
        return f"{estimate:+.1f}"
    return f"{estimate:+.1f} [{low:+.1f}, {high:+.1f}]"


def _short(estimate: float, low: float, high: float) -> str:
    if not math.isfinite(estimate):
        return "-"
    return f"{estimate:+.1f}" + (f" [{low:.0f}, {high:.0f}]" if math.isfinite(low) else "")


def _bd_table(tables: Tables, metric: str) -> str:
    references = tables.references
    rows = [
        [
            title(curve),
            *("0" if a == curve else bd_cell(*tables.bd(curve, metric, a)) for a in references),
        ]
        for curve in tables.costs["curve"]
    ]
    return markdown_table(["curve", *(f"vs {title(anchor)}" for anchor in references)], rows)


def _missing(tables: Tables) -> list[str]:
    """Why numbers are missing, for the cells against the references."""
    anchors: dict[tuple[str, str, str], list[str]] = {}
    for one in tables.about["missing"]:
        key = (one["metric"], one["curve"], one["reason"])
        anchors.setdefault(key, []).append(title(one["anchor"]))
    curves: dict[tuple[str, str, str], list[str]] = {}
    for (metric, curve, reason), names in anchors.items():
        curves.setdefault((metric, ", ".join(names), reason), []).append(curve)
    lines = [
        f"- {METRICS[metric].title}, {', '.join(found)} against {names}: {reason}."
        for (metric, names, reason), found in curves.items()
    ]
    return ["Not comparable (-):\n", *lines, ""] if lines else []


def _published(tables: Tables) -> list[str]:
    if tables.published.empty:
        return []
    return [
        "## Against published curves\n",
        "BD-rate in per cent of every cell against means over the same pictures that others "
        "published (sources: `src/linocut/lab/evaluation/kodak_curves.json`); their files are not "
        "measured here, so there are no intervals.\n",
        "<!-- published -->",
        published_block(tables),
        "<!-- /published -->\n",
    ]


def published_block(tables: Tables) -> str:
    """A table for each metric, a row for each published codec, a column for each cell."""
    blocks = []
    for metric, found in tables.published.groupby("metric", sort=False):
        wide = found.pivot(index="codec", columns="cell", values="bd_rate")
        wide = wide.loc[found["codec"].unique(), list(tables.cells)]
        rows = [[codec, *(f"{one:+.1f}" if one == one else "-" for one in rates)]
                for codec, rates in zip(wide.index, wide.to_numpy(), strict=True)]  # fmt: skip
        blocks.append(
            markdown_table([f"{METRICS[str(metric)].title} against", *tables.cells], rows)
        )
    return "\n\n".join(blocks)


def _ranking(tables: Tables) -> list[str]:
    """The losses of each architecture against the leading one; nothing for a single loss."""
    others = tables.ranking
    if others.empty or (others["curve"] == others["best"]).all():
        return []
    count = len(tables.about["pictures"])
    return [
        "## Losses against each other\n",
        "Every loss against the leading one of its architecture, at equal quality. p: exact "
        f"sign-flip test over the {count} pictures, Holm's correction over all pairs of losses; "
        f"below {SIGNIFICANT} counts. With {count} pictures no uncorrected p is below "
        f"{2.0 ** (1 - count):.2g}. Detectable: the difference that such a set of pictures shows "
        "four times in five.\n",
        ranking_table(tables.ranking),
        "",
    ]


def ranking_table(ranking: pd.DataFrame) -> str:
    """Every loss that does not lead its architecture, from rows of `Ranked` and their metric."""
    rows = [
        [METRICS[row.metric].title, row.best, row.curve,
         f"{row.bd_rate:+.1f} [{row.low:+.1f}, {row.high:+.1f}]",
         _p_value(row.p_value), f"{row.detectable:.1f}"]
        for row in ranking.itertuples() if row.curve != row.best
    ]  # fmt: skip
    header = ["metric", "leading loss", "other loss", "more bits [%]", "p", "detectable [%]"]
    return markdown_table(header, rows)


def _p_value(p_value: float) -> str:
    if not math.isfinite(p_value):
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _quality_table(tables: Tables) -> str:
    digits = {metric: 1 if metric == "ssimulacra2" else 2 for metric in METRICS}
    rows = []
    for curve in tables.costs["curve"]:
        points = tables.rd[tables.rd["curve"] == curve]
        bpp = points["bpp"].to_numpy()
        read = {m: np.interp(np.log(QUOTED_BPP), np.log(bpp), points[m]) for m in METRICS}
        row = [title(curve)]
        for place, wanted in enumerate(QUOTED_BPP):
            inside = bpp[0] <= wanted <= bpp[-1]
            numbers = {metric: values[place] for metric, values in read.items()}
            row.append(" / ".join(
                f"{number:.{digits[metric]}f}" if inside and math.isfinite(number) else "-"
                for metric, number in numbers.items()
            ))  # fmt: skip
        rows.append(row)
    return markdown_table(["curve", *(f"{bpp:g} bpp" for bpp in QUOTED_BPP)], rows)


def _cost_table(tables: Tables) -> str:
    rises = {1.0: "yes", 0.0: "**no**"}
    rows = [
        [title(row.curve), str(row.files), f"{row.bpp_low:.3f} .. {row.bpp_high:.2f}",
         f"{row.over_estimate_percent:+.2f} %" if math.isfinite(row.over_estimate_percent) else "",
         rises.get(row.monotone, ""), f"{row.encode_s_per_mp:.2f}", f"{row.decode_s_per_mp:.2f}"]
        for row in tables.costs.itertuples()
    ]  # fmt: skip
    header = ["curve", "files", "mean bpp", "over estimate", "monotone"]
    return markdown_table([*header, "encode s/MP", "decode s/MP"], rows)


def printed_comparison(tables: Tables) -> str:
    """The comparison for a terminal: what `make repro` prints."""
    shown = tables.references
    curves = list(tables.costs["curve"])
    width = max(map(len, map(title, curves)))
    lines = ["BD-rate, per cent of bits at equal quality (negative: fewer) [95 % interval]"]
    for metric, kind in METRICS.items():
        lines += ["", f"{kind.title:<{width}}" + "".join(f"  {title(a):>22}" for a in shown)]
        for curve in curves:
            cells = ["" if a == curve else bd_cell(*tables.bd(curve, metric, a)) for a in shown]
            lines.append(f"{title(curve):<{width}}" + "".join(f"  {cell:>22}" for cell in cells))
    metrics = tables.metrics
    return "\n".join([
        *lines, "", headline(tables).replace("**", ""), "",
        f"{metrics['files']} files, at most {metrics['rate_over_estimate_percent']:+.2f} % off "
        "their estimated size.",
        "Next: reports/report.md (pictures and curves), `make ui` (trainings in MLflow), "
        "`dvc metrics diff`.",
    ])  # fmt: skip
