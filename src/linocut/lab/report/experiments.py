"""Results of every experiment as dvc.lock records them, and what another seed would change.

    dvc.lock of the tree and of its experiments + DVC's cache --> revisions --> cells: parameters,
        hashes, files --> cells by seed --> tables

    dvc exp run --queue -S seed=0,1,2 && dvc queue start
    python -m linocut.lab.report.experiments      (`make seeds`)

Everything is read by hash from DVC's cache, never from artifacts/: the experiments of the queue and
the cells that are not checked out are there too, and nothing can be half written.

Intervals come from draws of pictures and of seeds, both with replacement, the same draws for all
cells (crossed bootstrap). Seeds are few, so these intervals are a little too narrow: by a factor of
sqrt((n - 1) / n) in what n seeds contribute. P-values are over pictures, each one the mean of its
files over the seeds: seeds of one picture are no independent pictures.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from linocut.lab.evaluation.rows import AnchorRow, EvaluationRow, MeasuredRow, read_rows
from linocut.lab.report.build import bd_cell, ranking_table
from linocut.lab.report.tables import markdown_table

OPTIONS = ("arch.", "loss.", "task.")
"""Sections of which a stage depends on the option of its cell."""

CELL_STAGES = ("train", "fit_pca", "entropy_code", "evaluate")
TEST = "artifacts/prepared/test"
"""What the anchors and every cell are measured on."""
Files = Mapping[str, pathlib.Path]
"""Names inside an output folder, each with the file in the cache that holds its content."""
Anchors = Mapping[str, Sequence[AnchorRow]]
"""Rows of the classical codecs, by their names."""


@dataclass(frozen=True)
class Cell:
    """One architecture trained for one loss, with all results that came from that training.

    Attributes:
        name: `cae-l1`.
        arch: architecture.
        loss: loss.
        params: by section, as the stages that made the cell recorded them.
        data: MD5 of the training crops (`train`) and of the test pictures (`test`).
        outs: MD5 of the output of each stage.
        files: files of each stage's output.
    """

    name: str
    arch: str
    loss: str
    params: Mapping[str, Any]
    data: Mapping[str, str]
    outs: Mapping[str, str]
    files: Mapping[str, Files]


@dataclass(frozen=True)
class Revision:
    """dvc.lock at one place of the history.

    Attributes:
        experiment: name of the DVC experiment; empty for the working tree.
        commit: git commit of the lock, or the one that the working tree is based on.
        stages: entries of dvc.lock by the name of the stage.
        cache: folder of DVC's cache that holds the files by MD5.
    """

    experiment: str
    commit: str
    stages: Mapping[str, Any]
    cache: pathlib.Path

    def cells(self) -> Iterator[Cell]:
        """The cells whose stages are done, fit each other and the anchors, and are in the cache.

        dvc.lock also keeps cells that a smaller grid has left alone, as they were measured before,
        maybe on other pictures.
        """
        for stage in self.stages:
            if stage.startswith("train@"):
                cell = self._cell(stage.removeprefix("train@"))
                if cell is not None:
                    yield cell

    def files(self, stage: str) -> Files | None:
        """Files of the only output of a stage; None when it is not done or not in the cache."""
        outs = self.stages.get(stage, {}).get("outs", [])
        listing = _cached(self.cache, outs[0]["md5"]) if outs else None
        if listing is None:
            return None
        files = {item["relpath"]: _cached(self.cache, item["md5"]) for item in _listing(listing)}
        found = {name: path for name, path in files.items() if path is not None}
        return found if len(found) == len(files) else None

    def _cell(self, name: str) -> Cell | None:
        files: dict[str, Files] = {}
        hashes = {
            dep["path"]: dep["md5"]
            for dep in self.stages.get("anchors", {}).get("deps", [])
            if dep["path"] == TEST
        }
        params: dict[str, Any] = {}
        self._add_params("prepare", params)
        data: dict[str, str] = {}
        outs: dict[str, str] = {}
        for stage in CELL_STAGES:
            entry = self.stages.get(f"{stage}@{name}")
            found = self.files(f"{stage}@{name}")
            if entry is None or found is None:
                return None
            for dep in entry.get("deps", []):
                if hashes.get(dep["path"], dep["md5"]) != dep["md5"]:
                    return None  # this stage ran on what another version of the cell had made
                if dep["path"] == "artifacts/prepared/train.npy":
                    data["train"] = dep["md5"]
                if dep["path"] == TEST:
                    data["test"] = dep["md5"]
            out = entry["outs"][0]
            files[stage], outs[stage] = found, out["md5"]
            hashes[out["path"]] = out["md5"]
            hashes |= {f"{out['path']}/{inner}": _md5(path) for inner, path in found.items()}
            self._add_params(f"{stage}@{name}", params)
        arch, _, loss = name.partition("-")
        return Cell(name, arch, loss, params, data, outs, files)

    def _add_params(self, stage: str, params: dict[str, Any]) -> None:
        """Add what a stage recorded: `train.crop_px` inside `train`; options stay `arch.cae`."""
        recorded = self.stages.get(stage, {}).get("params", {}).get("params.yaml", {})
        for key in sorted(recorded):
            *sections, name = [key] if key.startswith(OPTIONS) else key.split(".")
            place = params
            for section in sections:
                place = place.setdefault(section, {})
            place[name] = copy.deepcopy(recorded[key])


def revisions(root: pathlib.Path) -> Iterator[Revision]:
    """The working tree of the checkout `root`, then its DVC experiments, the oldest first."""
    cache = _cache_folder(root)
    lock = root / "dvc.lock"
    if lock.is_file():
        commit = _git(root, "rev-parse", "HEAD").strip()
        yield Revision("", commit, _stages(lock.read_text(encoding="utf-8")), cache)
    refs = _git(
        root,
        "for-each-ref",
        "--sort=committerdate",
        "--format=%(objectname) %(refname)",
        "refs/exps",
    )
    for line in refs.splitlines():
        commit, ref = line.split(" ", 1)
        match = re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/([^/]+)", ref)
        if match:  # the other references are DVC's own
            text = _git(root, "show", f"{commit}:dvc.lock")
            yield Revision(match[1], commit, _stages(text), cache)


def measured(cell: Cell) -> list[EvaluationRow]:
    """What was measured on the files of a cell."""
    return read_rows(cell.files["evaluate"]["evaluation.csv"], EvaluationRow)


def anchor_rows(files: Files | None) -> Anchors:
    """The classical codecs of a revision; none where they were not run."""
    anchors: dict[str, list[AnchorRow]] = {}
    for row in read_rows(files["anchors.csv"], AnchorRow) if files else ():
        anchors.setdefault(row.codec, []).append(row)
    return anchors


@functools.lru_cache(maxsize=256)
def _listing(path: pathlib.Path) -> list[dict[str, str]]:
    items: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return items


def _cached(cache: pathlib.Path, md5: str) -> pathlib.Path | None:
    path = cache / md5[:2] / md5[2:]
    return path if path.is_file() else None


def _md5(path: pathlib.Path) -> str:
    """The hash that a file of the cache is named by."""
    return path.parent.name + path.name


def _stages(text: str) -> Mapping[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    lock = yaml.load(text, Loader=loader) or {}
    stages: Mapping[str, Any] = lock.get("stages", {})
    return stages


def _cache_folder(root: pathlib.Path) -> pathlib.Path:
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    folder = done.stdout.strip() if done.returncode == 0 else ".dvc/cache"
    return (root / folder / "files" / "md5").resolve()


def _git(root: pathlib.Path, *arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


# --- seeds: the same cells, trained with several --------------------------------------------------

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


def crossed_draws(seeds: int, pictures: int, draws: int) -> NDArray[np.intp]:
    """Row numbers (draws, seeds * pictures) of drawn seeds x drawn pictures; rows by seed."""
    rng = np.random.default_rng(0)
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
        prog="linocut.lab.report.experiments",
        description="Compare cells over the seeds of their trainings.",
    )
    parser.parse_args(arguments)
    try:
        found = studies(Path.cwd())
        texts = [study_text(study) for study in found]
    except LinocutError as error:
        print(f"linocut.lab.report.experiments: {error}", file=sys.stderr)
        return 1
    if not texts:
        print(
            "linocut.lab.report.experiments: no cell has two seeds: run "
            "`dvc exp run --queue -S seed=0,1,2`, then `dvc queue start`",
            file=sys.stderr,
        )
        return 1
    print("\n\n".join(texts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
