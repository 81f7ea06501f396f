"""Networks on disk are found again or refused with a reason; nothing is unpickled."""

import json
import pickle

import numpy as np
import pytest
import torch

from linocut.errors import CheckpointError
from linocut.lab.config.params import CaeConfig
from linocut.lab.networks.networks import ARCHITECTURES
from linocut.lab.networks.store import (
    KERNEL_NUMBERS,
    as_tensors,
    decoder_kmac_per_px,
    load_model,
    load_tensors,
    round_to_half,
    save_model,
)
from linocut.models.folders import read_description
from tiny import awake

FULL = CaeConfig(
    levels=5, gain_channels=16, analysis_channels=32, analysis_layers=2,
    synthesis_channels=40, synthesis_deep_channels=64, synthesis_blocks=2,
)  # fmt: skip
"""The size that ships."""


@pytest.fixture
def folder(tmp_path):
    extra = as_tensors({"tables.weights": np.arange(6, dtype=np.int32).reshape(2, 3)[:, ::2]})
    save_model(tmp_path / "deep" / "model", awake("cae"), {"loss": "l2"}, extra)
    return tmp_path / "deep" / "model"


def edit(folder, **changes):
    path = folder / "model.json"
    facts = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in facts.items() if v is not None}))


def test_weights_extras_and_story_come_back(folder):
    network = load_model(folder)
    assert not network.training
    for name, tensor in awake("cae").state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, atol=0, rtol=0)
    np.testing.assert_array_equal(load_tensors(folder)["tables.weights"], [[0, 2], [3, 5]])
    assert read_description(folder)["about"] == {"loss": "l2"}


def test_half_precision_is_half_of_the_file_and_comes_back_exactly(folder, tmp_path):
    network = ARCHITECTURES["cae"](FULL)
    save_model(tmp_path / "whole", network, {})
    trained = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    round_to_half(network)
    save_model(tmp_path / "half", network, {})
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.53 * sizes[0]
    for name, tensor in load_model(tmp_path / "half").state_dict().items():
        assert tensor.dtype == trained[name].dtype
        torch.testing.assert_close(tensor, network.state_dict()[name], atol=0, rtol=0)
        if tensor.numel() < KERNEL_NUMBERS:  # lifting weights among them
            torch.testing.assert_close(tensor, trained[name], atol=0, rtol=0)
        elif tensor.is_floating_point():
            torch.testing.assert_close(tensor, trained[name], atol=1e-7, rtol=2**-11)


def test_what_half_precision_cannot_hold_stays(tmp_path):
    network = ARCHITECTURES["cae"](FULL)
    kernel = network.synthesis_net.enter.weight.data
    kernel[0, 0] = 70_000.0
    before = kernel.clone()
    round_to_half(network)
    save_model(tmp_path, network, {})
    found = load_model(tmp_path).synthesis_net.enter.weight
    torch.testing.assert_close(found.data, before, atol=0, rtol=0)


def test_saving_twice_writes_the_same_bytes(folder, tmp_path):
    extra = {"tables.weights": load_tensors(folder)["tables.weights"]}
    save_model(tmp_path / "again", awake("cae"), {"loss": "l2"}, extra)
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_training_layout_does_not_change_the_file(folder, tmp_path):
    network = awake("cae").to(memory_format=torch.channels_last)
    extra = {"tables.weights": load_tensors(folder)["tables.weights"]}
    save_model(tmp_path / "last", network, {"loss": "l2"}, extra)
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()


def test_an_empty_folder_holds_no_model(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no model: model\.json is missing"):
        load_model(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '"text"'])
def test_other_descriptions_are_refused(folder, text):
    (folder / "model.json").write_text(text)
    with pytest.raises(
        CheckpointError, match=r"is not JSON|is not a model description of format 1"
    ):
        load_model(folder)


def test_an_unknown_architecture_is_refused_with_the_known_ones(folder):
    edit(folder, architecture="vae")
    with pytest.raises(
        CheckpointError,
        match="'vae', expected module:class or one of cae, generative",
    ):
        load_model(folder)


def test_numbers_of_another_architecture_are_refused(folder):
    edit(folder, config={"channels": 4})
    with pytest.raises(CheckpointError, match=r"model\.json: "):
        load_model(folder)


def test_weights_of_another_size_are_refused_in_one_line(folder):
    facts = json.loads((folder / "model.json").read_text())
    edit(folder, config=facts["config"] | {"synthesis_channels": 8})
    with pytest.raises(CheckpointError, match=r"does not fit its model\.json") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_model(folder)


def test_pickles_are_not_opened(folder):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(folder)


def test_the_count_is_that_of_the_convolutions():
    c, d, g = 8, 12, 4
    network = ARCHITECTURES["cae"](
        CaeConfig(
            levels=2, gain_channels=g, analysis_channels=4, analysis_layers=1,
            synthesis_channels=c, synthesis_deep_channels=d, synthesis_blocks=1,
        )
    )  # fmt: skip
    half, quarter = 1 / 4, 1 / 16
    expected = half * 9 * (13 * c + c * c + 12 * c)  # enter, merge, leave
    expected += quarter * (9 * c * d + 2 * 9 * d * d + d * 4 * c)  # down, a block, up
    expected += quarter * 9 * (9 * g + g * 9)  # gains of the finest level, predicted from stride 4
    expected += half * 12 * 12  # the colour rotation, of four pixels at once
    assert 1000 * decoder_kmac_per_px(network) == pytest.approx(expected, rel=0.001)
