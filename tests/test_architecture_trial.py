"""Variants get equal numbers of operations, and are what their names say."""

import dataclasses
import pathlib
import sys

import numpy as np
import pytest
from torch import nn

from linocut.lab.config.params import Params, load_params
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.networks.store import decoder_kmac_per_px
from linocut.pictures.image import write_png

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from benchmarks import architecture_trial as trial

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def params() -> Params:
    loaded = load_params(ROOT / "params.yaml")
    small = dataclasses.replace(loaded.train.base, crop_px=64, batch_size=1)
    return dataclasses.replace(loaded, train=dataclasses.replace(loaded.train, base=small))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("prepared")
    np.save(folder / "train.npy", np.stack([dead_leaves(128, 128, seed) for seed in range(4)]))
    (folder / "validation").mkdir()
    write_png(folder / "validation" / "a.png", dead_leaves(128, 160, 9))
    return folder


def test_a_cheaper_network_sees_more_pixels_for_the_same_operations(
    params: Params, prepared: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = {"default": ([0.1, 0.2, 0.5, 1.0], [26.0, 30.0, 34.0, 38.0])}
    monkeypatch.setattr(trial, "curve", lambda *_: curves["default"])
    results = [
        trial.trial(params, name, 0, prepared, 0.008192, {})
        for name in ("default", "narrow: 24 and 40 channels")
    ]
    default, narrow = results
    assert default.megapixels == pytest.approx(0.008192)
    assert narrow.teraflop == default.teraflop > 0
    assert narrow.megapixels > 1.5 * default.megapixels
    assert narrow.kmac_per_px < 0.5 * default.kmac_per_px
    assert default.bd_rate == pytest.approx(0.0, abs=1e-9)
    assert "| default | +0.0 % |" in trial.table(results)


def test_variants_start_as_the_same_wavelet_and_differ_in_what_they_name() -> None:
    costs = {name: decoder_kmac_per_px(trial.build(name)) for name in trial.VARIANTS}
    assert costs["ReLU"] == costs["default"]
    assert costs["shallow: 1 block"] < costs["default"] < costs["deep: 4 blocks"]
    assert costs["separable 7x7 blocks"] == pytest.approx(costs["default"], rel=0.1)
    for name in ("ReLU", "inverse GDN"):
        synthesis = trial.build(name).get_submodule("synthesis_net")
        assert not any(isinstance(module, nn.PReLU) for module in synthesis.modules())


def test_the_curve_of_a_wavelet_rises(prepared: pathlib.Path, monkeypatch) -> None:
    monkeypatch.setattr(trial, "STEPS", (16.0, 64.0))
    picture = dead_leaves(64, 96, 3)
    rates, qualities = trial.curve(trial.build("default"), [picture], prepared / "train.npy", 0)
    assert rates[0] > rates[1] > 0
    assert qualities[0] > qualities[1] > 20
