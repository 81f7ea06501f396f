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
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from linocut.lab.evaluation.comparison import architectures, compare_curves
from linocut.lab.evaluation.rows import CONTROLS
from linocut.lab.report import figures, page, robustness_section, side_by_side, twin_section
from linocut.lab.report.markdown import printed_comparison, report_text
from linocut.lab.report.tables import read_tables, tables_of

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
        twins=twin_section.table(twins),
        gates=twin_section.gates(twins),
        bit_errors=robustness_section.table(damaged),
    ).write(reports)
    tables = read_tables(reports)  # what is shown is what the files hold
    drawable = {
        "pca.png": figures.energy_lines(cells, artifacts / "rotated"),
        "training.png": figures.training_lines(cells, artifacts / "trained"),
        "twin.png": twin_section.lines(twins),
        "bit_errors.png": robustness_section.lines(tables.bit_errors),
    }
    lines = {name: one for name, one in drawable.items() if one is not None}
    for name, one in lines.items():
        figures.draw_lines(one, plots / name)
    figures.draw_rd(cells, comparison.points, plots / "rd.png")
    figures.draw_bd_rates(comparison, plots / "bd_rate.png")
    twin_section.draw(twins, plots)
    robustness_section.draw(damaged, plots)
    exhibits = side_by_side.collect(comparison, artifacts)
    columns = max(len(group) for group in architectures(cells).values())
    for exhibit in exhibits:
        side_by_side.draw_matched(exhibit, plots / f"matched-{exhibit.picture}.png")
        side_by_side.draw_cells(exhibit, plots / f"cells-{exhibit.picture}.png", columns)
    text = report_text(tables, sorted(path.name for path in plots.glob("*.png")))
    (reports / "report.md").write_text(text, encoding="utf-8")
    shown = page.page_text(
        tables,
        text,
        exhibits,
        coded=artifacts / "coded",
        lines=list(lines.values()),
        provenance=_provenance(artifacts, versions, params),
        galleries={
            "twins": twin_section.galleries(twins),
            "damaged": robustness_section.galleries(damaged),
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
