"""From a trained network to files that decode, with every kind of rotation."""

import csv
import dataclasses
import functools

import numpy as np
import pytest
from safetensors.numpy import load_file

from linocut.codec import rotation
from linocut.codec.codec import Codec
from linocut.errors import DataError
from linocut.format.bitstream import ROTATION, unpack
from linocut.lab.config.params import CodeConfig, PcaConfig, TuningConfig
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.evaluation.encode import entropy_code
from linocut.lab.evaluation.rows import CodedRow, PlaneRow, read_rows
from linocut.lab.fitting import build as codec_building
from linocut.lab.fitting import decoder_tuning
from linocut.lab.fitting.build import COARSER, build_codec, fit_pca, training_latents
from linocut.lab.networks.losses import l2
from linocut.lab.networks.store import load_model, save_model
from linocut.models import folders
from linocut.pictures.image import read_image, write_png
from linocut.pictures.quality import psnr_db
from tiny import awake

MODES = ("none", "global", "per_image")
CONFIG = CodeConfig(
    rates_bpp=(0.3, 1.2),
    effort=0,
    contexts="fitted",
    context_iterations=40,
    crops=3,
    tuning=TuningConfig(0.1, 2, 2, 1e-3),
)
STEPS = (4.0, 160.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """prepared/ with one picture of each kind, and a network in trained/."""
    root = tmp_path_factory.mktemp("coding")
    for split, seed in (("validation", 1), ("test", 2)):
        (root / "prepared" / split).mkdir(parents=True)
        write_png(root / "prepared" / split / "leaves.png", dead_leaves(72, 88, seed))
    crops = dead_leaves(128, 128, 0).reshape(2, 64, 2, 64, 3).swapaxes(1, 2)
    np.save(root / "prepared" / "train.npy", crops.reshape(4, 64, 64, 3))
    save_model(root / "trained", awake("cae"), {"loss": "l2"})
    for mode in MODES:
        fit_pca(root / "trained", root / "prepared", root / mode, PcaConfig(mode, 4), 0)
    return root


@pytest.fixture(scope="module")
def codecs(root):
    """The complete codec of every mode."""
    result = {}
    for mode in MODES:
        folder = root / f"{mode}-codec"
        build_codec(root / "trained", root / mode, root / "prepared", folder, CONFIG, STEPS, 0)
        result[mode] = Codec.load(folder)
    return result


def energy_of(root, mode):
    with (root / mode / "energy.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("mode", MODES)
def test_files_of_every_rotation_decode(root, codecs, mode):
    picture = read_image(root / "prepared" / "test" / "leaves.png")
    data = codecs[mode].compress(picture, step=6.0)
    assert psnr_db(picture, codecs[mode].decompress(data)) > 35
    assert (ROTATION in unpack(data).extras) == (mode == "per_image")


def test_without_a_rotation_the_latent_is_coded_as_it_is(codecs):
    identity = rotation.identity(codecs["none"].geometry.bands)
    for used, expected in zip(codecs["none"].rotation.matrices, identity.matrices, strict=True):
        np.testing.assert_array_equal(used, expected)


def test_a_global_rotation_is_that_of_the_training_latents(root, codecs):
    network = load_model(root / "trained")
    latents = training_latents(network, root / "prepared" / "train.npy", 4, 0)
    expected = rotation.fit(network.bands, latents)
    for used, matrix in zip(codecs["global"].rotation.matrices, expected.matrices, strict=True):
        np.testing.assert_allclose(used, matrix, atol=1e-4)


def test_per_image_rotations_are_not_in_the_model(root, codecs):
    assert load_file(root / "per_image" / "rotation.safetensors") == {}
    assert codecs["per_image"].rotation is None


def test_the_energies_are_those_of_the_fitted_rotation_whichever_is_used(root):
    latents = training_latents(awake("cae"), root / "prepared" / "train.npy", 4, 0)
    fitted = rotation.fit(awake("cae").bands, latents)
    for mode in MODES:
        found = [float(row["variance"]) for row in energy_of(root, mode)]
        assert found == pytest.approx(np.concatenate(fitted.variances).tolist(), rel=1e-4)


def test_the_rate_curve_falls_with_the_step_and_gives_the_steps_of_rates(codecs):
    steps, rates = np.array(codecs["global"].about.rate_curve).T
    assert (np.diff(steps) > 0).all()
    assert (np.diff(rates) < 0).all()
    assert codecs["global"].step_for(float(rates[3])) == pytest.approx(steps[3], rel=0.02)
    assert codecs["global"].step_for(1e6) == pytest.approx(STEPS[0], rel=0.01)
    assert codecs["global"].step_for(1e-6) == pytest.approx(STEPS[1] * COARSER, rel=0.01)


def test_building_twice_gives_the_same_model(root, codecs, tmp_path):
    build_codec(root / "trained", root / "global", root / "prepared", tmp_path, CONFIG, STEPS, 0)
    assert Codec.load(tmp_path).model_id == codecs["global"].model_id


def test_a_killed_build_goes_on_with_the_tables_it_had(root, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_tuning, "CHECKPOINT_EVERY_S", 0.0)
    state, whole, resumed = (tmp_path / name for name in ("state", "whole", "resumed"))
    build = functools.partial(
        build_codec, root / "trained", root / "none", root / "prepared",
        config=CONFIG, step_range=STEPS, seed=0, distortion=l2,
    )  # fmt: skip
    build(whole)
    real = decoder_tuning.ResumeState.save

    def killed(resume, content):
        real(resume, content)
        if "done" in content:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoder_tuning.ResumeState, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            build(resumed, state=state)
    with monkeypatch.context() as patch:
        patch.setattr(codec_building, "fit_tables", None)  # not called again
        build(resumed, state=state)
    assert folders.model_id(resumed) == folders.model_id(whole)
    assert not state.exists()


def test_training_latents_are_chosen_by_the_seed(root, codecs):
    network, crops = load_model(root / "trained"), root / "prepared" / "train.npy"
    first, second = (training_latents(network, crops, 2, 0) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert len(training_latents(network, crops, 99, 0)) == 4


@pytest.mark.parametrize("missing", ["test", "validation"])
def test_no_pictures_are_an_error_that_names_the_folder(root, tmp_path, missing):
    prepared = tmp_path / "prepared"
    for split in ("test", "validation"):
        (prepared / split).mkdir(parents=True)
        if split != missing:
            write_png(prepared / split / "a.png", dead_leaves(16, 16, 0))
    (prepared / "train.npy").symlink_to(root / "prepared" / "train.npy")
    with pytest.raises(DataError, match=rf"{missing} holds no PNG"):
        entropy_code(root / "trained", root / "none", prepared, tmp_path / "out", CONFIG, STEPS, 0)


def test_the_stage_writes_a_file_and_a_row_for_every_point(root, tmp_path, monkeypatch):
    monkeypatch.setenv("LINOCUT_WORKERS", "1")
    entropy_code(
        root / "trained", root / "global", root / "prepared", tmp_path / "out", CONFIG, STEPS, 0
    )
    rows = read_rows(tmp_path / "out" / "coded.csv", CodedRow)
    codec = Codec.load(tmp_path / "out" / "codec")
    assert [row.point for row in rows] == [0, 1]
    for row in rows:
        data = (tmp_path / "out" / "files" / f"leaves-{row.point}.lino").read_bytes()
        assert len(data) == row.bytes
        assert codec.decompress(data).shape == (72, 88, 3)
        size = 8 * row.bytes / (72 * 88)
        assert abs(size - row.estimated_bpp) <= 0.01 * size + 64 / (72 * 88)
    assert rows[0].bytes < rows[1].bytes
    planes = read_rows(tmp_path / "out" / "planes.csv", PlaneRow)
    bands = codec.geometry.bands
    assert {(row.band, row.channel) for row in planes} == {
        (band.name, channel) for band in bands for channel in range(band.channels)
    }
    for row in rows:
        total = sum(one.bpp for one in planes if one.point == row.point)
        header = 64 * 8 / (72 * 88)
        assert total < row.estimated_bpp < total + header


def test_a_shipped_cell_is_coded_by_the_shipped_codec_itself(root, tmp_path):
    save_model(tmp_path / "trained", awake("cae"), {"arch": "cae", "loss": "l2", "init": "shipped"})
    config = dataclasses.replace(CONFIG, rates_bpp=(1.2,))
    places = (tmp_path / "trained", root / "global", root / "prepared", tmp_path / "coded")
    entropy_code(*places, config, STEPS, 0)
    assert folders.model_id(tmp_path / "coded/codec") == folders.model_id(
        folders.folder_of("cae-l2")
    )
    file = unpack((tmp_path / "coded/files/leaves-0.lino").read_bytes())
    assert file.model_id == folders.model_id(folders.folder_of("cae-l2"))
