"""Stage scripts fail in one line, and a resume state belongs to exactly one set of inputs."""

import pathlib
from typing import Any

import pytest

from linocut.errors import DataError
from linocut.lab.config import stage

PARAMS = pathlib.Path(__file__).resolve().parents[3] / "params.yaml"


def test_the_main_function_gets_parameters_and_axes() -> None:
    seen: dict[str, Any] = {}

    def main(params: Any, arch: str, loss: str) -> None:
        seen.update(seed=params.seed, arch=arch, loss=loss)

    arguments = ["--arch", "cae", "--loss", "l1"]
    stage.run(main, "arch", "loss", params_file=PARAMS, arguments=arguments)
    assert seen == {"seed": 0, "arch": "cae", "loss": "l1"}


def test_a_cell_outside_the_grid_lists_the_cells(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        stage.run(
            lambda params, loss: None, "loss", params_file=PARAMS, arguments=["--loss", "zzz"]
        )
    assert "--loss is 'zzz', expected one of l2, l1, ssim" in capsys.readouterr().err


def test_a_wrong_picture_ends_a_stage_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(params: Any) -> None:
        raise DataError("a.png: truncated")

    with pytest.raises(SystemExit, match="1"):
        stage.run(main, params_file=PARAMS, arguments=[])
    assert capsys.readouterr().err.endswith("a.png: truncated\n")


def test_cells_outside_the_grid_are_removed_and_the_others_kept(tmp_path: pathlib.Path) -> None:
    for cell in ("cae-l1", "cae-l2"):
        (tmp_path / cell).mkdir()
        (tmp_path / cell / "evaluation.csv").touch()
    (tmp_path / "notes.txt").touch()
    stage.keep_only(tmp_path, ["cae-l2", "cae-mix"])
    assert [path.name for path in tmp_path.rglob("*")] == ["cae-l2", "evaluation.csv"]
    stage.keep_only(tmp_path / "nothing", [])


def test_a_resume_state_is_found_again_and_only_by_the_same_inputs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    data = tmp_path / "train.npy"
    data.write_bytes(b"1")
    folder = stage.state_folder(tmp_path, {"seed": 0}, [data])
    assert folder.parent == tmp_path / ".state"
    assert stage.state_folder(tmp_path, {"seed": 0}, [data]) == folder
    assert stage.state_folder(tmp_path, {"seed": 1}, [data]) != folder
    data.write_bytes(b"2")
    assert stage.state_folder(tmp_path, {"seed": 0}, [data]) != folder


def test_a_resume_state_outlives_the_folder_of_a_dvc_experiment(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "checkout"))
    folder = stage.state_folder(tmp_path / "temporary", {}, [])
    assert folder.parent == tmp_path / "checkout/.state"
