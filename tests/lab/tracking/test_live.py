"""A stage never fails nor waits because of MLflow, and no result is missing from it in the end."""

import logging
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import time

import pytest
import yaml

from linocut.lab.config.params import compose
from linocut.lab.tracking import live, sync
from linocut.lab.tracking.sync import STUDY_PARAMS

# MLflow leaves connections to SQLite to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.usefixtures("isolated"),
]


@pytest.fixture(autouse=True)
def much_patience(monkeypatch):
    monkeypatch.setattr(live, "PATIENCE_S", 240)  # this machine may be busy


def train(fingerprint="f1", rows=3, killed=False, **changes):
    described = {"arch": "cae", "loss": "l1", "params": {"seed": 0, "train": {"range": (1, 2)}}}
    with live.run("cae-l1", fingerprint=fingerprint, **(described | changes)) as log:
        for i in range(rows):
            log({"loss": 1 / (i + 1), "psnr_db": 20.0 + i}, 0.3 * i)
        if killed:
            raise RuntimeError("killed")


def curve(run, name):
    client, _ = live.open_store()
    return {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}


def metric_time(run, name):
    client, _ = live.open_store()
    return client.get_metric_history(run.info.run_id, name)[0].timestamp


# --- live -----------------------------------------------------------------------------------------


def test_a_training_becomes_a_run_with_curves_parameters_and_tags(store, monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_STAGE", "train@cae-l1")
    monkeypatch.setenv("DVC_EXP_NAME", "tidy-moth")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    before = int(time.time() * 1000)
    train(weights=weights)
    (run,) = store()
    assert before <= run.info.start_time <= metric_time(run, "train/loss")
    assert run.info.run_name == "cae-l1"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "0", "train.range": "1, 2", "arch": "cae", "loss": "l1"}
    assert curve(run, "train/psnr_db") == {0: 20.0, 300: 21.0, 600: 22.0}
    tags = run.data.tags
    assert (tags["linocut.arch"], tags["linocut.loss"]) == ("cae", "l1")
    assert (tags["dvc.stage"], tags["dvc.exp"]) == ("train@cae-l1", "tidy-moth")
    assert tags["linocut.weights"] == live.digest(b"weights")
    assert "dvc repro train@cae-l1" in tags["mlflow.note.content"]


def test_a_page_of_the_real_parameters_has_less_than_thirty():
    params = yaml.safe_load(compose())
    shared = {name: params[name] for name in (*STUDY_PARAMS, "compare")}
    for arch, numbers in params["arch"].items():
        for loss, own in params["loss"].items():
            shown = shared | {"arch": numbers, "loss": own}
            names = {"arch", "loss"} | set(live.shown_params(shown))
            assert len(names) < 30, (arch, loss)


def test_a_resumed_training_goes_on_in_the_same_run_without_repeating_rows(store):
    with pytest.raises(RuntimeError, match="killed"):
        train(rows=2, killed=True)
    (broken,) = store()
    assert broken.info.status == "FAILED"
    train(rows=4)
    (run,) = store()
    assert run.info.run_id == broken.info.run_id
    assert run.info.status == "FINISHED"
    client, _ = live.open_store()
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == [0, 300, 600, 900]


def test_another_fingerprint_is_another_run(store):
    train(fingerprint="f1")
    train(fingerprint="f2")
    assert len(store()) == 2


@pytest.mark.parametrize("switch", ["true", None])
def test_the_load_of_the_machine_is_logged_where_mlflow_is_asked_for_it(store, monkeypatch, switch):
    monkeypatch.delenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", raising=False)
    if switch:
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", switch)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setattr(live, "FLUSH_S", 0.1)
    with live.run("cae-l1", arch="cae", loss="l1", params={}, fingerprint="f"):
        time.sleep(1.5)
    (run,) = store()
    logged = any(name.startswith("system/cpu") for name in run.data.metrics)
    assert logged == (switch == "true")


# --- secrets, copies ------------------------------------------------------------------------------


def test_a_password_in_the_address_is_shown_to_nobody(monkeypatch, caplog, capfd):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:se%21cret@127.0.0.1:9")
    with caplog.at_level(logging.DEBUG):
        train()
        assert sync.main([]) == 1
    shown = caplog.text + "".join(capfd.readouterr())
    assert "going on without it" in shown
    assert "se%21cret" not in shown
    assert "se!cret" not in shown
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:9"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "se!cret"


def test_texts_of_other_packages_lose_their_secrets():
    text = "cannot reach postgresql://ada:secret@db/x, nor http://db:5000/?a=b@c"
    shown = live.without_secrets(text)
    assert shown == "cannot reach postgresql://***@db/x, nor http://db:5000/?a=b@c"


@pytest.mark.parametrize("moved", [False, True])
def test_a_copied_checkout_begins_a_store_of_its_own(store, monkeypatch, tmp_path, caplog, moved):
    train()
    first = tmp_path / ".mlflow"
    other = tmp_path / "other"
    other.mkdir()
    (shutil.move if moved else shutil.copytree)(first, other / ".mlflow")
    before = [] if moved else sorted(first.rglob("*"))
    monkeypatch.setenv("DVC_ROOT", str(other))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow left it to this process
    train(fingerprint="f2")
    assert f"was made in {first}" in caplog.text
    (run,) = store()
    assert run.data.tags["linocut.fingerprint"] == "f2"
    assert run.info.artifact_uri.startswith((other / ".mlflow").as_uri())
    assert (other / ".mlflow" / "mlflow.db.elsewhere-1").is_file()
    assert moved or sorted(first.rglob("*")) == before
    caplog.clear()
    train(fingerprint="f3")  # said once
    assert "was made in" not in caplog.text
    assert len(store()) == 2


# --- out of reach ---------------------------------------------------------------------------------


@pytest.fixture
def silent_server():
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_dead_server_costs_less_than_five_seconds_and_one_warning(
    kind, silent_server, monkeypatch, caplog
):
    monkeypatch.setattr(live, "PATIENCE_S", 4)
    import mlflow  # noqa: F401  (its import is not the server's fault)

    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", {"refused": "http://127.0.0.1:9"}.get(kind, silent_server)
    )
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        train(rows=1000)
    assert time.monotonic() - started < 5
    ours = [record for record in caplog.records if record.name.startswith("linocut")]
    assert len(ours) == 1
    assert "tracking.sync" in ours[0].getMessage()


def test_a_store_that_cannot_be_written_does_not_stop_the_training(tmp_path, monkeypatch, caplog):
    (tmp_path / ".mlflow").write_text("a file where the folder should be")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    train()
    assert "going on without it" in caplog.text


@pytest.mark.slow
def test_a_full_disk_costs_a_training_its_curves_alone_and_the_store_nothing(store, tmp_path):
    train(fingerprint="before")
    script = (
        "import logging; from linocut.lab.tracking import live; live.PATIENCE_S = 240\n"
        "with live.run('cae-l2', arch='cae', loss='l2', params={}, fingerprint='f') as log:\n"
        "    log({'loss': 1.0}, 0.0)\n"
        "print('trained')"
    )

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # less than the database has

    path = str(pathlib.Path(live.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path}, preexec_fn=fill,
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    assert done.stdout == "trained\n"
    assert done.stderr.count("going on without it") == 1
    assert "Traceback" not in done.stderr
    train(fingerprint="after")
    found = {run.data.tags["linocut.fingerprint"]: run.info.status for run in store()}
    assert found == {"before": "FINISHED", "after": "FINISHED"}


def test_logging_a_row_returns_at_once_while_the_server_hangs(silent_server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    with live.run("cae-l1", arch="cae", loss="l1", params={}, fingerprint="f") as log:
        started = time.monotonic()
        for i in range(100):
            log({"loss": 1.0}, i)
        assert time.monotonic() - started < 0.5


def test_three_processes_that_open_a_fresh_store_at_once_all_get_a_run(race, monkeypatch):
    assert race.returncodes == [0, 0, 0]
    assert race.complaints == ""
    monkeypatch.setenv("DVC_ROOT", str(race.folder))
    runs = live.all_runs(*live.open_store())
    assert sorted(run.data.tags["linocut.fingerprint"] for run in runs) == ["f1", "f2", "f3"]


def test_a_process_killed_while_it_makes_the_store_leaves_none_behind(isolated, tmp_path):
    script = (
        "import os, linocut.lab.tracking.live as live\n"
        "live._experiment = lambda client, location: os._exit(9)\n"  # the tables are not there yet
        "live.open_store()"
    )
    path = str(pathlib.Path(live.__file__).parents[3])
    environment = {"PYTHONPATH": path, "DVC_ROOT": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False, timeout=240)
    assert done.returncode == 9
    assert not (tmp_path / ".mlflow" / "mlflow.db").exists()


def test_importing_tracking_does_not_import_mlflow():
    script = "import sys; from linocut.lab.tracking import live; sys.exit('mlflow' in sys.modules)"
    path = str(pathlib.Path(live.__file__).parents[3])
    subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": path}, check=True, timeout=60)
