"""Graphs give what the network gives, at any size, whatever it is made of."""

import json
import pathlib
from unittest import mock

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from linocut.codec.transforms import Geometry, GraphTransforms
from linocut.errors import CheckpointError
from linocut.lab.networks import export, store
from linocut.lab.networks.export import write_graphs
from linocut.lab.networks.networks import Network
from linocut.lab.networks.store import round_to_half, save_model
from linocut.lab.networks.torch_transforms import TorchTransforms, geometry_of
from linocut.models import folders
from tiny import awake

ARCHITECTURES = ("cae", "generative", "cae2018", "ncode")


@pytest.fixture(scope="module", params=[*ARCHITECTURES, "cae in half precision"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[GraphTransforms, TorchTransforms]:
    """The graphs of a network whose every part speaks, and the network itself."""
    network = awake(request.param.split()[0])
    if request.param.endswith("half precision"):
        with mock.patch.object(store, "KERNEL_NUMBERS", 1):
            round_to_half(network)
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, network, {})
    assert write_graphs(folder, network) <= 1
    return GraphTransforms(folder, geometry_of(network), threads=1), TorchTransforms(network)


def window_of(transforms: TorchTransforms, rows: int, columns: int) -> np.ndarray:
    unit = transforms.geometry.multiple
    rng = np.random.default_rng(rows)
    return rng.integers(0, 256, (rows * unit, columns * unit, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 2), (9, 9)])
def test_graphs_agree_with_the_network_at_any_size(pair, size):
    graphs, own = pair
    window = window_of(own, *size)
    y_hat = own.analysis(window)
    for found, expected in zip(graphs.analysis(window), y_hat, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-3)
    features = own.geometry.features
    scales = [None]
    if features is not None:
        scales.append(np.random.default_rng(1).uniform(0, 2, (5, features)).astype(np.float32))
    for scale in scales:
        found, expected = (one.synthesis(y_hat, 37.0, scale) for one in (graphs, own))
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_slopes_above_one_are_slopes_in_the_graphs(tmp_path):
    network = awake("cae")
    for layer in network.modules():
        if isinstance(layer, nn.PReLU):
            layer.weight.data.uniform_(0.5, 1.5)
    save_model(tmp_path, network, {})
    assert write_graphs(tmp_path, network) <= 1


def test_decoding_shuffles_bytes_and_has_a_product_place_the_floats(pair):
    graphs, own = pair
    if own.network.architecture not in ("cae", "generative"):
        pytest.skip("has no channels that become pixels")
    names = ["synthesis"] + ["corrected"] * (own.geometry.features is not None)
    for name in names:
        nodes = onnx.load(graphs.folder / f"{name}.onnx", load_external_data=False).graph.node
        shuffled = [node.input[0] for node in nodes if node.op_type == "DepthToSpace"]
        made = [node.op_type for node in nodes if set(node.output) & set(shuffled)]
        assert made == ["Cast"]
        assert sum(node.op_type == "ConvTranspose" for node in nodes) == 1


def test_graphs_see_what_the_last_layer_misses_as_the_network_does(pair):
    graphs, own = pair
    if own.geometry.features is None:
        pytest.skip("has no layer that a picture could have of its own")
    window = window_of(own, 3, 5)
    y_hat = own.analysis(window)
    linear = own.linear(y_hat)
    np.testing.assert_allclose(graphs.linear(y_hat), linear, atol=2e-3)
    seen = [one.look(linear, y_hat, 20.0, window) for one in (graphs, own)]
    for found, expected in zip(*seen, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)
    features, missing, places = seen[1]
    framed = np.pad(features, ((0, 0), (1, 1), (1, 1)))
    for found, expected in zip(
        *(one.sums(framed, missing, places, 20.0) for one in (graphs, own)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3 * np.abs(expected).max())


def test_the_weights_lie_in_one_file_only(pair):
    graphs, own = pair
    weights = sum(p.numel() for p in own.network.parameters())
    inside = 0
    for path in graphs.folder.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        outside = [one for one in model.graph.initializer if one.external_data]
        assert outside or path.stem == "sums"
        inside = max(inside, len(path.read_bytes()) // 4)
    assert inside < 8000 + weights // 2


def test_what_the_codec_has_to_know_survives_its_text(pair):
    graphs, own = pair
    written = json.loads((graphs.folder / "model.json").read_text())["latent"]
    assert Geometry.from_json(written) == own.geometry


class Strange(Network):
    """Two bands, by an operation that the export has no node for."""

    architecture = "strange"

    def __init__(self) -> None:
        super().__init__()
        whole = awake("cae2018")
        self.config, self.bands = whole.config, whole.bands
        self.multiple, self.reach, self.whole = whole.multiple, whole.reach, whole
        self.scale = nn.Parameter(torch.ones(1))

    def analysis(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [torch.sinh(torch.asinh(self.scale * band)) for band in self.whole.analysis(x)]

    def synthesis(self, y_hat, step, *, linear_gradient=True, scale=None):
        return self.whole.synthesis(y_hat, step)


@pytest.mark.slow
def test_an_operation_that_is_not_known_goes_through_pytorchs_own_export(tmp_path, capsys):
    network = Strange().eval()
    save_model(tmp_path, network, {})
    assert write_graphs(tmp_path, network) <= 1
    assert "asinh is not among its operations" in capsys.readouterr().err


def test_graphs_that_are_not_those_of_the_network_are_refused(tmp_path, monkeypatch):
    network = awake("cae2018")
    save_model(tmp_path, network, {})
    real = export.graph_of

    def other(network: Network, name: str, weights: export.Weights) -> onnx.ModelProto:
        """What an export does that leaves out an operation."""
        model = real(network, name, weights)
        for node in model.graph.node:
            if node.op_type == "Mul":
                node.op_type = "Add"
        return model

    monkeypatch.setattr(export, "graph_of", other)
    with pytest.raises(CheckpointError, match="differ from PyTorch's by"):
        write_graphs(tmp_path, network)


@pytest.mark.parametrize("name", sorted(folders.available()))
def test_shipped_graphs_are_those_of_the_shipped_weights(name, tmp_path):
    folder = folders.folder_of(name)
    network = export.load_model(folder)
    weights = export.Weights.of(folder / "model.safetensors", network)
    for path in sorted(folder.glob("*.onnx")):
        made = export.graph_of(network, path.stem, weights)
        assert made.SerializeToString(deterministic=True) == path.read_bytes(), path
    corrected = network.last_layer is not None
    assert pathlib.Path(folder / "look.onnx").is_file() == corrected
