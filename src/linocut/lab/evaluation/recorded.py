"""Finished cells as dvc.lock records them, in the working tree and in every DVC experiment.

    dvc.lock + DVC's cache -> revisions -> cells -> parameters, hashes, files

Everything is read by hash from DVC's cache, never from artifacts/: the experiments of the queue and
the cells that are not checked out are there too, and nothing can be half written.
"""

from __future__ import annotations

import copy
import functools
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linocut.lab.evaluation.rows import AnchorRow, EvaluationRow, read_rows

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
