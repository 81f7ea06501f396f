"""plugins/learned_bands.py: bands that start as a rotation of the wavelet's, and undo it."""

import pathlib

import numpy as np
import pytest
import torch

from linocut.codec import rotation
from linocut.lab.config.params import ArchOption
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.networks.export import write_graphs
from linocut.lab.networks.networks import Network, build_network
from linocut.lab.networks.store import save_model
from linocut.lab.training.machine import picture_batch
from tiny import CONFIGS

TARGET = "plugins.learned_bands:LearnedBands"
GRAPHS = {"analysis", "synthesis", "corrected", "linear", "look", "sums"}


def network(rotated: bool) -> Network:
    numbers = vars(CONFIGS["cae"]) | {"rotated": rotated}
    torch.manual_seed(0)
    return build_network(ArchOption.of({"target": TARGET, **numbers}, "arch.learned_bands")).eval()


@pytest.mark.parametrize("rotated", [True, False])
def test_the_untrained_network_gives_pictures_back(rotated: bool) -> None:
    x = picture_batch(dead_leaves(64, 48, 3))
    found = network(rotated)
    with torch.inference_mode():
        y = found.analysis(x)
        x_hat = found.synthesis(y, torch.ones(1))
    assert [band.shape[1] for band in y] == [3, 9, 9, 9]
    torch.testing.assert_close(x_hat, x, atol=1e-5, rtol=0.0)


def test_a_pca_finds_the_axes_that_the_rotation_hides() -> None:
    x = picture_batch(dead_leaves(128, 128, 5))
    spread = []
    for rotated in (False, True):
        found = network(rotated)
        with torch.inference_mode():
            y = [band[0].numpy() for band in found.analysis(x)]
        fitted = rotation.fit(found.bands, [y])
        finest = -1
        given = y[finest].reshape(9, -1).var(1)
        spread.append((np.log2(given).mean(), np.log2(fitted.variances[finest]).mean()))
    (plain, plain_pca), (hidden, hidden_pca) = spread
    assert hidden > plain + 0.5
    assert plain_pca == pytest.approx(hidden_pca, abs=0.01)


def test_both_convolutions_of_a_level_learn_each_on_its_side() -> None:
    x = picture_batch(dead_leaves(64, 64, 7))
    found = network(True)
    y = found.analysis(x)
    x_hat = found.synthesis([band + 5.0 for band in y], torch.ones(1))
    torch.autograd.backward(x_hat.square().mean())
    for name, parameter in found.named_parameters():
        if "_bands" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
    sides = {name for name, _ in found.named_parameters() if name.startswith("analysis_bands")}
    own = {id(parameter) for parameter in found.analysis_parameters()}
    assert all(id(p) in own for name, p in found.named_parameters() if name in sides)


def test_it_can_be_shipped_as_graphs(tmp_path: pathlib.Path) -> None:
    found = network(True)
    save_model(tmp_path, found, {"loss": "l2"}, {})
    write_graphs(tmp_path, found)
    assert {path.stem for path in tmp_path.glob("*.onnx")} == GRAPHS
