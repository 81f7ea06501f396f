"""Commands of the lab that get bad input say so in one line."""

import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from linocut.lab.fitting import generator, refit
from linocut.lab.studies import twin

Main = Callable[[list[str]], int]


def generator_with(crops: pathlib.Path, out: pathlib.Path) -> tuple[Main, list[str]]:
    return generator.main, ["cae-l2", "--crops", str(crops), "--out", str(out)]


def refit_with(crops: pathlib.Path, out: pathlib.Path) -> tuple[Main, list[str]]:
    return refit.main, ["cae-l2", str(crops), str(crops.parent), str(out)]


def twin_with(pictures: pathlib.Path, out: pathlib.Path) -> tuple[Main, list[str]]:
    codecs = ["cae-l2", "cae-l1", "cae-l2"]
    return twin.main, [*codecs, "--pictures", str(pictures), "--out", str(out)]


@pytest.mark.parametrize("command", [generator_with, refit_with])
@pytest.mark.parametrize("wrong", ["missing", "no array", "other numbers", "a folder"])
def test_crops_that_are_none_are_named(
    command: Callable[[pathlib.Path, pathlib.Path], tuple[Main, list[str]]],
    wrong: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    crops, out = tmp_path / "train.npy", tmp_path / "out"
    if wrong == "no array":
        crops.write_text("pictures")
    elif wrong == "other numbers":
        np.save(crops, np.zeros((4, 64, 64, 3)))
    elif wrong == "a folder":
        crops.mkdir()
    main, arguments = command(crops, out)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(crops) in said
    assert "expected" in said
    assert not (out / "model.json").exists()


@pytest.mark.parametrize("wrong", ["missing", "empty", "text beside no picture"])
def test_a_folder_without_pictures_is_named(
    wrong: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    if wrong != "missing":
        pictures.mkdir()
    if wrong.startswith("text"):
        (pictures / "notes.txt").write_text("none")
    main, arguments = twin_with(pictures, tmp_path / "out")
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(pictures) in said
