"""What several test modules need: an MLflow store, which takes seconds to make."""

import importlib.util
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import settings

from linocut.entropy import kernel

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

ROOT = pathlib.Path(__file__).resolve().parents[1]

if importlib.util.find_spec("torch") is None:  # the codec alone is installed
    # what trains a network first, or compares with a library of the lab
    needs_lab = [
        "codec/test_codec.py",
        "codec/test_correction.py",
        "codec/test_rotation.py",
        "entropy/test_choice.py",
        "entropy/test_coder.py",
        "entropy/test_contexts.py",
        "entropy/test_kernel.py",
        "format/test_reed_solomon.py",
        "models/test_folders.py",
        "pictures/test_metadata.py",
        "pictures/test_quality.py",
    ]
    rooms = ("cli", "codec", "entropy", "format", "models", "pictures")
    own = ("test_files.py", "test_pillow.py")
    collect_ignore = needs_lab + [
        path.name
        for path in pathlib.Path(__file__).parent.iterdir()
        if (path.is_dir() and path.name not in rooms)
        or (path.name.startswith("test_") and path.name not in own)
    ]
RACER = """
import sys
from linocut.lab.tracking import live
live.PATIENCE_S = 240  # this machine may be busy
with live.run("cae-l1", arch="cae", loss="l1", params={}, fingerprint=sys.argv[1]) as log:
    log({"loss": 1.0}, 0.0)
"""


@dataclass(frozen=True)
class Race:
    """What three processes did that opened one store at once, before it existed."""

    folder: pathlib.Path
    returncodes: list[int]
    complaints: str


@pytest.fixture(scope="session")
def race(tmp_path_factory):
    folder = tmp_path_factory.mktemp("race")
    environment = os.environ | {"DVC_ROOT": str(folder), "PYTHONPATH": str(ROOT / "src")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, name], env=environment, stderr=subprocess.PIPE, text=True
        )
        for name in ("f1", "f2", "f3")
    ]
    complaints = [process.communicate(timeout=500)[1] for process in running]
    return Race(folder, [process.returncode for process in running], "".join(complaints))


def isolate(patch, folder):
    """No server, no DVC around, no patience, and the store in `folder`."""
    from linocut.lab.tracking import live

    patch.setenv("DVC_ROOT", str(folder))
    patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", str(live.SERVER_TIMEOUT_S))
    for name in ("MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        patch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def make_store(race):
    """A function that makes a store without runs in a folder/.mlflow."""

    def make(folder):
        (folder / ".mlflow").mkdir(parents=True)
        copy = folder / ".mlflow" / "mlflow.db"
        shutil.copy(race.folder / ".mlflow" / "mlflow.db", copy)
        database = sqlite3.connect(copy)
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"DELETE FROM {table}")
        location = (folder / ".mlflow" / "artifacts").as_uri()
        database.execute("UPDATE experiments SET artifact_location = ?", [location])
        database.commit()
        database.close()

    return make


@pytest.fixture(scope="session")
def codec_folder(tmp_path_factory):
    """The folder of a small, untrained, complete codec; a golden one where PyTorch is not there."""
    if importlib.util.find_spec("torch") is None:
        return ROOT / "tests" / "golden" / "wavelet"
    from small_codec import make_codec

    return make_codec(tmp_path_factory.mktemp("codec"))


@pytest.fixture
def isolated(monkeypatch, tmp_path):
    """No store, and no server."""
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def store(isolated, make_store, tmp_path):
    """A store without runs, in tmp_path/.mlflow; gives a function that lists its runs."""
    make_store(tmp_path)
    return list_runs


def list_runs():
    """The runs of the store that the environment names."""
    from linocut.lab.tracking import live

    return list(live.all_runs(*live.open_store()))


def pytest_collection_modifyitems(items):
    """The longest file first: it runs beside all others instead of after them."""
    items.sort(key=lambda item: item.path.name != "test_smoke.py")


def pytest_report_header():
    """Which form of entropy coding the tests run on; tests/entropy compares both."""
    return f"entropy coding: {kernel.description()}"
