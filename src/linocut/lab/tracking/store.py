"""The MLflow store: where it is, and that nobody waits for it longer than seconds.

    open_store() --> a client and the id of the experiment `linocut`

`$MLFLOW_TRACKING_URI` names a server. Without it the runs are in `.mlflow/` of the checkout that
DVC runs from, `$DVC_ROOT`: a queued experiment works in a copy that is thrown away. A password in
the address is handed to MLflow apart from it, so that no message of anybody's can show it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from linocut.files import sha256_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

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
    "arch.game.resting_accuracy",
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
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # it reports each table that it makes
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
