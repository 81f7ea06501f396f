"""Runs in MLflow for all results that DVC has, whoever and whatever made them.

    python -m linocut.lab.tracking.sync         (`make ui`)

    dvc.lock, DVC's cache --> a run per cell --> a parent per study --> the champion

Doing it twice changes nothing. The run that a training wrote while it went on is completed, also
where the store went away in the middle; a result that came from the cache, or from a colleague,
gets a run of its own. A study is what shares its data and its numbers: the whole grid, and each
part of it that was run for itself.

The rate-distortion curve of a cell is a metric whose steps are rates: `rd/PSNR dB` at step 250
is the PSNR at 0.25 bits per pixel. Charts of several runs then show their curves in one frame.
The best codec is in the model registry, where others find it by the alias `champion`:
models:/linocut@champion.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import math
import os
import pathlib
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import linocut
from linocut.errors import DataError, LinocutError
from linocut.lab.evaluation import rd
from linocut.lab.evaluation.comparison import (
    METRICS,
    RANKING,
    REFERENCES,
    mean_points,
    picture_curves,
)
from linocut.lab.evaluation.rows import AnchorRow, EvaluationRow, MeasuredRow
from linocut.lab.report import figures
from linocut.lab.report.experiments import (
    Anchors,
    Cell,
    Revision,
    anchor_rows,
    measured,
    revisions,
)
from linocut.lab.tracking.live import (
    KILOPIXELS,
    all_runs,
    collected,
    digest,
    flat,
    open_store,
    shown_params,
    without_secrets,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MILLIBPP = 1000
"""The steps of the rate-distortion curves are thousandths of a bit per pixel."""
QUOTED_BPP = (0.25, 0.5, 1.0)
BD_RATES = "BD-rate"
PALER = {"generative": 0.45, "cae2018": 0.7}
"""Architectures whose runs have the colour of their loss with so much white in it."""

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
            place = (ranking(cell, references), revision.experiment)
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
        result = result_key(cell)
        weights = digest(cell.files["train"]["model.safetensors"].read_bytes())
        run = self._find({"linocut.result": result})
        if run is not None:
            self._kept.add(run.info.run_id)
        else:
            run = self._find({"linocut.weights": weights, "linocut.result": None})
            run = run or self._broken_off(cell)
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
                    "mlflow.runColor": colour(cell),
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
        version = crown(
            self._client,
            run.info.run_id,
            codec_files(cell),
            middle_step(cell),
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

    def _broken_off(self, cell: Cell) -> Run | None:
        """The run of this very training whose store went away in the middle, with all its curves.

        It has no hash of the weights yet; what it has of the curves is the start of these.
        """
        curve = history(cell)
        losses = {(point.step, point.value) for point in curve if point.name == "train/loss"}
        for run in self._runs.values():
            tags = run.data.tags
            ended = "linocut.weights" in tags or "linocut.result" in tags
            if ended or tags.get("linocut.cell") != cell.name:
                continue
            there = self._client.get_metric_history(run.info.run_id, "train/loss")
            if there and losses.issuperset((point.step, point.value) for point in there):
                last = max(point.step for point in there)
                self._points(run, [point for point in curve if point.step > last])
                return self._client.get_run(run.info.run_id)
        return None

    def _make(self, cell: Cell) -> Run:
        curve = history(cell)
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
        self._points(run, results(cell, anchors))
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
        codec = codec_files(cell)
        with collected(files | {f"codec/{name}": path for name, path in codec.items()}) as folder:
            self._client.log_artifacts(run_id, str(folder))
        if run.info.status == "RUNNING":  # the stage ended before the store had answered
            seconds = max((point.seconds for point in history(cell)), default=0.0)
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
            draw_curves(cells, anchors, folder / "rd.png")
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


# --- what the page of a run shows -----------------------------------------------------------------


class Point(NamedTuple):
    """One number of a run; `seconds` since its start, where that is known."""

    name: str
    value: float
    step: int = 0
    seconds: float = 0.0


def result_key(cell: Cell) -> str:
    """Identity of a result: how it was made, its codec, and what was measured but for the times."""
    codec = {name: digest(path.read_bytes()) for name, path in codec_files(cell).items()}
    quality = [(row.picture, row.point, row.bytes, row.psnr_db) for row in measured(cell)]
    made = [cell.name, flat(dict(cell.params)), dict(cell.data)]
    return digest(json.dumps([made, codec, quality], sort_keys=True).encode())


def codec_files(cell: Cell) -> dict[str, Path]:
    """Files that `Codec.load` reads, by their names in the codec's folder."""
    return {
        name.removeprefix("codec/"): path
        for name, path in sorted(cell.files["entropy_code"].items())
        if name.startswith("codec/")
    }


def history(cell: Cell) -> list[Point]:
    """The curves of the training."""
    with cell.files["train"]["history.csv"].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Point(
            f"train/{name}",
            float(text),
            round(float(row["megapixels"]) * KILOPIXELS),
            float(row.get("seconds") or 0),
        )
        for row in rows
        for name, text in row.items()
        if name != "megapixels" and text
    ]


def results(cell: Cell, anchors: Anchors) -> list[Point]:
    """The measured curve, and the numbers to sort and to compare runs by."""
    rows, points = measured(cell), []
    for metric, kind in METRICS.items():
        bpp, quality = picture_curves(cell.name, rows, metric).mean()
        name = kind.title if metric == "ssimulacra2" else f"{kind.title} dB"
        points += [
            Point(f"rd/{name}", float(value), round(float(rate) * MILLIBPP))
            for rate, value in zip(bpp, quality, strict=True)
        ]
        points += [
            Point(
                f"eval/{name} at {quoted:g} bpp",
                round(float(np.interp(math.log(quoted), np.log(bpp), quality)), 3),
            )
            for quoted in QUOTED_BPP
            if bpp[0] <= quoted <= bpp[-1]
        ]
        points += [
            Point(
                f"{BD_RATES}/{kind.title} vs {anchor}",
                round(_bd_rate(anchors[anchor], rows, metric), 2),
            )
            for anchor in REFERENCES
            if anchor in anchors
        ]
    excess = sum(row.bpp for row in rows) / sum(row.estimated_bpp for row in rows) - 1
    points += [
        Point("eval/rate over estimate percent", round(100 * excess, 3)),
        Point("eval/encode s", round(float(np.mean([row.encode_s for row in rows])), 3)),
        Point("eval/decode s", round(float(np.mean([row.decode_s for row in rows])), 3)),
        Point("eval/codec kB", sum(p.stat().st_size for p in codec_files(cell).values()) / 1000),
    ]
    return [point for point in points if math.isfinite(point.value)]


def ranking(cell: Cell, anchors: Anchors) -> float:
    """BD-rate in PSNR against the anchor that ranks cells in the report; the lowest is the best."""
    anchor = next((name for name in RANKING if name in anchors), None)
    value = _bd_rate(anchors[anchor], measured(cell), "psnr_db") if anchor else math.inf
    return value if math.isfinite(value) else math.inf


def middle_step(cell: Cell) -> float:
    """The quantisation step that gave about half a bit per pixel."""
    return min((abs(math.log(row.bpp / 0.5)), row.step) for row in measured(cell))[1]


def colour(cell: Cell) -> str:
    """Colour of a run in MLflow's charts: that of its loss in the report."""
    white = PALER.get(cell.arch, 0.0)
    channels = bytes.fromhex(figures.colour(cell.loss).removeprefix("#"))
    return "#" + bytes(round(value + white * (255 - value)) for value in channels).hex()


def draw_curves(cells: Sequence[Cell], anchors: Anchors, path: Path) -> None:
    """Rate-distortion curves of cells, before those of the anchors."""
    names = [cell.name for cell in cells]
    rows: dict[str, Sequence[MeasuredRow]] = {**anchors}
    rows |= {cell.name: measured(cell) for cell in cells}
    kinds = {name: "cell" if name in names else "anchor" for name in rows}
    curves = {
        metric: {name: picture_curves(name, rows[name], metric) for name in rows}
        for metric in METRICS
    }
    figures.draw_rd(names, mean_points(curves, kinds), path)


def _bd_rate(anchor: Sequence[AnchorRow], rows: Sequence[EvaluationRow], metric: str) -> float:
    try:
        return rd.bd_rate_between(
            picture_curves("anchor", anchor, metric), picture_curves("cell", rows, metric)
        )
    except LinocutError:
        return math.nan


# --- the champion: the best codec in MLflow's model registry --------------------------------------

MODEL = "linocut"
ALIAS = "champion"
REQUIREMENTS = ("constriction", "numpy", "onnxruntime", "pillow", "safetensors", "threadpoolctl")
"""What a decoder imports; the package itself is stored with the model."""
DESCRIPTION = """\
The codec of the working tree that needs the fewest bits at equal PSNR, networks and tables in it.

`mlflow.pyfunc.load_model("models:/linocut@champion").predict(picture, params={"step": 24.0})`: a
picture (h, w, 3) uint8 sRGB in; the decoded `picture`, its `bpp` and the `file` out. `step` is the
quantisation step in grey levels, 1 to 1024: larger is smaller and worse.
"""


def crown(
    client: MlflowClient,
    run_id: str,
    codec: Mapping[str, pathlib.Path],
    step: float,
    tags: Mapping[str, str],
) -> str:
    """Register a codec unless it is there already, point the alias at it, and return its version.

    Args:
        client: of the store.
        run_id: the run that the codec came from.
        codec: files of the codec's folder by their names.
        step: the default quantisation step.
        tags: of the version; `linocut.result` tells whether it is there.
    """
    versions = client.search_model_versions(f"name='{MODEL}'")
    known = [v for v in versions if v.tags.get("linocut.result") == tags["linocut.result"]]
    if known:
        version = str(known[0].version)
    else:
        info = client.get_run(run_id).info
        version = _register(run_id, codec, step)
        client.set_terminated(run_id, info.status, info.end_time)  # it has just ended again
        for name, text in tags.items():
            client.set_model_version_tag(MODEL, version, name, text)
        client.update_registered_model(MODEL, DESCRIPTION)
        client.update_model_version(MODEL, version, _described(tags))
    if str(client.get_registered_model(MODEL).aliases.get(ALIAS)) != version:
        client.set_registered_model_alias(MODEL, ALIAS, version)
    return version


def _described(tags: Mapping[str, str]) -> str:
    """A version in a line of plain text."""
    bits, out = tags.get("BD-rate percent"), tags.get("dvc.out")
    against = f", {bits} % of bits against JPEG 2000" if bits else ""
    return f"{tags['linocut.cell']}{against}" + (f"; {out} in DVC's cache" if out else "")


def _register(run_id: str, codec: Mapping[str, pathlib.Path], step: float) -> str:
    import mlflow
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, 3))]),
        params=ParamSchema([ParamSpec("step", DataType.double, step)]),
    )
    package = pathlib.Path(str(linocut.__file__)).parent
    silence = contextlib.redirect_stderr(io.StringIO())  # MLflow reports each of its steps
    with collected(codec) as folder, silence, mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="codec",
            python_model=str(package / "lab/tracking/model.py"),
            code_paths=[str(package)],
            artifacts={"codec": str(folder)},
            signature=signature,
            pip_requirements=list(REQUIREMENTS),
            registered_model_name=MODEL,
        )
    return str(logged.registered_model_version)


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
