"""Prepared data: the same every time, no picture twice, nothing bad without saying so."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from linocut.errors import DataError
from linocut.lab.config.params import DataConfig, PrepareConfig
from linocut.lab.data import prepare as prepare_module
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.data.prepare import (
    allot,
    draw_crop,
    list_files,
    pixels_sha256,
    prepare,
    split_by_hash,
)
from linocut.lab.data.sources import KODAK_VARIABLE
from linocut.pictures.image import read_image, write_png

DECLARATIONS = Path(__file__).parents[3] / "data"
SIDE = 168

FOLDER = DataConfig(
    source="folder", folder="", more_train=(), test="source", validation_share=0.2,
    test_share=0.2, skip_bad=False,
)  # fmt: skip
SMALL = PrepareConfig(crop_px=64, crops=6, dead_leaves=0, validation_pictures=2)


def picture(seed: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures in each split."""
    root = tmp_path / "pictures"
    for i, split in enumerate(["train", "validation", "test"]):
        (root / split).mkdir(parents=True)
        for j in range(2):
            write_png(root / split / f"{split}{j}.png", picture(10 * i + j))
    return root


def run(
    folder: Path, out: Path, *, seed: int = 0, dead_leaves: int = 0, **changes: Any
) -> dict[str, Any]:
    data = dataclasses.replace(FOLDER, folder=str(folder), **changes)
    config = dataclasses.replace(SMALL, dead_leaves=dead_leaves)
    prepare(data, config, seed=seed, out=out, declarations=DECLARATIONS)
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_a_folder_becomes_crops_and_pictures(folder: Path, tmp_path: Path) -> None:
    manifest = run(folder, tmp_path / "out")
    crops = np.load(tmp_path / "out" / "train.npy")
    assert crops.shape == (6, 64, 64, 3)
    assert crops.dtype == np.uint8
    assert crops.std(axis=(1, 2, 3)).min() > 5  # every slot was filled
    assert sorted(path.name for path in (tmp_path / "out" / "test").iterdir()) == [
        "test0.png", "test1.png",
    ]  # fmt: skip
    assert np.array_equal(read_image(tmp_path / "out" / "test" / "test0.png"), picture(20))
    assert manifest["counts"] == {"test": 2, "validation": 2, "train": 2}
    assert sum(entry["crops"] for entry in manifest["pictures"]) == 6


def test_the_manifest_identifies_every_picture(folder: Path, tmp_path: Path) -> None:
    manifest = run(folder, tmp_path / "out")
    entry = next(e for e in manifest["pictures"] if e["name"] == "train0")
    content = (folder / "train" / "train0.png").read_bytes()
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["pixels_sha256"] == pixels_sha256(picture(0))
    assert (entry["bytes"], entry["width"], entry["height"]) == (len(content), SIDE, SIDE)
    assert {"source", "licence", "split"} < set(entry)


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(
    folder: Path, tmp_path: Path
) -> None:
    run(folder, tmp_path / "a")
    run(folder, tmp_path / "b")
    run(folder, tmp_path / "c", seed=1)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a")["train.npy"] != digests(tmp_path / "c")["train.npy"]


def test_no_picture_is_in_two_splits_by_content_not_by_name(folder: Path, tmp_path: Path) -> None:
    copy = folder / "train" / "another name.bmp"
    Image.fromarray(picture(20)).save(copy)
    with pytest.raises(DataError, match=r"another name\.bmp: same pixels as test picture test0"):
        run(folder, tmp_path / "out")
    manifest = run(folder, tmp_path / "out", skip_bad=True)
    hashes = [entry["pixels_sha256"] for entry in manifest["pictures"]]
    assert len(hashes) == len(set(hashes))
    (rejected,) = manifest["rejected"]
    assert rejected["name"] == "another name.bmp"


def test_bad_pictures_are_listed_by_name_with_the_reason(folder: Path, tmp_path: Path) -> None:
    train = folder / "train"
    whole = (train / "train0.png").read_bytes()
    (train / "cut.png").write_bytes(whole[: len(whole) // 2])
    (train / "words.jpg").write_text("no picture")
    write_png(train / "tiny.png", picture(5, 63))
    write_png(folder / "test" / "small.png", picture(6, 160))
    write_png(train / "twin.png", picture(0))
    frames = [Image.new("RGB", (200, 200), (i, 0, 0)) for i in (0, 200)]
    frames[0].save(train / "moving.gif", save_all=True, append_images=frames[1:])
    reasons = {
        "cut.png": "damaged or truncated",
        "words.jpg": "not a picture",
        "tiny.png": "too small, 63x63, training crops need 64 px a side",
        "small.png": "too small, 160x160, MS-SSIM needs 161 px a side",
        "twin.png": "same pixels as train picture train0",
        "moving.gif": "an animation of 2 pictures",
    }
    with pytest.raises(DataError, match="6 of 12 pictures cannot be used") as stopped:
        run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    manifest = run(folder, tmp_path / "out", skip_bad=True)
    found = {entry["name"]: entry["reason"] for entry in manifest["rejected"]}
    assert set(found) == set(reasons)
    for name, reason in reasons.items():
        assert reason in found[name]
        assert f"{name}: {found[name]}" in str(stopped.value)


def test_grey_pictures_train_as_three_equal_channels(folder: Path, tmp_path: Path) -> None:
    for path in (folder / "train").iterdir():
        path.unlink()
    Image.fromarray(picture(1)[..., 0]).save(folder / "train" / "grey.png")
    run(folder, tmp_path / "out")
    crops = np.load(tmp_path / "out" / "train.npy")
    assert np.array_equal(crops[..., 0], crops[..., 1])
    assert np.array_equal(crops[..., 0], crops[..., 2])


def test_names_that_collide_are_told_apart(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(picture(40)).save(folder / "test" / "test0.bmp")
    run(folder, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "test").iterdir())
    assert names == ["test0.png", "test0_2.png", "test1.png"]


def test_a_flat_folder_is_split_by_content(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(12):
        write_png(flat / f"{i}.png", picture(i))
    before = run(flat, tmp_path / "a")
    for i in range(12):
        (flat / f"{i}.png").rename(flat / f"renamed{i}.png")
    after = run(flat, tmp_path / "b")
    assert {
        e["pixels_sha256"]: e["split"] for e in before["pictures"] if e["source"] == "flat"
    } == {e["pixels_sha256"]: e["split"] for e in after["pictures"] if e["source"] == "flat"}


def test_hash_split_follows_the_shares() -> None:
    hashes = [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(4000)]
    splits = [split_by_hash(digest, 0.1, 0.2) for digest in hashes]
    assert abs(splits.count("test") / 4000 - 0.2) < 0.03
    assert abs(splits.count("validation") / 4000 - 0.1) < 0.03


@pytest.mark.parametrize("first", range(0, 60, 3))
def test_three_pictures_of_ones_own_are_enough(first: int, tmp_path: Path) -> None:
    """Whatever their hashes say, there is one for each split."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(first, first + 3):
        write_png(flat / f"{i}.png", picture(i))
    assert run(flat, tmp_path / "out")["counts"] == {"test": 1, "validation": 1, "train": 1}


def test_a_split_is_filled_with_pictures_that_are_large_enough(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(8):
        write_png(flat / f"{i}.png", picture(i, side=70 if i % 2 else SIDE))
    manifest = run(flat, tmp_path / "out", test_share=1e-9, validation_share=1e-9)
    assert manifest["counts"] == {"test": 1, "validation": 1, "train": 6}
    assert all(e["width"] == SIDE for e in manifest["pictures"] if e["split"] != "train")


def test_a_share_of_zero_stays_empty(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for i in range(4):
        write_png(flat / f"{i}.png", picture(i))
    with pytest.raises(
        DataError, match=r"no test pictures among 4 files: .*raise data\.test_share"
    ):
        run(flat, tmp_path / "out", test_share=0.0)


def test_many_pictures_are_read_by_processes_and_once_though_interrupted(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(folder, tmp_path / "serial")
    data = dataclasses.replace(FOLDER, folder=str(folder))
    begin = functools.partial(
        prepare, data, SMALL, seed=0, out=tmp_path / "out", declarations=DECLARATIONS,
        state=tmp_path / "state",
    )  # fmt: skip
    looks = [prepare_module.look_of] * 4
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "look_of", lambda image: looks.pop()(image))
        with pytest.raises(IndexError):
            begin()
    monkeypatch.setattr(prepare_module, "_MANY", 1)
    begin()
    assert "4 of 6 are done already" in capsys.readouterr().err
    assert digests(tmp_path / "out") == digests(tmp_path / "serial")
    assert not (tmp_path / "state").exists()


def test_an_empty_split_is_refused_with_the_settings_that_fill_it(
    folder: Path, tmp_path: Path
) -> None:
    for path in (folder / "test").iterdir():
        path.unlink()
    (folder / "test").rmdir()
    with pytest.raises(DataError, match=r"no test pictures among 4 files: put some into test/"):
        run(folder, tmp_path / "out")


@pytest.mark.parametrize("how", ["half", "large", "jpeg", "half jpeg", "brighter"])
def test_copies_that_differ_in_every_pixel_are_refused_between_splits(
    how: str, folder: Path, tmp_path: Path
) -> None:
    original = Image.fromarray(dead_leaves(400, 360, 7))
    original.save(folder / "test" / "leaves.png")
    copy = original
    if "half" in how:
        copy = copy.resize((180, 200), Image.Resampling.LANCZOS)
    if how == "large":
        copy = copy.resize((500, 556), Image.Resampling.BICUBIC)
    if how == "brighter":
        copy = copy.point(lambda level: min(255, level + 12))
    copy.save(folder / "train" / "copy.jpg", quality=30 if "jpeg" in how else 95)
    said = r"1 of 8 pictures .*copy\.jpg: looks like test picture leaves \(correlation (0\.99|1\.0)"
    with pytest.raises(DataError, match=said):
        run(folder, tmp_path / "out")
    manifest = run(folder, tmp_path / "out", skip_bad=True)
    assert [entry["name"] for entry in manifest["rejected"]] == ["copy.jpg"]


def test_pictures_of_one_split_may_be_alike_and_blank_ones_anywhere(
    folder: Path, tmp_path: Path
) -> None:
    leaves = dead_leaves(200, 200, 7)
    write_png(folder / "train" / "one.png", leaves)
    Image.fromarray(leaves).save(folder / "train" / "two.jpg", quality=90)
    for level, split in enumerate(["train", "validation", "test"]):
        write_png(folder / split / "blank.png", np.full((SIDE, SIDE, 3), 100 + level, np.uint8))
    assert run(folder, tmp_path / "out")["rejected"] == []


def test_generated_pictures_fill_up_missing_validation(folder: Path, tmp_path: Path) -> None:
    (folder / "validation" / "validation0.png").unlink()
    manifest = run(folder, tmp_path / "out", dead_leaves=1)
    assert manifest["counts"]["train"] == 3
    assert np.load(tmp_path / "out" / "train.npy").std(axis=(1, 2, 3)).min() > 1
    validation = [e["name"] for e in manifest["pictures"] if e["split"] == "validation"]
    assert validation == ["validation1", "dead_leaves_0001"]


def test_every_seed_has_the_same_validation_pictures(folder: Path, tmp_path: Path) -> None:
    """Rates are read from them; what is trained on differs."""
    outs = [tmp_path / str(seed) for seed in range(3)]

    def prepared(config: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        for seed, out in enumerate(outs):
            shutil.rmtree(out, ignore_errors=True)
            run(folder, out, seed=seed, **config)
        validation = [digests(out / "validation") for out in outs]
        return validation, [(out / "train.npy").read_bytes() for out in outs]

    (folder / "validation" / "validation0.png").unlink()
    generated, crops = prepared({"dead_leaves": 1})
    assert generated[0] == generated[1] == generated[2]
    assert len(generated[0]) == 2
    assert len(set(crops)) == 3
    for i in range(8):
        write_png(folder / "validation" / f"more{i}.png", picture(50 + i))
    chosen, _ = prepared({})
    assert chosen[0] == chosen[1] == chosen[2]


def test_surplus_validation_pictures_are_not_trained_on(folder: Path, tmp_path: Path) -> None:
    for i in range(4):
        write_png(folder / "validation" / f"more{i}.png", picture(50 + i))
    manifest = run(folder, tmp_path / "out")
    assert manifest["counts"] == {"test": 2, "validation": 2, "train": 2}


def test_samples_need_no_network_and_keep_test_out_of_training() -> None:
    data = dataclasses.replace(FOLDER, source="samples")
    splits: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
    for file in list_files(data, DECLARATIONS):
        assert file.split is not None
        splits[file.split].add(pixels_sha256(read_image(file.path)))
    assert len(splits["test"]) == 7
    assert not splits["test"] & (splits["train"] | splits["validation"])
    assert not splits["train"] & splits["validation"]


@pytest.mark.skipif(
    KODAK_VARIABLE not in os.environ, reason=f"{KODAK_VARIABLE} names no folder of Kodak files"
)
def test_kodak_replaces_the_test_pictures_of_the_source(folder: Path) -> None:
    data = dataclasses.replace(FOLDER, folder=str(folder), test="kodak")
    names = [file.name for file in list_files(data, DECLARATIONS) if file.split == "test"]
    assert names == [f"kodim{i:02d}" for i in range(1, 25)]


def test_a_folder_replaces_the_test_pictures_of_the_source(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    write_png(own / "mine.png", np.zeros((200, 200, 3), np.uint8))
    data = dataclasses.replace(FOLDER, folder=str(folder), test=str(own))
    names = [file.name for file in list_files(data, DECLARATIONS) if file.split == "test"]
    assert names == ["mine"]


def test_an_unknown_word_for_the_test_set_names_those_that_are_known() -> None:
    data = dataclasses.replace(FOLDER, source="samples", test="kodka")
    with pytest.raises(DataError, match="'kodka', expected source, samples, kodak or a folder"):
        list_files(data, DECLARATIONS)


RNG_SEED = 3


@pytest.mark.parametrize("crops", [1, 7, 100])
def test_all_crops_are_allotted_in_proportion_to_area(crops: int) -> None:
    areas = [100, 300, 600]
    counts = allot(areas, crops)
    assert sum(counts) == crops
    assert all(abs(n - crops * a / 1000) < 1 for n, a in zip(counts, areas, strict=True))


@pytest.mark.parametrize("size", [(64, 64), (64, 200), (300, 70)])
def test_crops_have_the_size_even_of_a_picture_that_just_fits(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(RNG_SEED)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    for _ in range(20):
        assert draw_crop(rng, image, 64).shape == (64, 64, 3)


def test_some_crops_are_cut_out_and_some_scaled_down() -> None:
    rng = np.random.default_rng(RNG_SEED)
    image = np.kron(rng.integers(0, 2, (50, 50, 1)) * 255, np.ones((4, 4, 3))).astype(np.uint8)
    pure = [bool(np.isin(draw_crop(rng, image, 32), (0, 255)).all()) for _ in range(40)]
    assert 5 < sum(pure) < 35


def test_flat_crops_are_mostly_drawn_again() -> None:
    rng = np.random.default_rng(RNG_SEED)
    image = np.zeros((256, 512, 3), np.uint8)
    image[:, 256:] = rng.integers(0, 256, (256, 256, 3), np.uint8)
    flat = sum(draw_crop(rng, image, 32).max() == 0 for _ in range(200))
    assert 0 < flat < 60  # half of all places are flat
