"""A tracking server as a team has it: PostgreSQL, artifacts on S3, passwords; and its accidents."""

import contextlib
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import boto3
import pytest

from conftest import list_runs
from fake_checkout import FakeCheckout
from linocut.lab.tracking import live, sync
from local_s3 import ask, free_address, log_in, s3_server
from test_smoke import BIN, environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

BUCKET = "linocut-runs"
USER, PASSWORD = "admin", "correct horse battery"
DEBIAN = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
HAS_POSTGRESQL = bool(DEBIAN) and importlib.util.find_spec("psycopg2") is not None


@contextlib.contextmanager
def databases(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Addresses of two empty databases: PostgreSQL's where Debian has put it, or SQLite's."""
    if not HAS_POSTGRESQL:
        yield f"sqlite:///{folder}/runs.db", f"sqlite:///{folder}/users.db"
        return
    place = pathlib.Path(tempfile.mkdtemp(prefix="linocut-postgres-"))
    owner = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    if owner:
        shutil.chown(place, owner)
    port = free_address().rpartition(":")[2]
    options = ["-D", str(place / "data")]
    quiet = {"user": owner, "cwd": place, "stdout": subprocess.DEVNULL}
    initdb = [str(DEBIAN[-1] / "initdb"), *options, "-U", USER, "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, **quiet)
    server = subprocess.Popen(
        [str(DEBIAN[-1] / "postgres"), *options, "-h", "127.0.0.1", "-p", port, "-k", str(place)],
        stderr=subprocess.DEVNULL, **quiet,
    )  # fmt: skip
    try:
        ready = [str(DEBIAN[-1] / "pg_isready"), "-h", "127.0.0.1", "-p", port]
        while subprocess.run(ready, check=False, **quiet).returncode:
            assert server.poll() is None
            time.sleep(0.2)
        address = f"postgresql+psycopg2://{USER}@127.0.0.1:{port}"
        yield f"{address}/postgres", f"{address}/template1"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
        shutil.rmtree(place, ignore_errors=True)


class Server:
    """The tracking server of one address; it can be killed and started again."""

    def __init__(self, folder: pathlib.Path, runs: str, users: str, s3: str) -> None:
        self.address = free_address()
        host, port = self.address.removeprefix("http://").split(":")
        self.databases = (runs, users)
        config = folder / "auth.ini"
        config.write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {users}\n"
            f"admin_username = {USER}\nadmin_password = {PASSWORD}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        self.command = [
            str(BIN / "mlflow"), "server", "--host", host, "--port", port, "--workers", "1",
            "--backend-store-uri", runs, "--artifacts-destination", f"s3://{BUCKET}/mlflow",
            "--app-name", "basic-auth", "--allowed-hosts", f"{host}:{port}",
        ]  # fmt: skip
        self.environment = environment() | {
            "MLFLOW_AUTH_CONFIG_PATH": str(config),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret of this test",
            "MLFLOW_S3_ENDPOINT_URL": s3,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        self.log = folder / "server.log"
        self.start()

    def start(self) -> None:
        """Return when it answers."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        while True:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            with contextlib.suppress(OSError):
                if ask(f"{self.address}/health") == "OK":
                    return
            time.sleep(0.5)

    def kill(self) -> None:
        """At once, with all its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("flask_wtf", reason="pip install 'mlflow[auth]'")
    folder = tmp_path_factory.mktemp("server")
    with contextlib.ExitStack() as stack:
        log_in(stack.enter_context(pytest.MonkeyPatch.context()))
        runs, users = stack.enter_context(databases(folder))
        made = Server(folder, runs, users, stack.enter_context(s3_server(BUCKET)))
        stack.callback(made.kill)
        yield made


@pytest.fixture(autouse=True)
def client(isolated, server, monkeypatch):
    """What a member of the team has in the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # this machine may be busy
    monkeypatch.setattr(live, "PATIENCE_S", 240)
    monkeypatch.setattr(live, "FLUSH_S", 0.1)


def ours(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.name.startswith("linocut")]


OPTIONS = {"arch": "cae", "loss": "l1", "params": {"seed": 0}}


def test_without_the_password_a_training_goes_on_and_sync_says_why_not(
    monkeypatch, caplog, capsys, tmp_path
):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with live.run("cae-l1", fingerprint="refused", **OPTIONS) as log:
        log({"loss": 1.0}, 0.0)
    (line,) = ours(caplog)
    assert "going on without it" in line
    assert "401" in line or "not authenticated" in line
    monkeypatch.chdir(tmp_path)
    assert sync.main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("linocut.lab.tracking.sync: ")
    assert "401" in line or "not authenticated" in line


def test_a_host_that_is_not_the_servers_is_refused(server):
    request = urllib.request.Request(f"{server.address}/", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=60)


@pytest.mark.skipif(
    not HAS_POSTGRESQL, reason="no PostgreSQL: apt install postgresql, pip install psycopg2-binary"
)
def test_runs_and_users_are_in_postgresql(server):
    import sqlalchemy

    live.open_store()
    for address, table in zip(server.databases, ("experiments", "users"), strict=True):
        assert address.startswith("postgresql")
        with sqlalchemy.create_engine(address).connect() as connection:
            assert connection.execute(sqlalchemy.text(f"select count(*) from {table}")).scalar()


def test_sync_completes_the_run_of_a_training_whose_server_was_killed(
    server, monkeypatch, caplog, tmp_path
):
    monkeypatch.setattr(sync, "crown", lambda *_: "1")
    monkeypatch.setattr(sync, "draw_curves", lambda cells, anchors, path: path.touch())
    with live.run("cae-l1", fingerprint="f1", **OPTIONS) as log:
        log({"loss": 2.0, "psnr_db": 20.0}, 0.0)
        client, _ = live.open_store()
        while not (found := list_runs()) or "train/loss" not in found[0].data.metrics:
            assert not ours(caplog)
            time.sleep(0.2)
        server.kill()
        log({"loss": 1.5, "psnr_db": 24.0}, 7.5)
        time.sleep(1.0)
        log({"loss": 1.0, "psnr_db": 27.0}, 15.0)
    (line,) = ours(caplog)
    assert "going on without it" in line
    assert "tracking.sync" in line
    server.start()
    (broken,) = list_runs()
    assert broken.info.status == "RUNNING"
    checkout = FakeCheckout(tmp_path / "checkout")
    checkout.add_cell("cae-l1")
    checkout.commit()
    assert "0 made, 1 completed" in sync.sync(checkout.root)
    run = client.get_run(broken.info.run_id)
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, "train/psnr_db")
    assert [(p.step, p.value) for p in points] == [(0, 20.0), (7500, 24.0), (15000, 27.0)]
    assert "eval/PSNR dB at 0.5 bpp" in run.data.metrics
    bucket = boto3.client("s3", endpoint_url=server.environment["MLFLOW_S3_ENDPOINT_URL"])
    objects = bucket.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert any(one["Key"].endswith("codec/model.safetensors") for one in objects)
    assert "0 made, 0 completed, 1 unchanged" in sync.sync(checkout.root)
