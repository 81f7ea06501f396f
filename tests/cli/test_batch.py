"""Nothing but an interrupt ends a batch, and no result takes the place of another."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from linocut.cli import batch
from linocut.cli.batch import Options, Outcome, run
from linocut.cli.files import Job, Plan
from linocut.errors import DataError

SOURCE = Path(__file__).parents[2] / "src"


def work(folder: str, job: Job, threads: int | None) -> Outcome:
    """Does what the name of a job says; runs in workers, too."""
    name = job.name
    if name.startswith("error"):
        raise {"error-index": IndexError, "error-memory": MemoryError}[name]("of\nno use")
    if name == "error":
        raise DataError("is bad")
    if name == "interrupt":
        raise KeyboardInterrupt
    if name == "slow":
        time.sleep(0.4)
    if name == "killed" or (name == "killed-once" and not Path(folder, "tried").exists()):
        Path(folder, "tried").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(name.encode(), len(name), 10, f"{threads} threads", ("a note",))


def plan_of(folder: Path, *names: str) -> Plan:
    return Plan([Job(Path(name), folder / f"{name}.out") for name in names])


def run_in(folder: Path, *names: str, pixels: int = 0, **options: object) -> int:
    arguments = Options(**options)  # type: ignore[arg-type]
    return run(plan_of(folder, *names), partial(work, str(folder)), lambda job: pixels, arguments)


def results(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.out"))


@pytest.mark.parametrize("processes", [1, 2])
def test_whatever_a_picture_raises_is_one_line_with_its_name(
    processes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_in(tmp_path, "a", "error-index", "b", "error-memory", "c", processes=processes) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "linocut: error-index: IndexError: of no use (--debug shows where)" in lines
    assert "linocut: error-memory: MemoryError: of no use (--debug shows where)" in lines
    assert lines[-1].startswith("3 of 5 files, 2 failed: 3 -> 3 bytes")
    assert results(tmp_path) == ["a", "b", "c"]


def test_an_interrupt_ends_a_batch_and_keeps_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, "a", "interrupt", "b", processes=1)
    assert "1 of 3 files, 2 not finished" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.out"]


def test_debug_shows_the_traceback_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_in(tmp_path, "error-index", "b", debug=True) == 1
    errors = capsys.readouterr().err
    assert 'raise {"error-index"' in errors
    assert results(tmp_path) == ["b"]


def test_lines_come_in_the_order_of_the_inputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_in(tmp_path, "slow", "a", "b", processes=2) == 0
    named = [
        line.partition(" ->")[0] for line in capsys.readouterr().err.splitlines() if ">" in line
    ]
    assert named[:3] == ["slow", "a", "b"]


def test_a_result_never_replaces_another_of_the_same_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where names that look different are one file, which no plan can know everywhere."""
    (tmp_path / "b.out").symlink_to("a.out")
    for folder in (tmp_path, tmp_path):
        assert run_in(folder, "a", "b", force=True) == 1
        assert "b.out is already a result of this batch" in capsys.readouterr().err
        assert (tmp_path / "a.out").read_bytes() == b"a"


def test_force_keeps_the_mode_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.out").write_bytes(b"secret")
    (tmp_path / "a.out").chmod(0o600)
    assert run_in(tmp_path, "a", force=True) == 0
    assert stat.S_IMODE((tmp_path / "a.out").stat().st_mode) == 0o600


def test_a_second_run_can_skip_what_exists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.out").write_bytes(b"old")
    assert run_in(tmp_path, "a", "b", "c", skip_existing=True) == 0
    assert "2 of 3 files, 1 skipped" in capsys.readouterr().err
    assert (tmp_path / "a.out").read_bytes() == b"old"
    assert run_in(tmp_path, "a", "b", "c", skip_existing=True) == 0
    assert "0 of 3 files, 3 skipped" in capsys.readouterr().err
    assert run_in(tmp_path, "a", skip_existing=True) == 0
    assert "a: skipped" in capsys.readouterr().err
    assert run_in(tmp_path, "a", "b") == 1
    assert "2 failed" in capsys.readouterr().err


def test_a_killed_worker_costs_its_own_picture_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_in(tmp_path, "a", "killed", "b", "c", processes=2) == 1
    errors = capsys.readouterr().err
    assert "linocut: killed: its process was killed by signal 9; out of memory?" in errors
    assert results(tmp_path) == ["a", "b", "c"]


def test_a_picture_whose_worker_was_killed_is_tried_again_alone(tmp_path: Path) -> None:
    assert run_in(tmp_path, "a", "killed-once", "b", processes=2) == 0
    assert results(tmp_path) == ["a", "b", "killed-once"]


def test_where_no_worker_starts_the_work_is_done_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    import multiprocessing.spawn

    monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: b"/bin/false")
    assert run_in(tmp_path, "a", "error", "b", processes=2) == 1
    assert results(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    ("pixels", "most", "expected"),
    [
        ([10, 10, 10, 10], None, 1),
        ([10**8, 10**8], None, 1),
        ([10**7] * 3, None, 4),
        ([10**7] * 9, None, 4),
        ([0, 0, 0], None, 4),
        ([10, 10], 8, 2),
        ([10**7] * 9, 1, 1),
    ],
)
def test_workers_are_used_for_much_work_or_on_demand(
    pixels: list[int], most: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "cores", lambda: 4)
    assert batch.workers_for(pixels, most) == min(expected, len(pixels))


def test_pictures_that_are_large_together_are_worked_on_apart(tmp_path: Path) -> None:
    class Worker:
        def __init__(self) -> None:
            self.number, self.pixels, self.sent, self.pipe = None, 0, [], self

        @property
        def busy(self) -> bool:
            return self.number is not None

        def send(self, job: object) -> None:
            self.sent.append(job)

    team = [Worker(), Worker(), Worker()]
    waiting = batch.deque([(0, 60_000_000), (1, 30_000_000), (2, 20_000_000)])
    batch._assign(team, waiting, "abc")  # type: ignore[arg-type]
    assert [worker.sent for worker in team] == [["a"], ["b"], []]
    team[0].number = None
    batch._assign(team, waiting, "abc")  # type: ignore[arg-type]
    assert team[0].sent == ["a", "c"]


SLEEPER = """
import signal, sys, time
from linocut.cli.batch import Options, Outcome, run
from linocut.cli.files import Job, Plan
from pathlib import Path

def work(job, threads):
    Path(sys.argv[1], f"{job.name}.begun").touch()
    time.sleep(600)

if __name__ == "__main__":
    from linocut.cli import main
    main._mend_streams()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind `&`
    try:
        with main._termination_as_interrupt():
            jobs = [Job(Path(name), Path(sys.argv[1], name)) for name in "ab"]
            run(Plan(jobs), work, lambda job: 0, Options(processes=2))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(number: int, tmp_path: Path) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert _becomes_true(lambda: len(list(tmp_path.glob("*.begun"))) == 2)
        os.kill(process.pid, number)
        errors = process.communicate(timeout=30)[1]  # ends when no worker holds the pipe any more
    assert process.returncode == {signal.SIGKILL: -9}.get(number, 130)
    assert b"Traceback" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.begun", "b.begun", "sleeper.py"]


def _becomes_true(claim: object, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if claim():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_the_bar_stays_off_what_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_in(tmp_path, "a", "b")
    assert "[" not in capsys.readouterr().err
    batch.bar(1, 2, "a")
    assert capsys.readouterr().err == ""
