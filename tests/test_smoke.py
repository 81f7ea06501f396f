"""The whole pipeline, on tiny numbers, in a copy of this checkout."""

import csv
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = pathlib.Path(sys.executable).parent
CELLS = ["cae-l2", "cae-ms_ssim", "generative-l2", "generative-ms_ssim"]

pytestmark = [pytest.mark.smoke, pytest.mark.slow]


def environment() -> dict[str, str]:
    """That of this process, without what another pipeline or tracking server would leak into it."""
    leaks = ("DVC_", "MLFLOW_", "GIT_", "LINOCUT_", "PYTHONPATH", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(leaks)}
    return kept | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "smoke",
        "GIT_AUTHOR_EMAIL": "smoke@example.invalid",
        "GIT_COMMITTER_NAME": "smoke",
        "GIT_COMMITTER_EMAIL": "smoke@example.invalid",
    }


def run(folder: pathlib.Path, *command: str, **further: str) -> str:
    """Output of a command that has to succeed, with further environment variables."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment() | further,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"
    return done.stdout


def copy_of_checkout(target: pathlib.Path) -> None:
    """Every file that git tracks or would track, as a repository of its own; and the kernel."""
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    kernel = "src/linocut/entropy"
    for source in (ROOT / kernel).glob("_kernel*.so"):  # numpy would take ten times as long
        shutil.copy2(source, target / kernel)
    (target / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(target / "reports", ignore_errors=True)
    run(target, "git", "init", "--quiet", "--initial-branch=main")
    compose(target, "profile=smoke")
    commit(target)


def compose(folder: pathlib.Path, *overrides: str) -> None:
    """Write params.yaml from the conf/ of this folder, not of an editable install."""
    command = ("python", "-m", "linocut.lab.config.params", "--write", *overrides)
    run(folder, *command, PYTHONPATH=str(folder / "src"))


def commit(folder: pathlib.Path) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "smoke")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of this checkout in which the pipeline has run once."""
    folder = tmp_path_factory.mktemp("smoke") / "checkout"
    folder.mkdir()
    copy_of_checkout(folder)
    run(folder, "dvc", "repro")
    commit(folder)
    return folder


def rows(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_cell_has_files_whose_bytes_are_the_rates_of_the_evaluation(
    checkout: pathlib.Path,
) -> None:
    params = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    points = len(params["code"]["rates_bpp"])
    pictures = {path.stem for path in (checkout / "artifacts/prepared/test").glob("*.png")}
    for cell in CELLS:
        evaluated = rows(checkout / f"artifacts/evaluated/{cell}/evaluation.csv")
        assert {row["picture"] for row in evaluated} == pictures
        assert len(evaluated) == points * len(pictures)
        for row in evaluated:
            name = f"{row['picture']}-{row['point']}.lino"
            file = checkout / f"artifacts/coded/{cell}/files" / name
            assert file.stat().st_size == int(row["bytes"])


def test_the_report_covers_exactly_the_cells_of_the_grid(checkout: pathlib.Path) -> None:
    rates = json.loads((checkout / "reports/cells.json").read_text(encoding="utf-8"))
    assert list(rates) == list(CELLS)
    report = (checkout / "reports/report.md").read_text(encoding="utf-8")
    for cell in CELLS:
        assert cell in report
    assert "cae-l1" not in report


def processor_seconds() -> float:
    """What the processes started so far computed, whatever else the machine was doing."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_second_repro_does_nothing_and_is_quick(checkout: pathlib.Path) -> None:
    before = processor_seconds()
    output = run(checkout, "dvc", "repro")
    assert processor_seconds() - before < 6.0
    assert "Running stage" not in output
    assert "up to date" in output
    assert run(checkout, "git", "status", "--porcelain") == ""


def test_a_clone_that_pulls_has_nothing_to_run(
    checkout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    store = tmp_path / "store"
    run(checkout, "dvc", "remote", "add", "--local", "--default", "store", str(store))
    run(checkout, "dvc", "push", "--quiet")
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(checkout), str(clone))
    run(clone, "dvc", "remote", "add", "--local", "--default", "store", str(store))
    run(clone, "dvc", "pull", "--quiet")
    assert "Running stage" not in run(clone, "dvc", "repro")
    assert run(clone, "git", "status", "--porcelain") == ""


def test_a_smaller_grid_trains_nothing_and_leaves_no_stale_cell(
    checkout: pathlib.Path,
) -> None:
    output = run(checkout, "dvc", "exp", "run", "-S", "profile=smoke", "-S", "loss=l2")
    ran = re.findall(r"^Running stage '(.*)':", output, re.MULTILINE)
    assert sorted(ran) == ["compare", "matched", "targets"]
    evaluated = {path.name for path in (checkout / "artifacts/evaluated").iterdir()}
    assert evaluated == {"cae-l2", "generative-l2"}
    assert "-ms_ssim" not in (checkout / "reports/plots/rd.csv").read_text(encoding="utf-8")


def test_a_hand_edited_grid_leaves_no_stale_cell_either(checkout: pathlib.Path) -> None:
    run(checkout, "git", "checkout", "--quiet", ".")
    run(checkout, "dvc", "checkout", "--quiet")
    compose(checkout, "profile=smoke", "arch=cae")
    run(checkout, "dvc", "repro")
    evaluated = {path.name for path in (checkout / "artifacts/evaluated").iterdir()}
    assert evaluated == {"cae-l2", "cae-ms_ssim"}
    assert "Running stage" not in run(checkout, "dvc", "repro")


def test_a_misspelt_loss_is_refused_with_the_losses_that_exist(checkout: pathlib.Path) -> None:
    done = subprocess.run(
        ["dvc", "exp", "run", "-S", "loss=zzz"],
        cwd=checkout,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Available options in 'loss'" in done.stdout + done.stderr
