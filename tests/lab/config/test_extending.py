"""docs/extending.md is true: its loss and its architecture become a codec, as they stand there."""

import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import yaml

from linocut.codec.codec import Codec
from linocut.errors import ConfigError
from linocut.lab.config.params import ArchOption, LossOption, Params, load_params
from linocut.lab.config.parse import find, record, sources
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.fitting import build
from linocut.lab.networks.losses import described
from linocut.lab.networks.store import load_model
from linocut.lab.training import recipes
from linocut.models.folders import read_description
from linocut.pictures.image import write_png
from linocut.pictures.quality import psnr_db

ROOT = pathlib.Path(__file__).resolve().parents[3]
BLOCK = re.compile(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """A folder with the files of the page, which targets are looked for in."""
    folder = tmp_path_factory.mktemp("checkout")
    for name, text in BLOCK.findall((ROOT / "docs/extending.md").read_text(encoding="utf-8")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("linocut.lab.config.parse.CHECKOUT", folder)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugins"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def params(checkout: pathlib.Path) -> Params:
    """The two options of the page, and trainings of four iterations."""
    conf = checkout / "conf"
    arch, loss = (
        yaml.safe_load((conf / path).read_text(encoding="utf-8"))
        for path in ("arch/blocks.yaml", "loss/charbonnier.yaml")
    )
    loaded = load_params(ROOT / "params.yaml")
    short = {"megapixels": 4 * 64**2 / 1e6, "batch_size": 1, "crop_px": 64}
    base = dataclasses.replace(loaded.train.base, **short)
    train = dataclasses.replace(loaded.train, base=base, **short)
    grid = dataclasses.replace(
        loaded.grid, arch=("blocks",), loss=("charbonnier",), bit_errors=(), twin_arch=(),
        twin_loss=(),
    )  # fmt: skip
    return dataclasses.replace(
        loaded,
        arch={"blocks": ArchOption.of(arch["blocks"], "arch.blocks")},
        loss={"charbonnier": LossOption.of(loss["charbonnier"], "loss.charbonnier")},
        train=train,
        grid=grid,
        twin=dataclasses.replace(loaded.twin, arch={}, loss={}),
        robustness=dataclasses.replace(loaded.robustness, losses={}),
        code=dataclasses.replace(loaded.code, contexts="none", crops=4),
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("prepared")
    np.save(folder / "train.npy", np.stack([dead_leaves(64, 64, seed) for seed in range(8)]))
    (folder / "validation").mkdir()
    write_png(folder / "validation/leaves.png", dead_leaves(64, 64, 9))
    return folder


@pytest.fixture(scope="module")
def codec(
    params: Params, prepared: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """What the stages pretrain, train, fit_pca and entropy_code make."""
    work = tmp_path_factory.mktemp("work")
    base, cell = (
        recipes.TrainingPlace(prepared, work / name, work / "state") for name in ("base", "cell")
    )
    recipes.train_base(params, "blocks", base)
    recipes.train_cell(params, "blocks", "charbonnier", base.out, cell)
    build.fit_pca(cell.out, prepared, work / "rotated", params.pca, params.seed)
    build.build_codec(
        cell.out, work / "rotated", prepared, work / "codec", params.code,
        params.train.step_range, params.seed,
    )  # fmt: skip
    return work / "codec"


def test_pictures_come_back_from_files_of_the_codec_that_was_trained(codec: pathlib.Path) -> None:
    picture = dead_leaves(96, 72, 11)
    made = Codec.load(codec)
    for step, quality_db in ((6.0, 38.0), (24.0, 27.0)):
        assert psnr_db(picture, made.decompress(made.compress(picture, step=step))) > quality_db


def test_training_changed_the_transform(codec: pathlib.Path, params: Params) -> None:
    started = find("plugins.blocks:Blocks")(params.arch["blocks"].config)
    trained = load_model(codec)
    assert trained.architecture == "plugins.blocks:Blocks"
    assert not (trained.synthesis_net.weight == started.synthesis_net.weight).all()


def test_the_model_says_its_loss_and_the_files_that_it_is_made_of(
    codec: pathlib.Path, checkout: pathlib.Path
) -> None:
    about = read_description(codec)["about"]
    assert described(about).keywords == {"epsilon": 0.004}
    assert about["plugins"] == {
        name: sources([f"plugins.{name.removeprefix('plugins/').removesuffix('.py')}:x"])[name]
        for name in ("plugins/blocks.py", "plugins/charbonnier.py")
    }


def test_a_record_changes_with_its_own_file_alone(
    checkout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    def records() -> list[object]:
        found = []
        for target in ("plugins.blocks:Blocks", "plugins.charbonnier:charbonnier"):
            record([target], tmp_path / "record.json")
            found.append(json.loads((tmp_path / "record.json").read_text(encoding="utf-8")))
        return found

    before = records()
    file = checkout / "plugins/charbonnier.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text + "# another\n", encoding="utf-8")
    (checkout / "plugins/new.py").touch()
    blocks, charbonnier = records()
    file.write_text(text, encoding="utf-8")
    assert blocks == before[0]
    assert charbonnier != before[1]


def test_numbers_out_of_the_range_that_the_page_asks_for_are_refused(
    checkout: pathlib.Path,
) -> None:
    target = "plugins.charbonnier:charbonnier"
    with pytest.raises(ConfigError, match=r"loss\.mine\.epsilon is 0, expected at least 1e-12"):
        LossOption.of({"target": target, "epsilon": 0}, "loss.mine")
