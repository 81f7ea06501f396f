"""A window on training: its curves appear in MLflow while the stage runs.

    with live.run("cae-l1", arch="cae", loss="l1", params=..., fingerprint=...) as log:
        log({"loss": 0.5, "psnr_db": 27.1}, megapixels=1.5)

A stage neither fails nor waits because of MLflow: a thread of its own does the writing, gives up at
the first error and says so once. Nothing is lost by that, because the same numbers are in the
stage's outputs, from which `linocut.lab.tracking.sync` makes the runs. MLflow is never read by the
pipeline.

`$MLFLOW_TRACKING_URI` names a server. Without it the runs are in `.mlflow/` of the checkout that
DVC runs from, `$DVC_ROOT`: a queued experiment works in a copy that is thrown away. A password in
the address is handed to MLflow apart from it, so that no message of anybody's can show it.

The load of processor and memory is logged beside the curves where MLflow's own switch
asks for it (`MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true`).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from linocut.files import sha256_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Log = Callable[[Mapping[str, float], float], None]
"""Takes numbers by name and the megapixels seen so far."""

logger = logging.getLogger(__name__)

FLUSH_S = 5.0
PATIENCE_S = 20.0
"""The end of a stage waits this long for a store that answers, but slowly."""


@contextlib.contextmanager
def run(
    cell: str,
    *,
    arch: str,
    loss: str,
    params: Mapping[str, object],
    fingerprint: str,
    weights: pathlib.Path | None = None,
) -> Iterator[Log]:
    """Log a training to MLflow as long as MLflow can be reached.

    Args:
        cell: name of the run, `cae-l1`.
        arch: architecture.
        loss: loss.
        params: what the training depends on; nested mappings become dotted names.
        fingerprint: hash of everything the training depends on; a training that was interrupted
            and goes on under the same fingerprint goes on in the same run.
        weights: file that the training writes; by its hash `sync` finds this run again.
    """
    tags = {"cell": cell, "arch": arch, "loss": loss, "fingerprint": fingerprint}
    writer = _Writer(tags, shown_params(params) | {"arch": arch, "loss": loss})
    writer.start()
    status = "FAILED"
    try:
        yield writer.log
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        done = status == "FINISHED" and weights is not None and weights.is_file()
        writer.close(status, digest(weights.read_bytes()) if done and weights else None)


class _Writer(threading.Thread):
    """Owns the connection: whatever goes wrong with MLflow ends this thread and nothing else."""

    def __init__(self, tags: dict[str, str], params: dict[str, str]) -> None:
        super().__init__(name="tracking", daemon=True)
        self._tags = {f"linocut.{name}": value for name, value in tags.items()}
        self._params = params
        self._fingerprint = tags["fingerprint"]
        self._points: queue.SimpleQueue[tuple[dict[str, float], int, int]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._status = "FAILED"
        self._weights: str | None = None
        self._start_ms = int(time.time() * 1000)  # the store may take seconds to answer

    def log(self, metrics: Mapping[str, float], megapixels: float) -> None:
        """Hand over one row of the curves; returns at once."""
        if self.is_alive():
            step = round(megapixels * KILOPIXELS)
            self._points.put((dict(metrics), step, int(time.time() * 1000)))

    def close(self, status: str, weights: str | None) -> None:
        """Write what is left and end the run."""
        self._status, self._weights = status, weights
        self._closing.set()
        self.join(PATIENCE_S)
        if self.is_alive():
            logger.warning("MLflow is slow: left it after %.0f s. %s", PATIENCE_S, _LATER)

    def run(self) -> None:
        """Write until the stage ends or MLflow fails."""
        try:
            self._write()
        except Exception as error:
            reason = without_secrets(" ".join(str(error).split()))[:160]
            logger.warning("MLflow is out of reach, going on without it: %s. %s", reason, _LATER)

    def _write(self) -> None:
        client, experiment = open_store()
        from mlflow.entities import Param, RunTag

        run = find_run(client, experiment, fingerprint=self._fingerprint)
        if run is None:
            name = self._tags["linocut.cell"]
            run = client.create_run(experiment, start_time=self._start_ms, run_name=name)
        else:
            client.update_run(run.info.run_id, status="RUNNING")
        run_id = run.info.run_id
        # A resumed training repeats the rows since its last checkpoint.
        last = max((m.step for m in client.get_metric_history(run_id, "train/loss")), default=-1)
        client.log_batch(
            run_id,
            params=[
                Param(*item) for item in self._params.items() if item[0] not in run.data.params
            ],
            tags=[RunTag(*item) for item in (self._tags | _origin()).items()],
        )
        with self._watched(run_id):
            while not self._closing.wait(FLUSH_S):
                self._flush(client, run_id, last)
        self._flush(client, run_id, last)
        if self._weights:
            client.set_tag(run_id, "linocut.weights", self._weights)
        client.set_terminated(run_id, self._status)

    def _flush(self, client: Any, run_id: str, last: int) -> None:
        from mlflow.entities import Metric

        metrics = []
        while not self._points.empty():
            row, step, now = self._points.get()
            if step > last:
                metrics += [Metric(f"train/{name}", row[name], now, step) for name in row]
        for start in range(0, len(metrics), 900):  # 1000 is the most that one call may hold
            client.log_batch(run_id, metrics=metrics[start : start + 900])

    @contextlib.contextmanager
    def _watched(self, run_id: str) -> Iterator[None]:
        """Log the load of processor, memory and GPU meanwhile, where that is switched on."""
        if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "").lower() != "true":
            yield
            return
        from mlflow.system_metrics import system_metrics_monitor

        monitor: Any = system_metrics_monitor
        monitor = monitor.SystemMetricsMonitor(run_id, resume_logging=True)
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()


_LATER = "`python -m linocut.lab.tracking.sync` makes the run from the stage's outputs."


def _origin() -> dict[str, str]:
    """Tags that lead from a run back to the code and to DVC."""
    stage = os.environ.get("DVC_STAGE", "")
    experiment = os.environ.get("DVC_EXP_NAME", "")
    command = " ".join(["python", *sys.argv])
    note = f"`dvc repro {stage}` ran `{command}`" if stage else f"`{command}`"
    if experiment:
        note += f"\n\nin the experiment `{experiment}`: `dvc exp apply {experiment}`"
    tags = {
        "dvc.stage": stage,
        "dvc.exp": experiment,
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        "mlflow.source.name": sys.argv[0],
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git_commit(),
        "mlflow.user": os.environ.get("USER", ""),
        "mlflow.note.content": note,
    }
    return {name: text for name, text in tags.items() if text}


# --- the store, which nobody waits for longer than seconds ----------------------------------------

EXPERIMENT = "linocut"
HIDDEN_PARAMS = (
    "arch.game.batch_size",
    "arch.game.blend",
    "arch.game.crop_px",
    "arch.game.crops",
    "arch.game.discriminator_",
    "arch.game.distortion_weight",
    "arch.game.feature_weight",
    "arch.game.learning_rate",
    "arch.game.mean_weight",
    "arch.game.discriminator_accuracy",
    "arch.game.warmup_share",
    "arch.game.weave_weight",
    "arch.levels",
    "arch.target",
    "cell",
    "code.context_iterations",
    "code.crops",
    "code.rates_bpp",
    "code.tuning.batch_size",
    "code.tuning.crops",
    "code.tuning.learning_rate",
    "compare.",
    "data.folder",
    "data.more_train",
    "data.skip_bad",
    "data.test_share",
    "data.validation_share",
    "loss.target",
    "pca.crops",
    "prepare.",
    "train.base.",
    "train.gradient_clip",
)
KILOPIXELS = 1000
"""The steps of training curves: MLflow's are integers, so they count thousands of pixels."""
SERVER_TIMEOUT_S = 2


def local_folder() -> pathlib.Path:
    """Folder of the local store: the SQLite file, the artifacts and the lock."""
    return pathlib.Path(os.environ.get("DVC_ROOT", ".")).resolve() / ".mlflow"


def open_store() -> tuple[MlflowClient, str]:
    """A client and the id of the experiment `linocut`, both made where they are missing.

    Raises:
        Exception: whatever MLflow raises when its store is out of reach.
    """
    # MLflow's own patience is 7 retries over four minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SERVER_TIMEOUT_S))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # It reports each table that it makes, and shows a traceback where our callers say one line.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    server = _hide_password()
    import mlflow

    if server:
        mlflow.set_tracking_uri(server)
        client = mlflow.MlflowClient()
        return client, _experiment(client, artifact_location=None)
    folder = local_folder()
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "mlflow.db"
    artifacts = (folder / "artifacts").as_uri()
    with _locked(folder / "init.lock"):  # making the tables twice at once fails
        _set_aside_copy(folder, database)
        if not database.exists():
            _make_database(database, artifacts)
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    client = mlflow.MlflowClient()
    return client, _experiment(client, artifact_location=artifacts)


def without_secrets(text: str) -> str:
    """A text in which no address shows who logs in, nor with which password."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def find_run(client: MlflowClient, experiment: str, **tags: str) -> Run | None:
    """The newest run of which every tag `linocut.NAME` has the value given."""
    query = " and ".join(f"tags.`linocut.{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([experiment], query, max_results=1)
    return found[0] if found else None


def all_runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    """Every run of the experiment, the newest first."""
    token: str | None = ""
    while token is not None:
        page = client.search_runs([experiment], page_token=token or None)
        yield from page
        token = page.token or None


@contextlib.contextmanager
def collected(files: Mapping[str, pathlib.Path]) -> Iterator[pathlib.Path]:
    """A temporary folder with copies of files under new names."""
    with tempfile.TemporaryDirectory() as folder:
        for name, source in files.items():
            target = pathlib.Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        yield pathlib.Path(folder)


def shown_params(params: Mapping[str, object]) -> dict[str, str]:
    """The parameters that a run shows: a page of more than 30 is not read."""
    return {name: text for name, text in flat(params).items() if not name.startswith(HIDDEN_PARAMS)}


def flat(params: Mapping[str, object]) -> dict[str, str]:
    """Parameters as MLflow shows them: names with dots, values as text."""
    texts: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, dict):
            texts |= flat({f"{name}.{inner}": deep for inner, deep in value.items()})
        elif isinstance(value, list | tuple):
            texts[name] = ", ".join(str(item) for item in value)
        else:
            texts[name] = str(value)
    return texts


def digest(content: bytes) -> str:
    """The first 16 hexadecimal digits of SHA-256."""
    return sha256_of(content)[:16]


def git_commit() -> str:
    """Commit of this checkout, or an empty string outside git."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(
            command, capture_output=True, check=True, text=True, timeout=5
        ).stdout.strip()
    return ""


def _hide_password() -> str:
    """`$MLFLOW_TRACKING_URI` without name and password, which MLflow takes from variables too."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return address
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    os.environ.setdefault("MLFLOW_TRACKING_USERNAME", urllib.parse.unquote(name))
    os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", urllib.parse.unquote(password))
    address = urllib.parse.urlunsplit(parts._replace(netloc=host))
    os.environ["MLFLOW_TRACKING_URI"] = address
    return address


def _set_aside_copy(folder: pathlib.Path, database: pathlib.Path) -> None:
    """Put the database of a checkout that was copied or moved here aside, and say so.

    MLflow writes absolute paths into it: runs of this checkout would put their files into the other
    one, or into nothing. `sync` makes the runs again from what DVC has.
    """
    note = folder / "place"
    place = note.read_text(encoding="utf-8").strip() if note.is_file() else str(folder)
    if place != str(folder) and database.exists():
        number = len(list(folder.glob("mlflow.db.elsewhere-*"))) + 1
        aside = database.with_name(f"mlflow.db.elsewhere-{number}")
        database.rename(aside)
        logger.warning(
            "%s was made in %s and names files there: kept as %s, a new store begins, "
            "and `make ui` fills it",
            database, place, aside.name,
        )  # fmt: skip
    note.write_text(f"{folder}\n", encoding="utf-8")


def _make_database(database: pathlib.Path, artifact_location: str) -> None:
    """Make all tables in another file first: a process killed meanwhile must not leave half."""
    import mlflow

    unfinished = database.with_name(f"{database.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    _experiment(mlflow.MlflowClient(f"sqlite:///{unfinished}"), artifact_location)
    unfinished.replace(database)


def _experiment(client: MlflowClient, artifact_location: str | None) -> str:
    for attempt in (1, 2):
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=artifact_location))
        except Exception:  # another process may have been first
            if attempt == 2:
                raise
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
