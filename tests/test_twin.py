"""Twin decoders read the same files with the same encoder, and differ by the adversary alone."""

import csv
import dataclasses
import pathlib

import numpy as np
import pytest
import torch

from linocut import twin
from linocut.checkpoint import load_model
from linocut.codec import Codec
from linocut.config import Params, load_params
from linocut.dead_leaves import dead_leaves
from linocut.errors import DataError
from linocut.evaluation import CodedRow
from linocut.image import write_png
from linocut.tables import read_rows, write_rows
from linocut.twin import TwinRow, differences

PARAMS = pathlib.Path(__file__).resolve().parents[1] / "params.yaml"


@pytest.fixture(scope="module")
def params() -> Params:
    loaded = load_params(PARAMS)
    few = dataclasses.replace(
        loaded.twin, megapixels=4 * 64**2 / 1e6, crop_px=64, batch_size=1, points=1,
        discriminator_channels=4,
        discriminator_learning_rate=2e-3,
    )  # fmt: skip
    return dataclasses.replace(loaded, twin=few)


@pytest.fixture(scope="module")
def result(
    params: Params, codec_folder: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
) -> pathlib.Path:
    """What the stage leaves, with the files of two pictures under coded/."""
    folder = tmp_path_factory.mktemp("twin")
    prepared, coded = folder / "prepared", folder / "coded"
    for part in ("prepared/test", "prepared/validation", "coded/files"):
        (folder / part).mkdir(parents=True)
    (coded / "codec").symlink_to(codec_folder)
    np.save(prepared / "train.npy", np.stack([dead_leaves(64, 64, seed) for seed in range(3)]))
    write_png(prepared / "validation" / "a.png", dead_leaves(64, 64, 5))
    codec, rows = Codec.load(codec_folder), []
    for name in ("one", "two"):
        picture = dead_leaves(64, 72, len(rows))
        write_png(prepared / "test" / f"{name}.png", picture)
        for point, step in enumerate((80.0, 40.0)):
            data = codec.compress(picture, step=step, effort=0)
            (coded / "files" / f"{name}-{point}.lino").write_bytes(data)
            rows.append(CodedRow(name, point, step, len(data), 1.0, 0.0))
    write_rows(coded / "coded.csv", CodedRow, rows)
    logged: list[float] = []
    twin.compare_twins(
        params, "l2", coded, prepared, folder / "out", lambda row, at: logged.append(at)
    )
    assert logged == sorted(logged)
    return folder / "out"


def test_both_decoders_are_measured_on_the_same_files(result: pathlib.Path) -> None:
    rows = read_rows(result / "scores.csv", TwinRow)
    assert [row.decoder for row in rows] == ["plain"] * 2 + ["adversarial"] * 2
    assert {row.point for row in rows} == {0}  # the lowest rate; others were not asked for
    plain, adversarial = rows[:2], rows[2:]
    assert [(r.picture, r.bpp) for r in plain] == [(r.picture, r.bpp) for r in adversarial]


def test_only_the_synthesis_was_trained_and_the_decoders_differ(
    result: pathlib.Path, codec_folder: pathlib.Path
) -> None:
    start = load_model(codec_folder)
    twins = [load_model(result / decoder) for decoder in twin.DECODERS]
    frozen = {name for name, _ in start.named_parameters() if name.startswith("analysis")}
    moved = 0
    for name, value in start.named_parameters():
        for network in twins:
            same = torch.equal(value, network.get_parameter(name))
            assert same or name not in frozen, name
            moved += not same
    assert moved > 0
    pairs = zip(twins[0].parameters(), twins[1].parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_the_discriminator_is_in_the_history_of_one_of_them(result: pathlib.Path) -> None:
    columns = {}
    for decoder in twin.DECODERS:
        with (result / decoder / "history.csv").open(encoding="utf-8", newline="") as file:
            columns[decoder] = set(next(csv.reader(file)))
    assert {"discriminator_loss", "discriminator_accuracy"} <= columns["adversarial"]
    assert not any("discriminator" in name for name in columns["plain"])


def test_the_report_shows_its_pictures(result: pathlib.Path) -> None:
    text = (result / "report.md").read_text(encoding="utf-8")
    for name in ("one.png", "two.png", "game.png"):
        assert f"]({name})" in text
        assert (result / name).is_file()


def test_differences_are_paired_over_pictures() -> None:
    rows = [
        TwinRow(decoder, str(picture), 0, 0.1, 30 + picture - loss, 0.9, 0.9, 50 + loss, 20.0)
        for decoder, loss in (("plain", 0.0), ("adversarial", 0.5))
        for picture in range(5)
    ]
    found = differences(rows, 0)
    assert found[0, "psnr_db"] == pytest.approx((-0.5, -0.5, -0.5))
    assert found[0, "ssimulacra2"] == pytest.approx((0.5, 0.5, 0.5))


def test_a_cell_without_files_is_named(params: Params) -> None:
    with pytest.raises(DataError, match="cae-l2 has no files"):
        twin.report_text(params, "cae-l2", [], [])
