"""MLflow shows every result that DVC has, once, whoever made it."""

import pathlib
from dataclasses import dataclass, replace

import pytest

from conftest import isolate, list_runs
from fake_checkout import RATES_BPP, FakeCheckout
from linocut.entropy.planes import step_index
from linocut.errors import DataError
from linocut.lab.report.experiments import anchor_rows, revisions
from linocut.lab.tracking import live, sync
from linocut.lab.tracking.sync import draw_curves

# MLflow leaves connections to SQLite to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def replace_slow_parts(patch):
    """Neither draw figures nor register models; gives the cells that were made champion."""
    champions = []

    def crown(client, run_id, codec, step, tags):
        step_index(step)  # grey levels that a codec takes
        champions.append(tags["linocut.cell"])
        return "1"

    patch.setattr(sync, "crown", crown)
    patch.setattr(sync, "draw_curves", lambda cells, anchors, path: path.touch())
    return champions


def two_cells(folder):
    made = FakeCheckout(folder)
    made.add_cell("cae-l1")
    made.add_cell("cae-l2", gain_db=1.0)
    made.commit()
    return made


@dataclass(frozen=True)
class Synced:
    checkout: FakeCheckout
    summary: str
    champions: list[str]


@pytest.fixture(scope="module")
def synced(make_store, tmp_path_factory):
    """Two cells after the first sync, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("synced")
    make_store(folder)
    checkout = two_cells(folder / "checkout")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder)
        champions = replace_slow_parts(patch)
        yield Synced(checkout, sync.sync(checkout.root), champions)


@pytest.fixture
def checkout(store, monkeypatch, tmp_path):
    """Two cells before the first sync."""
    replace_slow_parts(monkeypatch)
    return two_cells(tmp_path / "checkout")


def cells(runs):
    return {run.info.run_name: run for run in runs if "linocut.cell" in run.data.tags}


def studies(runs):
    return [run for run in runs if "linocut.study" in run.data.tags]


def test_every_cell_of_the_cache_gets_a_run_with_all_that_a_page_shows(synced):
    assert "2 made, 0 completed, 0 unchanged" in synced.summary
    run = cells(list_runs())["cae-l2"]
    assert run.data.params["arch"] == "cae"
    assert run.data.params["train.learning_rate"] == "0.001"
    assert len(run.data.params) < 30
    assert run.data.metrics["train/psnr_db"] == 27.0
    assert run.data.metrics["eval/PSNR dB at 0.5 bpp"] == pytest.approx(25.0, abs=0.01)
    assert run.data.metrics["BD-rate/PSNR vs jpeg2000"] < -5
    assert run.data.metrics["eval/rate over estimate percent"] == pytest.approx(1.0)
    assert run.info.end_time - run.info.start_time == 10_000  # the seconds of history.csv
    client, _ = live.open_store()
    points = client.get_metric_history(run.info.run_id, "rd/PSNR dB")
    assert [point.step for point in points] == [round(1000 * bpp) for bpp in RATES_BPP]
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"evaluation.csv", "history.csv", "energy.csv", "rd.png"} <= names
    assert {"codec", "pictures", "images"} <= names
    digests = {entry.dataset.name: entry.dataset.digest for entry in run.inputs.dataset_inputs}
    assert digests == {"samples-train": "a" * 32, "samples-test": synced.checkout.prepared}
    lock = synced.checkout.stages["evaluate@cae-l2"]["outs"][0]["md5"]
    assert run.data.tags["dvc.out"] == lock
    assert "dvc repro evaluate@cae-l2" in run.data.tags["mlflow.note.content"]


def test_the_cells_of_a_study_have_one_parent(synced):
    (parent,) = studies(list_runs())
    assert parent.info.run_name == "study: samples, 15 Mpx, seed 0"
    parents = {run.data.tags["mlflow.parentRunId"] for run in cells(list_runs()).values()}
    assert parents == {parent.info.run_id}


def test_a_second_sync_changes_nothing(synced):
    before = {run.info.run_id: (run.data.tags, run.data.metrics) for run in list_runs()}
    summary = sync.sync(synced.checkout.root)
    assert "0 made, 0 completed, 2 unchanged" in summary
    assert {run.info.run_id: (run.data.tags, run.data.metrics) for run in list_runs()} == before


def test_the_run_of_a_training_is_completed_instead_of_doubled(checkout, store):
    (revision,) = revisions(checkout.root)
    cell = next(cell for cell in revision.cells() if cell.name == "cae-l1")
    with live.run(
        "cae-l1",
        arch="cae",
        loss="l1",
        params={"arch": "cae", "seed": 0},
        fingerprint="f1",
        weights=pathlib.Path(cell.files["train"]["model.safetensors"]),
    ) as log:
        log({"loss": 2.0}, 0.0)
    summary = sync.sync(checkout.root)
    assert "1 made, 1 completed, 0 unchanged" in summary
    run = cells(store())["cae-l1"]
    assert run.data.tags["linocut.fingerprint"] == "f1"
    assert "eval/PSNR dB at 0.5 bpp" in run.data.metrics
    assert len(store()) == 3


def test_a_run_whose_stage_ended_before_the_store_answered_lasts_as_long_as_the_training(
    checkout, store
):
    (revision,) = revisions(checkout.root)
    cell = next(cell for cell in revision.cells() if cell.name == "cae-l1")
    weights = pathlib.Path(cell.files["train"]["model.safetensors"])
    options = {"arch": "cae", "loss": "l1", "params": {}, "fingerprint": "f1", "weights": weights}
    with live.run("cae-l1", **options) as log:
        log({"loss": 2.0}, 0.0)
    (run,) = store()
    client, _ = live.open_store()
    client.update_run(run.info.run_id, status="RUNNING")
    sync.sync(checkout.root)
    info = cells(store())["cae-l1"].info
    assert info.status == "FINISHED"
    assert info.end_time - info.start_time == 10_000  # history.csv says 10 s


def test_a_run_that_broke_off_gets_the_rest_of_its_curves_and_no_second_one(checkout, store):
    for loss in (2.0, 1.25):  # of this training, and of another one
        options = {"arch": "cae", "loss": "l1", "params": {}, "fingerprint": f"{loss}"}
        with live.run("cae-l1", **options) as log:
            log({"loss": loss}, 0.0)
    client, _ = live.open_store()
    broken = next(r for r in store() if r.data.tags["linocut.fingerprint"] == "2.0")
    client.update_run(broken.info.run_id, status="RUNNING")  # nobody could say that it ended
    assert "1 made, 1 completed, 0 unchanged" in sync.sync(checkout.root)
    run = client.get_run(broken.info.run_id)
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(0, 2.0), (7500, 1.5), (15000, 1.0)]
    assert "eval/PSNR dB at 0.5 bpp" in run.data.metrics
    assert "0 made, 0 completed, 2 unchanged" in sync.sync(checkout.root)


def test_measuring_again_does_not_make_another_run_because_of_the_times(checkout, store):
    sync.sync(checkout.root)
    checkout.add_cell("cae-l1", seconds=2.0)
    assert "0 made" in sync.sync(checkout.root)


def test_other_numbers_are_another_run_in_another_study(checkout, store):
    sync.sync(checkout.root)
    checkout.add_cell("cae-l1", gain_db=0.5, megapixels=30.0)
    assert "1 made, 0 completed, 1 unchanged" in sync.sync(checkout.root)
    assert len(studies(store())) == 2


def test_the_cells_of_dvc_experiments_are_there_under_their_names(checkout, store):
    checkout.add_cell("cae-l1", gain_db=0.5, megapixels=30.0)
    checkout.save_experiment("tidy-moth")
    assert "3 made" in sync.sync(checkout.root)
    runs = [run for run in store() if run.info.run_name == "cae-l1"]
    assert sorted(run.data.tags.get("dvc.exp", "") for run in runs) == ["", "tidy-moth"]
    shared = cells(store())["cae-l2"]  # the experiment took it from the cache
    assert shared.data.tags["dvc.exp"] == "tidy-moth"


def test_a_cell_whose_stages_do_not_fit_together_yet_is_left_out(checkout, store):
    evaluated = checkout.stages["evaluate@cae-l1"]
    checkout.add_cell("cae-l1", gain_db=0.5)
    checkout.stages["evaluate@cae-l1"] = evaluated  # of the training before
    checkout.commit()
    assert "1 made" in sync.sync(checkout.root)


def test_cells_that_were_measured_on_other_pictures_than_the_anchors_are_left_out(checkout, store):
    checkout.test_on(b"other pictures")
    checkout.add_cell("cae-l2")
    assert "1 made" in sync.sync(checkout.root)
    assert list(cells(store())) == ["cae-l2"]


def test_a_study_is_named_by_its_pictures_and_its_length(checkout, store):
    (cell, *_) = next(iter(revisions(checkout.root))).cells()
    data = {"source": "samples", "test": "kodak"}
    shipped = replace(cell, params={"data": data, "train": {"init": "shipped"}, "seed": 1})
    assert sync._title(shipped) == "study: samples, tested on kodak, as shipped, seed 1"
    trained = {"data": {"source": "samples", "test": "source"}, "train": {"megapixels": 1.2}}
    title = sync._title(replace(cell, params={**trained, "seed": 0}))
    assert title == "study: samples, 1.2 Mpx, seed 0"


def test_a_cell_whose_tables_are_of_another_version_is_left_out_and_counted(
    checkout, store, monkeypatch
):
    read = sync.measured

    def measured(cell):
        if cell.name == "cae-l1":
            raise DataError("columns are missing")
        return read(cell)

    monkeypatch.setattr(sync, "measured", measured)
    assert "1 left out" in sync.sync(checkout.root)
    assert "cae-l1" not in cells(store())


def test_a_cell_that_is_not_in_the_cache_is_left_out(checkout, store):
    listing = checkout.stages["evaluate@cae-l1"]["outs"][0]["md5"]
    (checkout.root / ".dvc/cache/files/md5" / listing[:2] / listing[2:]).unlink()
    assert "1 made" in sync.sync(checkout.root)


def test_the_champion_needs_the_fewest_bits(synced):
    assert set(synced.champions) == {"cae-l2"}
    assert "champion: cae-l2 of the working tree, version 1" in synced.summary


def test_a_better_cell_of_an_experiment_is_named_beside_the_champion(checkout, store):
    assert "dvc exp apply" not in sync.sync(checkout.root)
    lock = (checkout.root / "dvc.lock").read_text()
    checkout.add_cell("cae-l1", gain_db=3.0, megapixels=30.0)
    checkout.save_experiment("tidy-moth")
    (checkout.root / "dvc.lock").write_text(lock)
    summary = sync.sync(checkout.root)
    assert "champion: cae-l2 of the working tree" in summary
    assert "cae-l1 of the experiment tidy-moth needs fewer bits" in summary
    assert "dvc exp apply tidy-moth" in summary


def test_the_address_of_the_table_sorts_it_by_bits(synced):
    assert "runs?orderByKey=metrics.%60BD-rate%2FPSNR+vs+jpeg2000%60" in synced.summary


def test_sync_on_a_dead_server_says_so_in_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    assert sync.main([]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_figure_of_a_run_is_a_picture(tmp_path):
    checkout = two_cells(tmp_path / "checkout")
    (revision,) = revisions(checkout.root)
    anchors = anchor_rows(revision.files("anchors"))
    draw_curves(list(revision.cells()), anchors, tmp_path / "rd.png")
    assert (tmp_path / "rd.png").read_bytes().startswith(b"\x89PNG")
