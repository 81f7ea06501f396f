"""Runs in MLflow for all results that DVC has, whoever and whatever made them.

    python -m linocut.lab.tracking.sync         (`make ui`)

    dvc.lock, DVC's cache --> a run per cell --> a parent per study --> the champion

Doing it twice changes nothing. The run that a training wrote while it went on is completed; a
result that came from the cache, or from a colleague, gets a run of its own. A study is what shares
its data and its numbers: the whole grid, and each part of it that was run for itself.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from linocut.errors import DataError
from linocut.lab.evaluation.recorded import Anchors, Cell, Revision, anchor_rows, revisions
from linocut.lab.tracking import registry, results
from linocut.lab.tracking.results import BD_RATES, Point
from linocut.lab.tracking.store import (
    all_runs,
    collected,
    digest,
    open_store,
    shown_params,
    without_secrets,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STUDY_PARAMS = ("seed", "data", "prepare", "train", "pca", "code")
UPLOAD_TIMEOUT_S = 120
TABLE = urllib.parse.urlencode(
    {
        "orderByKey": f"metrics.`{BD_RATES}/PSNR vs jpeg2000`",
        "orderByAsc": "true",
        "workflowType": "machine_learning",
    }
)
"""How the table of runs opens: the fewest bits first, among pages about training."""


def sync(root: pathlib.Path) -> str:
    """Make or complete the runs of the checkout `root` and of its experiments; say what was done.

    Raises:
        Exception: whatever MLflow raises when its store is out of reach.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(UPLOAD_TIMEOUT_S))
    sync = _Sync(*open_store())
    anchors: dict[str, Anchors] = {}
    studies: dict[str, dict[str, tuple[Cell, Run]]] = {}
    ranked: list[tuple[float, str, Cell, Run]] = []
    older = 0
    for revision in revisions(root):
        for cell in revision.cells():
            study = _study(cell)
            try:
                references = anchor_rows(revision.files("anchors"))
                run = sync.put_cell(cell, revision, references)
            except DataError:  # tables of another version of this package
                older += 1
                continue
            anchors.setdefault(study, references)
            studies.setdefault(study, {}).setdefault(cell.name, (cell, run))
            place = (results.ranking(cell, references), revision.experiment)
            ranked.append((*place, cell, run))
    for study, members in studies.items():
        sync.put_study(study, members, anchors[study])
    done = sync.counts()
    if older:
        done += f", {older} left out: their tables are those of another version"
    here = [candidate for candidate in ranked if not candidate[1]]
    if here:
        bd_rate, _, cell, run = min(here, key=lambda candidate: candidate[0])
        done += sync.crown(bd_rate, cell, run)
        other, experiment, best, _ = min(ranked, key=lambda candidate: candidate[0])
        if other < bd_rate:
            done += (
                f"\n{best.name} of the experiment {experiment} needs fewer bits ({other:+.1f} % "
                f"against {bd_rate:+.1f} %): `dvc exp apply {experiment}` makes it the champion"
            )
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    server = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    table = f"{server}/#/experiments/{sync.experiment}/runs?{TABLE}"
    return f"{done}\nTable of the cells, while the server runs: {without_secrets(table)}"


class _Sync:
    """The runs of the store, by the results that they show, and what was done to them."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._made: set[str] = set()
        self._completed: set[str] = set()
        self._kept: set[str] = set()
        self._client = client
        self.experiment = experiment
        self._runs = {run.info.run_id: run for run in all_runs(client, experiment)}

    def put_cell(self, cell: Cell, revision: Revision, anchors: Anchors) -> Run:
        """The run of a cell, made or completed if need be."""
        result = results.result_key(cell)
        weights = digest(cell.files["train"]["model.safetensors"].read_bytes())
        run = self._find({"linocut.result": result})
        if run is not None:
            self._kept.add(run.info.run_id)
        else:
            run = self._find({"linocut.weights": weights, "linocut.result": None})
            if run is not None:
                self._completed.add(run.info.run_id)
            else:
                run = self._make(cell)
                self._made.add(run.info.run_id)
            self._fill(run, cell, anchors)
            self._tag(
                run,
                {
                    "linocut.cell": cell.name,
                    "linocut.arch": cell.arch,
                    "linocut.loss": cell.loss,
                    "linocut.weights": weights,
                    "dvc.out": cell.outs["evaluate"],
                    "mlflow.runColor": results.colour(cell),
                    "mlflow.source.name": "dvc.yaml",
                    "mlflow.source.git.commit": revision.commit,
                    "mlflow.note.content": _note(cell, revision),
                    "linocut.result": result,
                },
            )
        names = [name for name in run.data.tags.get("dvc.exp", "").split(", ") if name]
        if revision.experiment and revision.experiment not in names:
            self._tag(run, {"dvc.exp": ", ".join(sorted([*names, revision.experiment]))})
        return run

    def counts(self) -> str:
        """How many runs were made, completed and left alone; a cell may be in many revisions."""
        kept = len(self._kept - self._made - self._completed)
        made, completed = len(self._made), len(self._completed)
        return f"MLflow runs: {made} made, {completed} completed, {kept} unchanged"

    def put_study(
        self, study: str, members: Mapping[str, tuple[Cell, Run]], anchors: Anchors
    ) -> None:
        """The parent of all cells of a study, with their curves in one figure."""
        cells = [cell for cell, _ in members.values()]
        parent = self._find({"linocut.study": study})
        if parent is None:
            parent = self._client.create_run(self.experiment, run_name=_title(cells[0]))
            shared = {name: cells[0].params.get(name, {}) for name in STUDY_PARAMS}
            self._params(parent, shared, {})
            self._tag(parent, {"linocut.study": study, "mlflow.source.name": "dvc.yaml"})
            self._client.set_terminated(parent.info.run_id)
        for _, run in members.values():
            if run.data.tags.get("mlflow.parentRunId") != parent.info.run_id:
                self._tag(run, {"mlflow.parentRunId": parent.info.run_id})
        shown = digest(json.dumps(sorted(cell.outs["evaluate"] for cell in cells)).encode())
        if parent.data.tags.get("linocut.shown") != shown:
            self._figure(parent.info.run_id, cells, anchors)
            note = f"{len(cells)} cells on the same data with the same numbers: see `rd.png`."
            self._tag(parent, {"mlflow.note.content": note, "linocut.shown": shown})

    def crown(self, bd_rate: float, cell: Cell, run: Run) -> str:
        """Make a cell the champion; say so."""
        version = registry.crown(
            self._client,
            run.info.run_id,
            results.codec_files(cell),
            results.middle_step(cell),
            {
                "linocut.cell": cell.name,
                "linocut.result": run.data.tags["linocut.result"],
                "dvc.out": cell.outs["entropy_code"],
                "BD-rate percent": f"{bd_rate:.2f}",
            },
        )
        return f"; champion: {cell.name} of the working tree, version {version}"

    def _find(self, tags: Mapping[str, str | None]) -> Run | None:
        for run in self._runs.values():
            if all(run.data.tags.get(name) == value for name, value in tags.items()):
                return run
        return None

    def _make(self, cell: Cell) -> Run:
        curve = results.history(cell)
        end = cell.files["train"]["history.csv"].stat().st_mtime
        start = int(1000 * (end - max((point.seconds for point in curve), default=0.0)))
        run = self._client.create_run(self.experiment, start_time=start, run_name=cell.name)
        self._points(run, curve)
        self._client.set_terminated(run.info.run_id, end_time=int(1000 * end))
        return self._client.get_run(run.info.run_id)

    def _fill(self, run: Run, cell: Cell, anchors: Anchors) -> None:
        run_id = run.info.run_id
        shown = dict(cell.params)
        own = {
            "arch": shown.pop(f"arch.{cell.arch}", {}),
            "loss": shown.pop(f"loss.{cell.loss}", {}),
        }
        self._params(run, {**shown, **own}, {"arch": cell.arch, "loss": cell.loss})
        self._points(run, results.results(cell, anchors))
        self._inputs(run_id, cell)
        self._pictures(run_id, cell)
        self._figure(run_id, [cell], anchors)
        files = {
            pathlib.PurePath(name).name: path
            for stage in cell.files.values()
            for name, path in stage.items()
            if name.endswith(".csv")
        }
        files |= {
            name: path
            for name, path in cell.files["evaluate"].items()
            if name.startswith("pictures/")
        }
        codec = results.codec_files(cell)
        with collected(files | {f"codec/{name}": path for name, path in codec.items()}) as folder:
            self._client.log_artifacts(run_id, str(folder))
        if run.info.status == "RUNNING":  # the stage ended before the store had answered
            seconds = max((point.seconds for point in results.history(cell)), default=0.0)
            self._client.set_terminated(run_id, end_time=run.info.start_time + int(1000 * seconds))

    def _pictures(self, run_id: str, cell: Cell) -> None:
        from PIL import Image

        for name, path in sorted(cell.files["evaluate"].items()):
            if name.startswith("pictures/"):
                picture, _, point = pathlib.PurePath(name).stem.rpartition("-")
                with Image.open(path) as opened:
                    self._client.log_image(
                        run_id, opened, key=f"decoded/{picture}", step=int(point)
                    )

    def _figure(self, run_id: str, cells: Sequence[Cell], anchors: Anchors) -> None:
        with collected({}) as folder:
            results.draw_curves(cells, anchors, folder / "rd.png")
            self._client.log_artifact(run_id, str(folder / "rd.png"))

    def _inputs(self, run_id: str, cell: Cell) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = cell.params.get("data", {}).get("source", "pictures")
        inputs = [
            DatasetInput(
                Dataset(f"{source}-{use}", md5, "dvc", json.dumps({"path": path, "md5": md5})),
                [InputTag("mlflow.data.context", use)],
            )
            for use, path in (("train", "prepared/train.npy"), ("test", "prepared/test"))
            if (md5 := cell.data.get(use))
        ]
        self._client.log_inputs(run_id, inputs)

    def _params(self, run: Run, params: dict[str, object], names: dict[str, str]) -> None:
        from mlflow.entities import Param

        new = [
            Param(name, text)
            for name, text in (shown_params(params) | names).items()
            if name not in run.data.params
        ]
        self._client.log_batch(run.info.run_id, params=new)

    def _points(self, run: Run, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        start = run.info.start_time
        metrics = [
            Metric(point.name, point.value, start + int(1000 * point.seconds), point.step)
            for point in points
        ]
        for first in range(0, len(metrics), 900):  # 1000 is the most that one call may hold
            self._client.log_batch(run.info.run_id, metrics=metrics[first : first + 900])

    def _tag(self, run: Run, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(run.info.run_id, tags=[RunTag(*item) for item in tags.items()])
        run.data.tags.update(tags)
        self._runs[run.info.run_id] = run


def _study(cell: Cell) -> str:
    """Identity of the study that a cell belongs to."""
    shared = {name: cell.params.get(name) for name in STUDY_PARAMS}
    return digest(json.dumps([shared, dict(cell.data)], sort_keys=True).encode())


def _title(cell: Cell) -> str:
    data = cell.params.get("data", {})
    source, test = data.get("source", "pictures"), data.get("test", "source")
    pictures = source if test in ("source", source) else f"{source}, tested on {test}"
    train = cell.params.get("train", {})
    shipped = train.get("init") == "shipped"
    length = "as shipped" if shipped else f"{train.get('megapixels', 0):g} Mpx"
    return f"study: {pictures}, {length}, seed {cell.params.get('seed')}"


def _note(cell: Cell, revision: Revision) -> str:
    if revision.experiment:
        origin = f"From the DVC experiment `{revision.experiment}`"
        fetch = f"dvc exp apply {revision.experiment}"
    else:
        origin = "Made, or taken from DVC's cache,"
        fetch = f"git checkout {revision.commit[:12]}"
    return (
        f"{origin} by\n\n    {fetch}\n    dvc repro evaluate@{cell.name}\n\n"
        "Steps of `train/`: thousands of pixels seen. Steps of `rd/`: thousandths of a bit per "
        "pixel. `BD-rate/`: per cent of bits at equal quality, less is better."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when the store could be written."""
    parser = argparse.ArgumentParser(
        prog="linocut.lab.tracking.sync",
        description="Make or complete an MLflow run for every result that DVC has.",
    )
    parser.parse_args(arguments)
    try:
        print(sync(pathlib.Path.cwd()))
    except Exception as error:
        reason = without_secrets(" ".join(str(error).split()))[:200]
        print(f"linocut.lab.tracking.sync: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
