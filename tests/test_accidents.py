"""What can go wrong while the pipeline runs leaves the results of an undisturbed run, or one line.

Every test works on a copy of one checkout whose pipeline has run once.
"""

import ctypes
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from small_checkout import results, small_checkout
from test_smoke import environment, run

pytestmark = pytest.mark.slow

STAGES = (
    "prepare", "pretrain@cae", "train@cae-l2", "fit_pca@cae-l2", "entropy_code@cae-l2",
    "evaluate@cae-l2", "anchors", "matched", "compare",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A checkout whose one cell has run to the end."""
    folder = small_checkout(tmp_path_factory.mktemp("accidents") / "a", "arch=cae", "loss=l2")
    run(folder, "dvc", "repro")
    return folder


@pytest.fixture
def copy(undisturbed: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """The finished checkout, to be disturbed; with what DVC keeps for it."""
    return shutil.copytree(undisturbed, tmp_path / "copy", symlinks=True)


def forget(checkout: pathlib.Path) -> None:
    """As if nothing had run yet."""
    for name in ("artifacts", "reports", ".dvc/cache", ".dvc/tmp", ".state", ".mlflow"):
        shutil.rmtree(checkout / name, ignore_errors=True)
    (checkout / "dvc.lock").unlink()


def power_cut(checkout: pathlib.Path, stage: str, after_s: float) -> bool:
    """Start the pipeline, and kill all of it `after_s` seconds after a stage has begun.

    Returns:
        Whether the stage ran.
    """
    log = checkout.parent / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=checkout,
            env=environment() | {"LINOCUT_CHECKPOINT_S": "0"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    began = False
    while process.poll() is None and not began:
        began = f"Running stage '{stage}'" in log.read_text()
        time.sleep(0.02)
    if began:
        time.sleep(after_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return began


def test_a_pipeline_that_is_killed_in_every_stage_ends_as_if_it_had_not_been(
    undisturbed: pathlib.Path, copy: pathlib.Path
) -> None:
    forget(copy)
    moments = random.Random(7)
    for stage in STAGES:
        assert power_cut(copy, stage, moments.uniform(0.2, 9.0)), (copy.parent / "log").read_text()
    run(copy, "dvc", "repro")
    assert results(copy) == results(undisturbed)
    assert not [path for path in (copy / "artifacts").rglob(".*") if path.name != ".gitignore"]
    assert "Running stage" not in run(copy, "dvc", "repro")


def limited(checkout: pathlib.Path, size: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command that can write no file beyond `size` bytes, as if the disk were full then."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return subprocess.run(
        command, cwd=checkout, env=environment(), preexec_fn=limit,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


SCRIPTS = {
    "artifacts/prepared": (["prepare.py"], 60_000),
    "artifacts/trained/cae-l2": (["train.py", "--arch", "cae", "--loss", "l2"], 100_000),
    "artifacts/rotated/cae-l2": (["fit_pca.py", "--arch", "cae", "--loss", "l2"], 500),
    "artifacts/coded/cae-l2": (["entropy_code.py", "--arch", "cae", "--loss", "l2"], 3_000),
    "artifacts/evaluated/cae-l2": (["evaluate.py", "--arch", "cae", "--loss", "l2"], 300),
    "reports": (["compare.py"], 2_000),
}


@pytest.mark.parametrize("out", SCRIPTS)
def test_a_full_disk_ends_a_stage_with_one_line_and_the_next_run_repairs_all(
    out: str, undisturbed: pathlib.Path, copy: pathlib.Path
) -> None:
    (script, *options), size = SCRIPTS[out]
    shutil.rmtree(copy / out)
    done = limited(copy, size, sys.executable, f"stages/{script}", *options)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(script)]
    assert "File too large" in line or "cannot be written" in line or "disk" in line
    run(copy, "dvc", "repro")
    assert results(copy) == results(undisturbed)


def test_pictures_changed_or_deleted_between_stages_are_put_back(
    undisturbed: pathlib.Path, copy: pathlib.Path
) -> None:
    test = copy / "artifacts/prepared/test"
    first, second = sorted(test.iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-20])
    shutil.rmtree(copy / "artifacts/evaluated")
    done = limited(copy, 10**9, sys.executable, "stages/evaluate.py", "--arch=cae", "--loss=l2")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert first.name in done.stderr.splitlines()[-1]
    run(copy, "dvc", "repro")
    assert results(copy) == results(undisturbed)


def test_a_deleted_source_is_named_before_anything_is_lost(copy: pathlib.Path) -> None:
    before = results(copy)
    shutil.rmtree(copy / "data/small/test")
    done = limited(copy, 10**9, "dvc", "repro", "--force", "--single-item", "prepare")
    assert done.returncode != 0
    assert "prepare.py: no test pictures" in done.stderr
    run(copy, "git", "checkout", "--quiet", "data")
    run(copy, "dvc", "repro")
    assert results(copy) == before


def test_a_second_repro_beside_the_first_is_refused_and_spoils_nothing(
    undisturbed: pathlib.Path, copy: pathlib.Path
) -> None:
    train = ("dvc", "repro", "--force", "--single-item", "train@cae-l2")
    log = copy.parent / "log"
    with log.open("w") as file:
        first = subprocess.Popen(
            train, cwd=copy, env=environment(), stdout=file, stderr=subprocess.STDOUT
        )
    try:
        while "Running stage" not in log.read_text():
            assert first.poll() is None, log.read_text()
            time.sleep(0.1)
        second = subprocess.run(
            train, cwd=copy, env=environment(), capture_output=True, text=True, check=False
        )
        assert first.wait() == 0, log.read_text()
    finally:
        first.kill()
    assert second.returncode != 0
    printed = second.stdout + second.stderr
    assert "another stage is at work" in printed or "is busy" in printed or "lock" in printed
    assert "Traceback" not in printed
    assert results(copy) == results(undisturbed)
    again = run(copy, "dvc", "repro")
    assert again.count("Running stage") == again.count("Running stage 'compare'")  # of other times
    assert "Running stage" not in run(copy, "dvc", "repro")


def test_a_cache_that_cannot_be_written_ends_a_stage_with_an_error_and_is_taken_up_again(
    undisturbed: pathlib.Path, copy: pathlib.Path
) -> None:
    pca = ("dvc", "repro", "fit_pca@cae-l2")
    params = copy / "params.yaml"
    before = params.read_text(encoding="utf-8")
    params.write_text(before.replace("mode: global", "mode: none"), encoding="utf-8")
    assert params.read_text(encoding="utf-8") != before
    folders = [path for path in (copy / ".dvc/cache").rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)

    def obey_permissions() -> None:
        """Also as root: without CAP_DAC_OVERRIDE, from the next program on."""
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP

    refused = subprocess.run(
        pca, cwd=copy, env=environment(), preexec_fn=obey_permissions,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr
    assert "Traceback" not in refused.stderr
    for folder in folders:
        folder.chmod(0o755)
    assert "Running stage 'fit_pca@cae-l2'" in run(copy, *pca)
    params.write_text(before, encoding="utf-8")
    run(copy, "dvc", "repro")
    assert results(copy) == results(undisturbed)


def test_a_clock_that_was_wrong_runs_nothing_again(copy: pathlib.Path) -> None:
    for moment, path in enumerate(sorted(copy.rglob("*"))):
        if path.is_file() and ".git" not in path.parts and ".dvc" not in path.parts:
            when = 86_400.0 if moment % 2 else 4_000_000_000.0  # 1970, and 2096
            os.utime(path, (when, when))
    assert "Running stage" not in run(copy, "dvc", "repro")


def test_stages_need_no_home_no_temporary_folder_no_cache_and_no_locale(
    undisturbed: pathlib.Path, copy: pathlib.Path
) -> None:
    bare = {
        "HOME": "/nonexistent", "TMPDIR": "/nonexistent", "XDG_CACHE_HOME": "/proc/nothing",
        "XDG_CONFIG_HOME": "/proc/nothing", "MPLCONFIGDIR": "/proc/nothing",
        "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
    }  # fmt: skip
    for out, ((script, *options), _) in SCRIPTS.items():
        if "trained" not in out:
            if out != "reports":
                shutil.rmtree(copy / out)
            run(copy, "python", f"stages/{script}", *options, **bare)
    assert results(copy) == results(undisturbed)


def test_a_state_and_a_store_that_cannot_be_written_end_no_training(
    undisturbed: pathlib.Path, copy: pathlib.Path
) -> None:
    shutil.rmtree(copy / "artifacts/trained")
    command = ("python", "stages/train.py", "--arch", "cae", "--loss", "l2")
    said = run(copy, *command, DVC_ROOT="/proc/nothing", LINOCUT_CHECKPOINT_S="0")
    assert said.count("the training goes on") == 1
    assert said.count("going on without it") == 1
    assert results(copy) == results(undisturbed)
