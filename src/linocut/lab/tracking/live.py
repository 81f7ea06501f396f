"""A window on training: its curves appear in MLflow while the stage runs.

    with live.run("cae-l1", arch="cae", loss="l1", params=..., fingerprint=...) as log:
        log({"loss": 0.5, "psnr_db": 27.1}, megapixels=1.5)

A stage neither fails nor waits because of MLflow: a thread of its own does the writing, gives up at
the first error and says so once. Nothing is lost by that, because the same numbers are in the
stage's outputs, from which `linocut.lab.tracking.sync` makes the runs. MLflow is never read by the
pipeline. The load of processor and memory is logged beside the curves where MLflow's own switch
asks for it (`MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from linocut.lab.tracking import store

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
    writer = _Writer(tags, store.shown_params(params) | {"arch": arch, "loss": loss})
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
        writer.close(status, store.digest(weights.read_bytes()) if done and weights else None)


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
            step = round(megapixels * store.KILOPIXELS)
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
            reason = store.without_secrets(" ".join(str(error).split()))[:160]
            logger.warning("MLflow is out of reach, going on without it: %s. %s", reason, _LATER)

    def _write(self) -> None:
        client, experiment = store.open_store()
        from mlflow.entities import Param, RunTag

        run = store.find_run(client, experiment, fingerprint=self._fingerprint)
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
        "mlflow.source.git.commit": store.git_commit(),
        "mlflow.user": os.environ.get("USER", ""),
        "mlflow.note.content": note,
    }
    return {name: text for name, text in tags.items() if text}
