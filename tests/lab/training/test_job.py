"""Trainings on another machine give the networks of the stages, and none of another job."""

import json
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
import yaml

from linocut.errors import DataError
from linocut.lab.config.compose import compose
from linocut.lab.config.params import load_params
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.training import job as training_job
from linocut.lab.training import recipes
from linocut.lab.training.recipes import TrainingPlace
from linocut.pictures.image import write_png

WEIGHTS = "cae-l2/model.safetensors"


@pytest.fixture(scope="module")
def prepared_checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A checkout whose cells cae-l2 and cae-l1 take 4 iterations, with 6 prepared crops."""
    root = tmp_path_factory.mktemp("checkout")
    length = "train.megapixels=0.016384"
    short = ["profile=smoke", "arch=cae", "loss=[l2,l1]", length, "train.base.megapixels=0.016384"]
    sizes = ["train.crop_px=64", "train.base.crop_px=64", "train.batch_size=1"]
    pace = ["train.base.batch_size=1"]
    (root / "params.yaml").write_text(compose([*short, *sizes, *pace]), encoding="utf-8")
    prepared = root / "artifacts/prepared"
    (prepared / "validation").mkdir(parents=True)
    np.save(prepared / "train.npy", np.stack([dead_leaves(64, 64, seed) for seed in range(6)]))
    write_png(prepared / "validation" / "a.png", dead_leaves(64, 64, 9))
    return root


@pytest.fixture(scope="module")
def job(prepared_checkout: pathlib.Path) -> pathlib.Path:
    path = prepared_checkout / "job.zip"
    assert "6 crops" in training_job.pack(prepared_checkout, path)
    return path


@pytest.fixture(scope="module")
def results(job: pathlib.Path) -> pathlib.Path:
    path = job.with_name("results.zip")
    assert training_job.run(job, path) == "trained: cae-l2, cae-l1"
    return path


@pytest.fixture
def checkout(prepared_checkout: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy for tests that change it."""
    return shutil.copytree(prepared_checkout, tmp_path / "copy")


def weights(results: pathlib.Path) -> bytes:
    with zipfile.ZipFile(results) as archive:
        return archive.read(f"trained/{WEIGHTS}")


def test_the_networks_are_those_of_the_stages(
    checkout: pathlib.Path, results: pathlib.Path
) -> None:
    params, artifacts = load_params(checkout / "params.yaml"), checkout / "artifacts"
    base = TrainingPlace(artifacts / "prepared", artifacts / "pretrained/cae", checkout / "a")
    recipes.train_base(params, "cae", base)
    cell = TrainingPlace(artifacts / "prepared", artifacts / "trained/cae-l2", checkout / "b")
    recipes.train_cell(params, "cae", "l2", base.out, cell)
    expected = (artifacts / "trained" / WEIGHTS).read_bytes()
    assert weights(results) == expected
    (artifacts / "trained" / WEIGHTS).unlink()
    assert "trained/cae-l2, trained/cae-l1" in training_job.fetch(checkout, results)
    assert (artifacts / "trained" / WEIGHTS).read_bytes() == expected
    assert (artifacts / "pretrained/cae/history.csv").is_file()


def test_a_run_out_of_time_goes_on_where_it_was(
    checkout: pathlib.Path,
    job: pathlib.Path,
    results: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "results.zip"
    ticks = iter(range(10**6))
    monkeypatch.setattr(training_job, "_clock", lambda: float(next(ticks)))
    monkeypatch.setenv("LINOCUT_CHECKPOINT_S", "0")
    text = training_job.run(job, path, minutes=8 / 60)  # 8 looks at the clock
    assert "left, run again" in text
    with zipfile.ZipFile(path) as archive:
        assert any(name.endswith("last.pt") for name in archive.namelist())
        assert f"trained/{WEIGHTS}" not in archive.namelist()
    with pytest.raises(DataError, match=r"lacks .*trained/cae-l2.*: run the job to its end"):
        training_job.fetch(checkout, path)
    monkeypatch.undo()
    assert "left" not in training_job.run(job, path)
    assert weights(path) == weights(results)
    with zipfile.ZipFile(path) as archive:
        assert not any(name.endswith("last.pt") for name in archive.namelist())


@pytest.mark.slow
def test_cells_beside_each_other_are_the_same(
    job: pathlib.Path,
    results: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    training_job.run(job, tmp_path / "results.zip", at_once=2)
    assert weights(tmp_path / "results.zip") == weights(results)


def test_results_of_other_numbers_or_crops_are_refused(
    checkout: pathlib.Path, results: pathlib.Path
) -> None:
    numbers = yaml.safe_load((checkout / "params.yaml").read_text(encoding="utf-8"))
    numbers["seed"] = 5
    (checkout / "params.yaml").write_text(yaml.safe_dump(numbers), encoding="utf-8")
    with pytest.raises(DataError, match=r"trained with seed 0, params\.yaml has 5"):
        training_job.fetch(checkout, results)
    other_job = checkout / "other.zip"
    training_job.pack(checkout, other_job)
    with pytest.raises(DataError, match="a job with other parameters"):
        training_job.run(other_job, results)
    np.save(checkout / "artifacts/prepared/train.npy", np.zeros((2, 64, 64, 3), np.uint8))
    with pytest.raises(DataError, match="other crops"):
        training_job.fetch(checkout, results)


def test_what_is_no_job_or_too_large_is_refused_in_one_line(
    checkout: pathlib.Path, job: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert training_job.main(arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    large = checkout / "job2.zip"
    root = ("--root", str(checkout))
    line = refused("pack", str(large), "--most-mb", "0.02", *root)
    assert "crops fill 0.02 MB: set prepare.crops to" in line
    assert not large.exists()
    assert "holds no results" in refused("fetch", str(job), *root)
    (checkout / "text.zip").write_text("hello")
    assert "not a zip file" in refused("run", str(checkout / "text.zip"), str(large))
    with zipfile.ZipFile(job) as good, zipfile.ZipFile(large, "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            bad.writestr(name, json.dumps({"crops": "0"}) if name == "about.json" else data)
    assert "is damaged" in refused("run", str(large), str(checkout / "none.zip"))
    shutil.rmtree(checkout / "artifacts")
    assert "dvc repro prepare" in refused("pack", str(large), *root)
