"""Both trainings of a cell: where they start, what they write, and that killed ones go on."""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from linocut.errors import CheckpointError, ConfigError
from linocut.lab.config.params import Params, load_params
from linocut.lab.fitting.refinement import Aim
from linocut.lab.networks.networks import ARCHITECTURES
from linocut.lab.networks.store import load_model
from linocut.lab.training import recipes
from linocut.lab.training.machine import pick_device
from linocut.models import folders as models
from linocut.models.folders import About, read_description
from linocut.pictures.image import write_png
from tiny import GAME, OPTIONS

PARAMS = pathlib.Path(__file__).resolve().parents[3] / "params.yaml"


@pytest.fixture(autouse=True)
def checkpoints_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINOCUT_CHECKPOINT_S", "0")


@pytest.fixture(scope="module")
def params() -> Params:
    """Six iterations of two crops of 64 x 64 px."""
    loaded = load_params(PARAMS)
    train = dataclasses.replace(
        loaded.train,
        init="base",
        base=dataclasses.replace(
            loaded.train.base, megapixels=4 * 2 * 64**2 / 1e6, batch_size=2, crop_px=64
        ),
        frozen_analysis_share=0.5,
        megapixels=6 * 2 * 64**2 / 1e6,
        batch_size=2,
        crop_px=64,
    )
    generative = loaded.arch["generative"]
    short = dataclasses.replace(generative.config, game=GAME)
    arch = {"generative": dataclasses.replace(generative, config=short)}
    return dataclasses.replace(loaded, train=train, arch=loaded.arch | arch)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A prepared folder of noise."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    np.save(folder / "train.npy", rng.integers(0, 256, (4, 64, 64, 3), np.uint8))
    (folder / "validation").mkdir()
    for name, shape in {"a": (70, 90, 3), "b": (100, 65, 3)}.items():
        write_png(folder / f"validation/{name}.png", rng.integers(0, 256, shape, np.uint8))
    return folder


def place(prepared: pathlib.Path, folder: pathlib.Path) -> recipes.TrainingPlace:
    return recipes.TrainingPlace(prepared, folder / "out", folder / "state")


def with_init(params: Params, init: str) -> Params:
    return dataclasses.replace(params, train=dataclasses.replace(params.train, init=init))


def weights(folder: pathlib.Path) -> dict[str, torch.Tensor]:
    return load_model(folder).state_dict()


def test_from_scratch_the_base_network_is_the_untrained_one(
    params: Params, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    where = place(prepared, tmp_path)
    recipes.train_base(with_init(params, "scratch"), "cae", where)
    torch.manual_seed(params.seed)
    first = ARCHITECTURES["cae"](params.arch["cae"].config).state_dict()
    assert all(torch.equal(first[name], value) for name, value in weights(where.out).items())
    assert (where.out / "history.csv").read_text(encoding="utf-8").count("\n") == 1


@pytest.mark.parametrize("arch", ["cae", "generative"])
def test_a_training_that_was_killed_ends_with_the_weights_of_one_that_was_not(
    arch: str, params: Params, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    base = place(prepared, tmp_path / "base")
    recipes.train_base(params, arch, base)

    class KillError(Exception):
        pass

    def kill(metrics: Mapping[str, float], megapixels: float) -> None:
        if megapixels > 0.6 * params.train.megapixels:
            raise KillError

    straight, killed = place(prepared, tmp_path / "straight"), place(prepared, tmp_path / "killed")
    recipes.train_cell(params, arch, "l1", base.out, straight)
    with pytest.raises(KillError):
        recipes.train_cell(params, arch, "l1", base.out, killed, kill)
    assert any(killed.state.iterdir())
    assert not killed.out.exists()
    recipes.train_cell(params, arch, "l1", base.out, killed)
    expected = weights(straight.out)
    assert all(torch.equal(expected[name], value) for name, value in weights(killed.out).items())
    assert not killed.state.exists()


def test_the_history_has_the_columns_that_the_report_reads(
    params: Params, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    base, cell = place(prepared, tmp_path / "base"), place(prepared, tmp_path / "cell")
    both = dataclasses.replace(OPTIONS["generative"].config, schedule="joint")
    arch = {"generative": dataclasses.replace(OPTIONS["generative"], config=both)}
    params = dataclasses.replace(params, arch=params.arch | arch)
    recipes.train_base(params, "generative", base)
    recipes.train_cell(params, "generative", "l2", base.out, cell)
    with (cell.out / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[: len(recipes.HISTORY_COLUMNS)] == list(recipes.HISTORY_COLUMNS)
    assert "discriminator_loss" in rows[0]
    assert float(rows[-1]["megapixels"]) == pytest.approx(params.train.megapixels, abs=0.01)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINOCUT_DEVICE", "tpu")
    with pytest.raises(ConfigError, match="'tpu', expected auto, cpu or cuda"):
        pick_device()
    monkeypatch.setenv("LINOCUT_DEVICE", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no GPU"):
        pick_device()
    monkeypatch.setenv("LINOCUT_DEVICE", "cpu")
    assert pick_device().type == "cpu"


@pytest.fixture
def no_generative_mix(monkeypatch):
    known = models.available()
    others = {name: folder for name, folder in known.items() if name != "generative-mix"}
    monkeypatch.setattr(models, "available", lambda: others)


@pytest.mark.usefixtures("no_generative_mix")
def test_shipped_cells_are_the_shipped_networks_untrained(params, prepared, tmp_path):
    shipped = with_init(params, "shipped")
    where = place(prepared, tmp_path)
    recipes.train_cell(shipped, "cae", "ms_ssim", tmp_path / "no base", where)
    ours, theirs = (
        load_model(folder).state_dict() for folder in (where.out, models.folder_of("cae-ms_ssim"))
    )
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    with pytest.raises(CheckpointError, match="model 'generative-mix' is neither a folder"):
        recipes.train_cell(shipped, "generative", "mix", tmp_path / "no base", where)


@pytest.mark.usefixtures("no_generative_mix")
def test_a_cell_goes_on_with_the_released_network_of_its_own_loss(params, prepared, tmp_path):
    """And says so; where there is none for the loss, with the one for L2."""
    untrained = dataclasses.replace(params.train, init="release", megapixels=0.0)
    given = dataclasses.replace(params, train=untrained)
    for arch, loss, start in (
        ("cae", "ms_ssim", "cae-ms_ssim"),
        ("generative", "mix", "generative-l2"),
    ):
        where = place(prepared, tmp_path / arch)
        recipes.train_cell(given, arch, loss, tmp_path / "no base", where)
        theirs = load_model(models.folder_of(start)).state_dict()
        ours = load_model(where.out).state_dict()
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
        assert read_description(where.out)["about"]["continues"] == start


def test_a_cell_goes_on_with_the_released_network_of_squared_error(params, prepared, tmp_path):
    untrained = dataclasses.replace(params.train, init="release_l2", megapixels=0.0)
    given = dataclasses.replace(params, train=untrained)
    recipes.train_base(given, "cae", place(prepared, tmp_path / "base"))
    where = place(prepared, tmp_path)
    recipes.train_cell(given, "cae", "ms_ssim", tmp_path / "base", where)
    theirs = load_model(models.folder_of("cae-l2")).state_dict()
    for folder in (place(prepared, tmp_path / "base").out, where.out):
        ours = load_model(folder).state_dict()
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert read_description(where.out)["about"]["continues"] == "cae-l2"


def test_where_no_network_is_released_one_is_trained_here(params, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "available", dict)
    where = place(prepared, tmp_path)
    grid = dataclasses.replace(params.grid, arch=("cae2018",), twin_arch=())
    twin = dataclasses.replace(params.twin, arch={})
    arch = {"cae2018": OPTIONS["cae2018"]}
    small = dataclasses.replace(params, arch=arch, grid=grid, twin=twin)
    recipes.train_base(with_init(small, "release"), "cae2018", where)
    rows = (where.out / "history.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 2 + 4  # names, the start, four iterations


def test_a_released_network_of_another_size_is_not_continued(params, prepared, tmp_path):
    wide = dataclasses.replace(params.arch["cae"].config, synthesis_channels=48)
    arch = params.arch | {"cae": dataclasses.replace(params.arch["cae"], config=wide)}
    asked = dataclasses.replace(with_init(params, "release"), arch=arch)
    said = "arch.cae.synthesis_channels is 48, but cae-l2, which is continued, has 40"
    with pytest.raises(ConfigError, match=said):
        recipes.train_base(asked, "cae", place(prepared, tmp_path))
    with pytest.raises(ConfigError, match=said):
        recipes.train_cell(asked, "cae", "l2", tmp_path / "no base", place(prepared, tmp_path))


def test_a_cell_says_what_it_was_trained_for(
    params: Params, prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    untrained = dataclasses.replace(params.train, megapixels=0.0)
    given = dataclasses.replace(params, train=untrained)
    recipes.train_base(with_init(given, "scratch"), "cae", place(prepared, tmp_path / "base"))
    for loss in ("l2", "mix"):
        where = place(prepared, tmp_path / loss)
        recipes.train_cell(given, "cae", loss, tmp_path / "base/out", where)
        about = read_description(where.out)["about"]
        assert about["loss"] == loss
        assert about["loss_numbers"] == ({"alpha": 0.84} if loss == "mix" else {})
        assert "plugins" not in about
        assert Aim.of(About.from_json(about))
