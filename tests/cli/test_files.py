"""Inputs and outputs of the command line are paired without surprises."""

from __future__ import annotations

from pathlib import Path

import pytest

from linocut.cli import files
from linocut.cli.files import Job, require_free
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
