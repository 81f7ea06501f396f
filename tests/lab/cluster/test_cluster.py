"""A grid run by two nodes of a cluster gives the files of one that DVC ran alone."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from linocut.lab.cluster import worker
from linocut.lab.cluster.head import ClusterError, Resources, committed, plan_of, run_grid
from linocut.lab.cluster.worker import Outcome, StepFailedError, Work
from local_s3 import log_in, s3_server
from small_checkout import results, small_checkout
from test_smoke import BIN, ROOT, commit, environment, run

BUCKET = "linocut-cluster"
EDGES = {
    "prepare": (),
    "anchors": ("prepare",),
    "pretrain@cae": ("prepare",),
    "train@cae-l2": ("pretrain@cae", "prepare"),
    "evaluate@cae-l2": ("train@cae-l2",),
    "train@cae-l1": ("pretrain@cae",),
    "matched": ("evaluate@cae-l2", "anchors"),
    "compare": ("matched", "train@cae-l1"),
}


def test_a_group_is_a_cell_and_waits_for_the_base_network_alone() -> None:
    plan = plan_of(EDGES)
    assert plan.inputs == ("prepare",)
    assert plan.groups["cae-l2"] == ("train@cae-l2", "evaluate@cae-l2")
    assert plan.groups["anchors"] == ("anchors",)
    assert plan.needs == {"cae": (), "cae-l2": ("cae",), "cae-l1": ("cae",), "anchors": ()}
    assert list(plan.groups).index("cae") < list(plan.groups).index("cae-l1")
    assert not {"matched", "compare"} & {name for names in plan.groups.values() for name in names}


def test_a_group_stands_behind_one_that_only_its_last_stage_needs() -> None:
    plan = plan_of({"a@one": (), "b@two": (), "c@one": ("a@one", "b@two")})
    assert list(plan.groups) == ["two", "one"]


def test_what_needs_a_failed_group_is_not_tried() -> None:
    work = Work("cae-l2", ("train@cae-l2",), "0" * 40, "", 1)
    outcome = worker.run(work, b"", Outcome("cae", "a", 1.0, (), "disk full"))
    assert outcome.problem == "cae failed"
    assert outcome.ran == ()


def test_a_command_that_fails_says_the_end_of_what_it_printed(tmp_path: pathlib.Path) -> None:
    script = (
        "print('\\n'.join(map(str, range(99))), '\\n 7%|#   | 1/9', flush=True); exit('disk full')"
    )
    with pytest.raises(StepFailedError) as failed:
        worker.command(tmp_path, 1, sys.executable, "-c", script)
    lines = str(failed.value).splitlines()
    assert len(lines) == 12
    assert lines[-2:] == ["98", "disk full"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_what_a_task_started_ends_with_the_task(tmp_path: pathlib.Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(pathlib.Path(worker.__file__).parent)!r})\n"
        "import pathlib, worker\n"
        f"worker.command(pathlib.Path({str(tmp_path)!r}), 1, 'sh', '-c',"
        " 'echo $$ > pid.part; mv pid.part pid; sleep 600; true')"
    )
    task = subprocess.Popen([sys.executable, "-c", script])
    while not (tmp_path / "pid").exists():
        assert task.poll() is None
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    task.kill()
    task.wait()
    for _ in range(200):
        if not pathlib.Path(f"/proc/{pid}").exists() or _is_dead(pid):
            break
        time.sleep(0.05)
    else:
        pytest.fail("the command outlived its task")


def _is_dead(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def git(folder: pathlib.Path, *arguments: str) -> None:
    run(folder, "git", *arguments)


def test_code_that_is_not_committed_is_not_run_elsewhere(tmp_path: pathlib.Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "--quiet", "--message", "a")
    (tmp_path / "src/a.py").write_text("changed = True\n")
    with pytest.raises(ClusterError, match=r"commit first\n.*src/a\.py"):
        run_grid(tmp_path, "local", "", Resources(), print)


@contextlib.contextmanager
def two_nodes(folder: pathlib.Path):
    """Address of a Ray cluster of two nodes, a core each, whose processes are of this test."""
    pytest.importorskip("ray", reason="pip install 'linocut[cluster]'")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    common = ["--block", "--num-cpus=1", "--object-store-memory=150000000",
              "--disable-usage-stats", "--include-log-monitor=false",
              "--node-ip-address=127.0.0.1"]  # fmt: skip
    starts = (
        ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}/ray"],
        [f"--address={address}"],
    )
    folder.mkdir()
    nodes = []
    try:
        for number, start in enumerate(starts):
            place = {worker.PLACE_VARIABLE: str(folder / f"node{number}")}
            log = folder / f"start{number}"
            with log.open("w") as said:
                nodes.append(
                    subprocess.Popen(
                        [str(BIN / "ray"), "start", *start, *common],
                        env=environment() | place,
                        stdout=said,
                        stderr=subprocess.STDOUT,
                    )
                )
            while "Ray runtime started" not in log.read_text():
                assert nodes[-1].poll() is None, log.read_text()
                time.sleep(0.5)
        yield address, nodes
    finally:
        started = [child for node in nodes for child in _children(node.pid)]
        for node in reversed(nodes):
            node.terminate()
        psutil.wait_procs([psutil.Process(n.pid) for n in nodes if n.poll() is None], timeout=30)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for node in nodes:
            node.kill()
            node.wait()


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _kill_a_worker_in_training(
    nodes: list[subprocess.Popen], head: subprocess.Popen, training: str
) -> None:
    """SIGKILL the Ray worker whose cell trains; DVC below it goes, too."""
    while head.poll() is None:
        for node in nodes:
            family = _children(node.pid)
            trains = [p for p in family if _says(p, training)]
            workers = [p for p in family if _says(p, "ray::") and trains and _above(p, trains[0])]
            if workers:
                workers[0].kill()
                psutil.wait_procs(trains, timeout=20)
                assert not any(p.is_running() and not _is_dead(p.pid) for p in trains)
                return
        time.sleep(0.3)
    pytest.fail("no cell was trained")


def _says(process: psutil.Process, word: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return word in " ".join(process.cmdline())
    return False


def _above(process: psutil.Process, other: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process in other.parents()
    return False


WORK = """
import hashlib, pathlib, sys, time
out, *inputs = map(pathlib.Path, sys.argv[1:])
files = [file for path in inputs for file in sorted(path.rglob("*")) if file.is_file()]
if "trained" in out.parts:
    time.sleep(8)
out.mkdir(parents=True)
text = out.name + "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
(out / "result").write_text(text)
"""
PIPELINE = """
stages:
  prepare:
    cmd: python src/work.py artifacts/prepared src
    deps: [src/work.py]
    outs: [artifacts/prepared]
  pretrain:
    matrix: {arch: "${arch}"}
    cmd: python src/work.py artifacts/pretrained/${item.arch} artifacts/prepared
    deps: [artifacts/prepared]
    outs: ["artifacts/pretrained/${item.arch}"]
  train:
    matrix: {arch: "${arch}", loss: "${loss}"}
    cmd: python src/work.py artifacts/trained/${item.arch}-${item.loss}
      artifacts/pretrained/${item.arch}
    deps: ["artifacts/pretrained/${item.arch}"]
    outs: ["artifacts/trained/${item.arch}-${item.loss}"]
  compare:
    cmd: python src/work.py artifacts/compared artifacts/trained
    deps: [artifacts/trained]
    outs: [artifacts/compared]
"""


def miniature(folder: pathlib.Path, *, remote: str = "", endpoint: str = "") -> pathlib.Path:
    """A pipeline of the shape of this project's, whose four trainings are 8 s of sleep."""
    (folder / "src").mkdir(parents=True)
    (folder / "src/work.py").write_text(WORK)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("arch: [a]\nloss: [w, x, y, z]\n")
    (folder / ".gitignore").write_text("/artifacts/\n")
    git(folder, "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    if remote:
        run(folder, "dvc", "remote", "add", "--quiet", "--default", "store", remote)
    if endpoint:
        run(folder, "dvc", "remote", "modify", "--quiet", "store", "endpointurl", endpoint)
    commit(folder)
    return folder


@pytest.mark.slow
def test_a_commit_without_a_remote_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(worker.PLACE_VARIABLE, str(tmp_path / "node"))
    checkout = miniature(tmp_path / "checkout")
    text = (checkout / "params.yaml").read_text(encoding="utf-8")
    with pytest.raises(ClusterError, match="HEAD names no DVC remote that all machines reach"):
        run_grid(checkout, "local", text, Resources(), print)


@pytest.mark.slow
def test_a_node_runs_what_nobody_has_computed_and_takes_the_rest_from_the_remote(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = miniature(tmp_path / "head", remote=str(tmp_path / "store"))
    text = (checkout / "params.yaml").read_text(encoding="utf-8")
    commit_id, bundle = committed(checkout)
    inputs = Work("inputs", ("prepare",), commit_id, text, 1)
    base = Work("a", ("pretrain@a",), commit_id, text, 1)
    cell = Work("a-w", ("train@a-w",), commit_id, text, 1)
    ran = []
    for node, work in (("one", inputs), ("one", base), ("two", cell), ("three", cell)):
        monkeypatch.setenv(worker.PLACE_VARIABLE, str(tmp_path / node))
        outcome = worker.run(work, bundle)
        assert outcome.problem == ""
        ran.append(outcome.ran)
    assert ran == [("prepare",), ("pretrain@a",), ("train@a-w",), ()]
    assert not list(tmp_path.glob("t*/*/a-w/dvc.yaml"))


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an S3 server, whose credentials are in the environment."""
    log_in(monkeypatch)
    with s3_server(BUCKET) as address:
        yield address


def on_two_nodes(head: pathlib.Path, folder: pathlib.Path, training: str) -> str:
    """What the command says that runs the grid; the worker of the first `training` is killed."""
    place = {worker.PLACE_VARIABLE: str(folder / "place"), "PYTHONPATH": str(ROOT / "src")}
    log = folder / "log"
    ray_folder = pathlib.Path("/tmp", f"linocut-test-{os.getpid()}")  # sockets want short paths
    try:
        with two_nodes(ray_folder) as (address, nodes), log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "linocut.lab.cluster", "--address", address],
                cwd=head, env=environment() | place, stdout=file, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                _kill_a_worker_in_training(nodes, process, training)
                process.wait()
            finally:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(ray_folder, ignore_errors=True)
    said = log.read_text()
    assert process.returncode == 0, said[-6000:]
    return said


@pytest.mark.slow
def test_four_cells_on_two_nodes_are_those_of_a_serial_run_though_a_worker_is_killed(
    tmp_path: pathlib.Path, s3: str
) -> None:
    head = miniature(tmp_path / "head", remote=f"s3://{BUCKET}/linocut", endpoint=s3)
    serial = shutil.copytree(head, tmp_path / "serial")
    said = on_two_nodes(head, tmp_path, "src/work.py artifacts/trained")
    for loss in "wxyz":
        assert f" a-{loss} ran train@a-{loss} on " in said
    after = said[said.rindex("(5 of 5)") :]
    assert "Running stage 'compare'" in after
    assert "Running stage 'train" not in after
    assert "Running stage 'pretrain" not in after
    run(serial, "dvc", "repro")
    assert results(head) == results(serial)
    assert len(results(head)) == 7


@pytest.mark.slow
def test_four_small_cells_of_this_pipeline_are_those_of_a_serial_run_though_a_worker_is_killed(
    tmp_path: pathlib.Path, s3: str
) -> None:
    cells = {"cae-l1", "cae-l2", "generative-l1", "generative-l2"}
    head = small_checkout(tmp_path / "head", "arch=[cae,generative]", "loss=[l1,l2]")
    remote = ("dvc", "remote", "add", "--quiet", "--default", "store", f"s3://{BUCKET}/small")
    run(head, *remote)
    run(head, "dvc", "remote", "modify", "--quiet", "store", "endpointurl", s3)
    commit(head)
    serial = shutil.copytree(head, tmp_path / "serial", symlinks=True)
    said = on_two_nodes(head, tmp_path, "stages/train.py")
    for cell in cells:
        assert f"evaluate@{cell} on " in said
    run(serial, "dvc", "repro", OMP_NUM_THREADS="1", LINOCUT_WORKERS="1")
    assert results(head) == results(serial)
    assert {f"artifacts/evaluated/{cell}" for cell in cells} <= {
        path.rpartition("/pictures/")[0] for path in results(head)
    }
