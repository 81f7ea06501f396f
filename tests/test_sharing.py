"""Results reach another clone through S3: an S3 server on this machine, three clones, no re-runs.

The pipeline that is shared is the first stage alone, which is quick; DVC shares all stages alike.
"""

import pathlib
import shutil

import pytest
import yaml

from local_s3 import log_in, s3_server
from test_smoke import commit, copy_of_checkout, run

pytestmark = pytest.mark.slow

BUCKET = "linocut-test"


@pytest.fixture(scope="module")
def s3_endpoint():
    """Address of an S3 server process with one empty bucket."""
    with s3_server(BUCKET) as address:
        yield address


@pytest.fixture(scope="module")
def origin(s3_endpoint, tmp_path_factory):
    """The first checkout: `prepare` and one experiment are done, everything is pushed."""
    with pytest.MonkeyPatch.context() as patch:
        log_in(patch)
        folder = tmp_path_factory.mktemp("sharing")
        checkout = folder / "first"
        checkout.mkdir()
        copy_of_checkout(checkout)
        pipeline = yaml.safe_load((checkout / "dvc.yaml").read_text(encoding="utf-8"))
        only = {"stages": {"prepare": pipeline["stages"]["prepare"]}}
        (checkout / "dvc.yaml").write_text(yaml.safe_dump(only), encoding="utf-8")
        run(checkout, "dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}/linocut")
        run(checkout, "dvc", "remote", "modify", "store", "endpointurl", s3_endpoint)
        run(checkout, "dvc", "repro")
        commit(checkout)
        run(folder, "git", "clone", "--quiet", "--bare", "first", "origin.git")
        run(checkout, "git", "remote", "add", "origin", str(folder / "origin.git"))
        run(checkout, "dvc", "push")
        yield checkout


@pytest.fixture
def clone(origin, tmp_path):
    """A clone of the repository with nothing in its cache."""
    run(tmp_path, "git", "clone", "--quiet", str(origin.parent / "origin.git"), "clone")
    return tmp_path / "clone"


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_one_pushes_the_other_pulls_and_need_not_run(origin, clone):
    run(clone, "dvc", "pull")
    assert files(clone / "artifacts/prepared") == files(origin / "artifacts/prepared")
    output = run(clone, "dvc", "repro")
    assert "Running stage" not in output


def test_a_lock_can_be_checked_without_downloading_anything(clone):
    output = run(clone, "dvc", "repro", "--pull", "--allow-missing")
    assert "Running stage" not in output


EXPERIMENT = ("dvc", "exp", "run", "-S", "profile=smoke", "-S", "seed=1")


@pytest.fixture(scope="module")
def experiment(origin):
    """Name of an experiment of the first checkout, pushed with the run cache."""
    run(origin, *EXPERIMENT, "--name", "other-seed")
    made = files(origin / "artifacts/prepared")
    run(origin, "dvc", "exp", "push", "origin", "other-seed")
    run(origin, "dvc", "push", "--run-cache")
    return "other-seed", made


def test_an_experiment_can_be_pulled_and_applied_elsewhere(experiment, clone):
    name, made = experiment
    run(clone, "dvc", "exp", "pull", "origin", name)
    run(clone, "dvc", "exp", "apply", name)
    assert files(clone / "artifacts/prepared") == made
    assert "up to date" in run(clone, "dvc", "status")


def test_with_the_run_cache_the_same_experiment_is_not_computed_again(experiment, clone):
    _, made = experiment
    run(clone, "dvc", "fetch", "--run-cache")
    output = run(clone, *EXPERIMENT, "--pull")
    assert "is cached - skipping run" in output
    assert files(clone / "artifacts/prepared") == made


def test_without_the_remote_the_error_names_what_is_missing(clone, origin):
    shutil.rmtree(clone / ".dvc" / "cache", ignore_errors=True)
    run(clone, "dvc", "remote", "modify", "--local", "store", "url", "s3://linocut-test/elsewhere")
    with pytest.raises(AssertionError, match="artifacts/prepared"):
        run(clone, "dvc", "pull")
