"""The champion is a model that anyone can load, without pickle and without this checkout."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from linocut.codec.codec import Codec
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.tracking import live, sync
from small_codec import make_codec

# MLflow leaves connections to SQLite to the garbage collector.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

STRANGER = """
import json, sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/linocut@champion")
picture = np.load(sys.argv[2])
default, coarse = model.predict(picture), model.predict(picture, params={"step": 100.0})
np.save(sys.argv[3], default["picture"])
import linocut
print(json.dumps([default["bpp"], coarse["bpp"], len(default["file"]), linocut.__file__]))
"""


def crown(codec, result):
    client, experiment = live.open_store()
    run = client.create_run(experiment)
    files = {path.name: path for path in codec.iterdir()}
    return sync.crown(
        client, run.info.run_id, files, 24.0, {"linocut.result": result, "linocut.cell": "cae-l2"}
    )


def test_a_stranger_loads_the_champion_and_gets_picture_and_rate(store, tmp_path):
    folder = make_codec(tmp_path / "made")
    assert crown(folder, "r1") == "1"
    picture = dead_leaves(96, 80, seed=3)
    np.save(tmp_path / "picture.npy", picture)
    uri = f"sqlite:///{tmp_path}/.mlflow/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, uri, tmp_path / "picture.npy", tmp_path / "out.npy"],
        env=os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    bpp, coarse_bpp, size, package = json.loads(done.stdout.splitlines()[-1])
    codec = Codec.load(folder)
    data = codec.compress(picture, step=24.0)
    assert np.array_equal(np.load(tmp_path / "out.npy"), codec.decompress(data))
    assert (size, bpp) == (len(data), 8 * len(data) / (96 * 80))
    assert coarse_bpp < bpp
    assert ".mlflow" in package  # the code that is stored with the model, not this checkout's


def test_the_same_result_is_registered_once_and_the_alias_follows_the_best(store, tmp_path):
    folder = make_codec(tmp_path / "made")
    assert [crown(folder, "r1"), crown(folder, "r1"), crown(folder, "r2")] == ["1", "1", "2"]
    client, _ = live.open_store()
    champion = client.get_model_version_by_alias("linocut", "champion")
    assert str(champion.version) == "2"
    assert champion.description == "cae-l2"
    assert 'params={"step": 24.0}' in client.get_registered_model("linocut").description
    crown(folder, "r1")
    assert str(client.get_model_version_by_alias("linocut", "champion").version) == "1"
