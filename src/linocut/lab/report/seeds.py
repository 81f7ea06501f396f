"""What another seed of the training would change: the same cells, trained with several seeds.

    dvc exp run --queue -S seed=0,1,2 && dvc queue start
    python -m linocut.lab.report.seeds            (`make seeds`)

dvc.lock of the tree and of its experiments + DVC's cache --> cells by seed --> tables

Intervals come from draws of pictures and of seeds, both with replacement, the same draws for all
cells (crossed bootstrap). Seeds are few, so these intervals are a little too narrow: by a factor of
sqrt((n - 1) / n) in what n seeds contribute. P-values are over pictures, each one the mean of its
files over the seeds: seeds of one picture are no independent pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from linocut.errors import DataError, LinocutError
from linocut.lab.evaluation.comparison import (
    METRICS,
    RANKING,
    architectures,
    picture_curves,
    rank,
    title,
)
from linocut.lab.evaluation.rd import (
    PictureCurves,
    bd_rate_between,
    bd_rate_draws,
    percentile_interval,
)
from linocut.lab.evaluation.recorded import Anchors, anchor_rows, measured, revisions
from linocut.lab.evaluation.rows import MeasuredRow
from linocut.lab.report.markdown import bd_cell, ranking_table
from linocut.lab.report.tables import markdown_table

SHARED_PARAMS = ("data", "prepare", "train", "pca", "code")
"""What cells must have in common to differ by their seed alone, besides the test pictures."""

DRAWS = 1000


@dataclass(frozen=True)
class SeedStudy:
    """Cells that were trained with the same seeds, on the same data, with the same numbers.

    Attributes:
        seeds: all cells have all of these.
        cells: rows of each cell, by name and seed.
        anchors: rows of the classical codecs on the same pictures.
    """

    seeds: tuple[int, ...]
    cells: Mapping[str, Mapping[int, Sequence[MeasuredRow]]]
    anchors: Anchors


def studies(root: Path) -> list[SeedStudy]:
    """Everything in the checkout `root` and its experiments that has two seeds or more."""
    groups: dict[str, dict[str, dict[int, Sequence[MeasuredRow]]]] = {}
    references: dict[str, Anchors] = {}
    for revision in revisions(root):
        for cell in revision.cells():
            try:
                rows, anchors = measured(cell), anchor_rows(revision.files("anchors"))
            except DataError:  # tables of another version of this package
                continue
            shared = {name: cell.params.get(name) for name in SHARED_PARAMS}
            key = json.dumps([shared, cell.data.get("test")], sort_keys=True)
            seed = int(cell.params["seed"])
            groups.setdefault(key, {}).setdefault(cell.name, {}).setdefault(seed, rows)
            references.setdefault(key, anchors)
    found = []
    for key, by_name in groups.items():
        several = {name: by_seed for name, by_seed in by_name.items() if len(by_seed) > 1}
        seeds = sorted(set.intersection(*map(set, several.values()))) if several else []
        if len(seeds) > 1:
            cells = {
                name: {seed: by_seed[seed] for seed in seeds} for name, by_seed in several.items()
            }
            found.append(SeedStudy(tuple(seeds), cells, references[key]))
    return found


def crossed_draws(seeds: int, pictures: int, draws: int, seed: int = 0) -> NDArray[np.intp]:
    """Row numbers (draws, seeds * pictures) of drawn seeds x drawn pictures; rows by seed."""
    rng = np.random.default_rng(seed)
    drawn_seeds = rng.integers(0, seeds, (draws, seeds, 1))
    drawn_pictures = rng.integers(0, pictures, (draws, 1, pictures))
    return np.asarray((drawn_seeds * pictures + drawn_pictures).reshape(draws, -1))


def stacked_curves(
    name: str, by_seed: Mapping[int, Sequence[MeasuredRow]], metric: str
) -> PictureCurves:
    """The curves of all seeds under each other, a row per seed and picture.

    Raises:
        DataError: the seeds have different pictures or numbers of rate points.
    """
    curves = {seed: picture_curves(name, rows, metric) for seed, rows in by_seed.items()}
    shapes = {seed: (curve.pictures, curve.bpp.shape) for seed, curve in curves.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"the seeds of {name} have different pictures or rate points")
    names = tuple(f"{picture}@{seed}" for seed, one in curves.items() for picture in one.pictures)
    bpp = np.concatenate([curve.bpp for curve in curves.values()])
    quality = np.concatenate([curve.quality for curve in curves.values()])
    return PictureCurves(names, bpp, quality, METRICS[metric].unit)


def study_text(study: SeedStudy) -> str:
    """The tables of one study, as Markdown."""
    anchor = next((name for name in RANKING if name in study.anchors), None)
    if anchor is None:
        raise DataError("the experiments have no classical codec to compare with")
    lines: list[list[str]] = []
    rankings: list[dict[str, object]] = []
    pictures = 0
    for metric, shown in METRICS.items():
        curves = {
            name: stacked_curves(name, by_seed, metric) for name, by_seed in study.cells.items()
        }
        reference = stacked_curves(
            anchor, dict.fromkeys(study.seeds, study.anchors[anchor]), metric
        )
        pictures = len(reference.pictures) // len(study.seeds)
        draws = crossed_draws(len(study.seeds), pictures, DRAWS)
        units = np.arange(len(reference.pictures)).reshape(len(study.seeds), pictures).T
        for name, curve in curves.items():
            lines.append([shown.title, name, *_against(reference, curve, draws, units)])
        for cells in architectures(tuple(curves)).values():
            ranked = rank({cell: curves[cell] for cell in cells}, draws, units)
            rankings += [{"metric": metric, **vars(row)} for row in ranked]
    seeds = ", ".join(map(str, study.seeds))
    header = ["metric", "cell", f"BD-rate vs {title(anchor)} [%]", "each seed", "spread"]
    parts = [
        f"Seeds {seeds}; {len(study.cells)} cells; {pictures} pictures. Intervals of 95 %: "
        "pictures and seeds drawn with replacement. Spread: standard deviation over the seeds.\n",
        markdown_table(header, lines),
        "",
        ranking_table(pd.DataFrame(rankings)),
    ]
    return "\n".join(parts)


def _against(
    reference: PictureCurves,
    curve: PictureCurves,
    draws: NDArray[np.intp],
    units: NDArray[np.intp],
) -> tuple[str, str, str]:
    """BD-rate with its interval, that of every seed, and their spread."""
    try:
        estimate = bd_rate_between(reference, curve)
        by_seed = [bd_rate_between(_rows(reference, rows), _rows(curve, rows)) for rows in units.T]
    except LinocutError:
        return "-", "-", "-"
    interval = percentile_interval(estimate, bd_rate_draws(reference, curve, draws))
    each = " ".join(f"{value:+.1f}" for value in by_seed)
    return (
        bd_cell(interval.estimate, interval.low, interval.high),
        each,
        f"{np.std(by_seed, ddof=1):.2f}",
    )


def _rows(curves: PictureCurves, rows: NDArray[np.intp]) -> PictureCurves:
    names = tuple(curves.pictures[row] for row in rows)
    return PictureCurves(names, curves.bpp[rows], curves.quality[rows], curves.unit)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of all studies; 1 where there is none."""
    parser = argparse.ArgumentParser(
        prog="linocut.lab.report.seeds",
        description="Compare cells over the seeds of their trainings.",
    )
    parser.parse_args(arguments)
    try:
        found = studies(Path.cwd())
        texts = [study_text(study) for study in found]
    except LinocutError as error:
        print(f"linocut.lab.report.seeds: {error}", file=sys.stderr)
        return 1
    if not texts:
        print(
            "linocut.lab.report.seeds: no cell has two seeds: run "
            "`dvc exp run --queue -S seed=0,1,2`, then `dvc queue start`",
            file=sys.stderr,
        )
        return 1
    print("\n\n".join(texts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
