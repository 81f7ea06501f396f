"""Stage scripts fail in one line, and a resume state belongs to exactly one set of inputs."""

import errno
import os
import pathlib
import re
import shutil
from typing import Any

import pytest
import yaml

from linocut.errors import ConfigError, DataError
from linocut.lab.config import stage
from linocut.lab.config.params import load_params

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture
def params_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """The parameters in a checkout where no other stage is at work."""
    return pathlib.Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def test_the_main_function_gets_parameters_and_axes(params_file: pathlib.Path) -> None:
    seen: dict[str, Any] = {}

    def main(params: Any, arch: str, loss: str) -> None:
        seen.update(seed=params.seed, arch=arch, loss=loss)

    arguments = ["--arch", "cae", "--loss", "l1"]
    stage.run(main, "arch", "loss", params_file=params_file, arguments=arguments)
    assert seen == {"seed": 0, "arch": "cae", "loss": "l1"}


def test_a_cell_outside_the_grid_lists_the_cells(
    params_file: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        stage.run(
            lambda params, loss: None, "loss", params_file=params_file, arguments=["--loss", "zzz"]
        )
    assert "--loss is 'zzz', expected one of l2, l1, ssim" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("a.png: truncated"), "a.png: truncated"),
        (
            OSError(errno.EROFS, "Read-only file system", "/data/x"),
            "Read-only file system: /data/x",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), r"/x/y \([\d.]+ GB are free on"),
        (
            OSError(errno.ENOSPC, "No space left"),
            r"left \([\d.]+ GB are free on the disk of",
        ),
    ],
)
def test_what_stops_a_stage_is_one_line(
    params_file: pathlib.Path, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    def main(params: Any) -> None:
        raise error

    with pytest.raises(SystemExit, match="1"):
        stage.run(main, params_file=params_file, arguments=[])
    printed = capsys.readouterr().err
    assert re.search(line, printed)
    assert printed.count("\n") == 1


def test_a_second_stage_in_one_checkout_is_refused_before_it_works(
    params_file: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worked = []
    with stage.alone(params_file.parent), pytest.raises(SystemExit, match="1"):
        stage.run(lambda params: worked.append(1), params_file=params_file, arguments=[])
    assert worked == []
    message = capsys.readouterr().err
    assert f"(process {os.getpid()}). Wait for it, or run in a copy: dvc exp run" in message
    stage.run(lambda params: worked.append(1), params_file=params_file, arguments=[])
    assert worked == [1]


def test_stages_of_two_copies_work_side_by_side(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with stage.alone(tmp_path / "one"), stage.alone(tmp_path / "two"):
        pass


def test_the_watched_numbers_are_those_that_dvc_lists(tmp_path: pathlib.Path) -> None:
    listed = {"params": ["seed", "train.base", "loss.${item.loss}"]}
    text = yaml.safe_dump({"stages": {"a": listed, "b": {"params": ["train.bass"]}}})
    (tmp_path / "dvc.yaml").write_text(text, encoding="utf-8")
    params = load_params(ROOT / "params.yaml")
    found = stage.watched(tmp_path, "a", params, loss="mix")
    assert list(found) == ["cell", "seed", "train.base", "loss"]
    assert found["loss"] == {"target": "linocut.lab.networks.losses:mix", "alpha": 0.84}
    with pytest.raises(ConfigError, match=r"lists train\.bass for b, which params\.yaml lacks"):
        stage.watched(tmp_path, "b", params)


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
