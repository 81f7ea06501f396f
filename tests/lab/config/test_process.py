"""Threads wait without spinning unless the user says otherwise; workers are fresh and alone."""

import functools
import os
import pathlib
import subprocess
import sys
import time

import pytest

from linocut.errors import ConfigError
from linocut.files import sha256_of
from linocut.lab.config import process
from linocut.lab.config.process import Kept, map_in_processes, worker_count

ROOT = pathlib.Path(__file__).resolve().parents[3]
SAYS = "import os; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in __import__('sys').modules)"


def environment_after(first, **variables):
    """What a process that imports these has in its environment."""
    clean = {k: v for k, v in os.environ.items() if k not in process.CHOICES}
    path = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-c", f"import {first}; {SAYS}"]
    return subprocess.run(
        command, env=clean | path | variables, capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()


@pytest.mark.parametrize("first", ["linocut.lab.config.stage", "benchmarks"])
def test_it_is_set_before_torch_is_there(first):
    assert environment_after(first) == [process.WAITING["GOMP_SPINCOUNT"], "False"]


@pytest.mark.parametrize(
    ("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active")]
)
def test_what_the_user_chose_is_left_alone(name, value):
    expected = value if name == "GOMP_SPINCOUNT" else "None"
    assert environment_after("linocut.lab.config.stage", **{name: value})[0] == expected


def process_and_threads(task: int) -> tuple[int, int, int]:
    import torch

    return task, os.getpid(), torch.get_num_threads()


def test_the_environment_sets_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINOCUT_WORKERS", "3")
    assert worker_count() == 3
    monkeypatch.delenv("LINOCUT_WORKERS")
    assert worker_count() >= 1


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LINOCUT_WORKERS", value)
    with pytest.raises(ConfigError, match="LINOCUT_WORKERS"):
        worker_count()


def test_results_come_in_order_from_other_processes_of_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LINOCUT_WORKERS", "2")
    results = map_in_processes(process_and_threads, [5, 3, 4], label="test")
    assert [task for task, _, _ in results] == [5, 3, 4]
    assert os.getpid() not in {process for _, process, _ in results}
    assert {threads for _, _, threads in results} == {1}
    assert map_in_processes(process_and_threads, [], label="test") == []


def shout(path: pathlib.Path) -> str:
    """What a file says, in capitals; a note beside it says how often it was read."""
    with path.with_suffix(".read").open("a") as note:
        note.write("x")
    text = path.read_text()
    if text == "stop":
        raise KeyboardInterrupt
    return text.upper()


def read_how_often(paths: list[pathlib.Path]) -> list[int]:
    notes = (path.with_suffix(".read") for path in paths)
    return [len(note.read_text()) if note.exists() else 0 for note in notes]


@pytest.mark.parametrize("least", [1, 99], ids=["in processes", "in this one"])
def test_an_interrupted_run_is_gone_on_with_where_files_are_the_same(
    least: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINOCUT_WORKERS", "1")
    paths = [tmp_path / f"{number}.txt" for number in range(5)]
    for path, text in zip(paths, ["a", "b", "c", "stop", "e"], strict=True):
        path.write_text(text)
    kept = Kept(tmp_path / "state/done", sha256_of)
    run = functools.partial(map_in_processes, shout, paths, label="t", kept=kept, least=least)
    with pytest.raises(KeyboardInterrupt):
        run()
    paths[2].write_text("changed")
    paths[3].write_text("d")
    with kept.file.open("ab") as file:
        file.write(b"cut off in the mid")
    assert run() == ["A", "B", "CHANGED", "D", "E"]
    assert read_how_often(paths)[:4] == [1, 1, 2, 2]
    assert not kept.file.parent.exists()


def test_where_nothing_can_be_kept_the_work_goes_on(tmp_path: pathlib.Path, capsys) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in paths:
        path.write_text(path.stem)
    (tmp_path / "state").write_text("a file")
    kept = Kept(tmp_path / "state/done", sha256_of)
    assert map_in_processes(shout, paths, label="t", kept=kept, least=9) == ["A", "B"]
    assert capsys.readouterr().err.count("an interrupted run would start anew") == 1


@pytest.mark.parametrize("least", [1, 99], ids=["in processes", "in this one"])
def test_a_file_that_is_missing_ends_the_work_though_the_rest_is_kept(
    least: int, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "a.txt").write_text("a")
    paths = [tmp_path / "a.txt", tmp_path / "missing.txt"]
    kept = Kept(tmp_path / "state/done", sha256_of)
    with pytest.raises(FileNotFoundError, match="missing"):
        map_in_processes(shout, paths, label="t", kept=kept, least=least)
    paths[1].write_text("b")
    assert map_in_processes(shout, paths, label="t", kept=kept, least=least) == ["A", "B"]


def wait(seconds: float) -> None:
    print(os.getpid(), flush=True)
    time.sleep(seconds)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")
@pytest.mark.parametrize("seconds", [0.0, 600.0], ids=["one idle", "both at work"])
def test_no_worker_outlives_its_parent(seconds: float) -> None:
    script = f"""
import sys
sys.path[:0] = {[str(ROOT / "src"), str(pathlib.Path(__file__).parent)]!r}
import test_process
from linocut.lab.config.process import map_in_processes
if __name__ == "__main__":
    map_in_processes(test_process.wait, [{seconds}, 600.0], label="test")
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"LINOCUT_WORKERS": "2"},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        workers = {int(parent.stdout.readline()) for _ in range(2)}
        parent.kill()
    deadline = time.monotonic() + 5.0
    while alive := [pid for pid in workers if pathlib.Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        time.sleep(0.05)
