"""Inputs and outputs are paired without surprises; nothing but an interrupt ends a batch."""

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

from linocut.cli import files
from linocut.cli.files import Job, Options, Outcome, Plan, require_free, run
from linocut.errors import DataError
from linocut.pictures.image import PICTURE_SUFFIXES

READABLE = frozenset({".png", ".jpg"})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "a.png",
        "b.jpg",
        "notes.txt",
        "deep/c.PNG",
        "deep/.hidden.png",
        ".deep/d.png",
        "x[1].png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(*inputs: str, output: str | None = None) -> list[tuple[str, str]]:
    jobs = files.plan(inputs, output, readable=READABLE, suffix=".lino").jobs
    return [(str(job.source or "-"), str(job.target or "-").replace("\\", "/")) for job in jobs]


@pytest.mark.usefixtures("here")
def test_outputs_lie_beside_their_inputs() -> None:
    assert plan("a.png", "deep/c.PNG") == [("a.png", "a.lino"), ("deep/c.PNG", "deep/c.lino")]


@pytest.mark.usefixtures("here")
def test_one_input_takes_a_named_output() -> None:
    assert plan("a.png", output="z.bin") == [("a.png", "z.bin")]
    assert plan("a.png", output="deep") == [("a.png", "deep/a.lino")]
    assert plan("a.png", output="new/") == [("a.png", "new/a.lino")]


@pytest.mark.usefixtures("here")
def test_folders_are_searched_and_their_tree_is_kept() -> None:
    assert plan(".", output="out") == [
        ("a.png", "out/a.lino"), ("b.jpg", "out/b.lino"), ("deep/c.PNG", "out/deep/c.lino"),
        ("x[1].png", "out/x[1].lino"),
    ]  # fmt: skip


@pytest.mark.usefixtures("here")
def test_globs_are_expanded_where_the_shell_did_not() -> None:
    assert plan("*.[jp]*g", output="out") == [
        ("a.png", "out/a.lino"), ("b.jpg", "out/b.lino"), ("x[1].png", "out/x[1].lino"),
    ]  # fmt: skip
    assert plan("x[1].png") == [("x[1].png", "x[1].lino")]


def test_two_inputs_of_one_stem_keep_both_suffixes(here: Path) -> None:
    (here / "a.jpg").write_bytes(b"")
    assert plan("a.png", "a.jpg", "b.jpg") == [
        ("a.png", "a.png.lino"), ("a.jpg", "a.jpg.lino"), ("b.jpg", "b.lino"),
    ]  # fmt: skip
    (here / "a.png.png").write_bytes(b"")
    assert plan("a.png.png", "a.png", "a.jpg") == [
        ("a.png.png", "a.png.png.lino"), ("a.png", "a.png.lino"), ("a.jpg", "a.jpg.lino"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("v1.2", "v1.2.lino"),
        ("IMG_2020.01.05", "IMG_2020.01.05.lino"),
        ("photo.xyz", "photo.xyz.lino"),
        ("photo", "photo.lino"),
        ("photo.old.JPG", "photo.old.lino"),
        (".png", ".png.lino"),
    ],
)
def test_only_suffixes_of_pictures_are_replaced(name: str, result: str, here: Path) -> None:
    (here / name).write_bytes(b"")
    assert plan(name) == [(name, result)]
    assert plan(name, output="deep") == [(name, f"deep/{result}")]


def test_two_inputs_of_one_name_for_one_folder_are_refused_before_any_work(here: Path) -> None:
    for folder in ("d1", "d2"):
        (here / folder).mkdir()
        (here / folder / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"d1/a\.png and d2/a\.png would both become out/a\.png"):
        plan("d1/a.png", "d2/a.png", output="out")
    with pytest.raises(DataError, match="would both become"):
        plan("d1", "d2", output="out")
    assert plan("d1/a.png", "d2/a.png") == [("d1/a.png", "d1/a.lino"), ("d2/a.png", "d2/a.lino")]
    (here / "d2/a.png").rename(here / "d2/a.jpg")
    assert plan("d1", "d2", output="out") == [
        ("d1/a.png", "out/a.png.lino"), ("d2/a.jpg", "out/a.jpg.lino"),
    ]  # fmt: skip


def test_results_that_differ_in_case_only_stay_apart(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("d1/a.png", "d1/B.jpg", "d2/A.png", "d2/b.png"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_bytes(b"")
    assert plan("d1/B.jpg", "d2/b.png", output="out") == [
        ("d1/B.jpg", "out/B.jpg.lino"), ("d2/b.png", "out/b.png.lino"),
    ]  # fmt: skip
    monkeypatch.setattr(files, "_ignores_case", lambda folder: False)
    assert len(plan("d1/a.png", "d2/A.png", output="out")) == 2
    monkeypatch.setattr(files, "_ignores_case", lambda folder: True)
    with pytest.raises(DataError, match="would both become"):
        plan("d1/a.png", "d2/A.png", output="out")


def test_results_that_are_links_to_one_file_get_names_of_their_own(here: Path) -> None:
    (here / "out").mkdir()
    (here / "out/b.lino").symlink_to("a.lino")
    assert plan("a.png", "b.jpg", output="out") == [
        ("a.png", "out/a.png.lino"), ("b.jpg", "out/b.jpg.lino"),
    ]  # fmt: skip
    (here / "out/b.jpg.lino").symlink_to("a.png.lino")
    with pytest.raises(DataError, match="would both become"):
        plan("a.png", "b.jpg", output="out")
    (here / "same").symlink_to("out")
    assert len(plan("a.png", "deep/c.PNG", output="same")) == 2


@pytest.mark.usefixtures("here")
def test_a_picture_that_is_named_twice_is_done_once() -> None:
    assert plan("a.png", "./a.png", "*.png", output="out") == [
        ("a.png", "out/a.lino"), ("x[1].png", "out/x[1].lino"),
    ]  # fmt: skip


@pytest.mark.usefixtures("here")
def test_what_a_folder_holds_besides_is_counted() -> None:
    (note,) = files.plan(["."], "out", readable=READABLE, suffix=".lino").notes
    assert note == ".: left alone 1 other file (1 .txt)"


@pytest.mark.usefixtures("here")
def test_streams() -> None:
    assert plan("-") == [("-", "-")]
    assert plan("-", output="z.lino") == [("-", "z.lino")]
    assert plan("a.png", output="-") == [("a.png", "-")]
    with pytest.raises(DataError, match="stands alone"):
        plan("-", "a.png")
    with pytest.raises(DataError, match="2 inputs cannot all go to standard output"):
        plan("a.png", "b.jpg", output="-")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "message"),
    [("absent.png", "no such file"), ("*.bmp", "matches no file")],
)
def test_missing_inputs_are_named(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        plan(name)


def test_an_empty_folder_is_refused(here: Path) -> None:
    (here / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.jpg \.png files in this folder"):
        plan("empty")


@pytest.mark.usefixtures("here")
def test_many_outputs_need_a_folder() -> None:
    with pytest.raises(DataError, match=r"notes\.txt: is a file, expected a folder"):
        plan("a.png", "b.jpg", output="notes.txt")


@pytest.mark.usefixtures("here")
def test_existing_files_are_kept_without_force() -> None:
    job = Job(Path("a.png"), Path("notes.txt"))
    with pytest.raises(DataError, match="exists already"):
        require_free(job, force=False)
    require_free(job, force=True)
    require_free(Job(Path("a.png"), None), force=False)
    with pytest.raises(DataError, match="is the input itself"):
        require_free(Job(Path("a.png"), Path("./a.png")), force=True)
    with pytest.raises(DataError, match="is a folder"):
        require_free(Job(Path("a.png"), Path("deep")), force=True)


def test_the_docs_name_the_suffixes_that_folders_are_searched_for() -> None:
    text = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
    listed = text.partition("are searched through for `")[2].partition("`")[0].split()
    assert set(listed) == PICTURE_SUFFIXES


# --- batches --------------------------------------------------------------------------------------


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
    monkeypatch.setattr(files, "cores", lambda: 4)
    assert files.workers_for(pixels, most) == min(expected, len(pixels))


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
    waiting = files.deque([(0, 60_000_000), (1, 30_000_000), (2, 20_000_000)])
    files._assign(team, waiting, "abc")  # type: ignore[arg-type]
    assert [worker.sent for worker in team] == [["a"], ["b"], []]
    team[0].number = None
    files._assign(team, waiting, "abc")  # type: ignore[arg-type]
    assert team[0].sent == ["a", "c"]


SLEEPER = """
import signal, sys, time
from linocut.cli.files import Options, Outcome, run
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
    files.bar(1, 2, "a")
    assert capsys.readouterr().err == ""
