"""Networks start as wavelet codecs, know the step, and reach no further than they say."""

import dataclasses

import pytest
import torch

from linocut.lab.config.params import Cae2018Config, CaeConfig, GenerativeConfig
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.networks.networks import ARCHITECTURES, Network
from linocut.lab.networks.store import load_model, save_model
from tiny import CONFIGS, GAME, awake, tensor, untrained

WAVELET = ("cae", "generative")
ROLLING = (*WAVELET, "cae2018")  # all but those that work in blocks
STEP = torch.tensor([24.0])


def test_every_architecture_has_numbers_and_the_other_way_round():
    assert set(ARCHITECTURES) == set(CONFIGS)
    for name in ARCHITECTURES:
        assert untrained(name).architecture == name


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("sides", [(1, 1), (2, 3)])
def test_bands_have_the_promised_shapes(name, sides):
    network = untrained(name)
    height, width = (side * network.multiple for side in sides)
    bands = network.analysis(torch.rand(2, 3, height, width))
    assert [tuple(band.shape) for band in bands] == [
        (2, b.channels, height // b.stride, width // b.stride) for b in network.bands
    ]
    assert network.synthesis(bands, torch.tensor([24.0, 5.0])).shape == (2, 3, height, width)


@pytest.mark.parametrize("name", WAVELET)
@pytest.mark.parametrize("sides", [(8, 8), (64, 96), (256, 256)])
@torch.no_grad()
def test_an_untrained_network_reconstructs_without_quantisation(name, sides):
    network = untrained(name)
    torch.manual_seed(1)
    x = torch.rand(1, 3, *sides)
    torch.testing.assert_close(network.synthesis(network.analysis(x), STEP), x, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", WAVELET)
@torch.no_grad()
def test_white_latent_noise_costs_the_same_squared_error_in_the_picture(name):
    """A step reads like a step in grey levels, because the linear path is nearly orthonormal."""
    network = untrained(name)
    x = tensor(dead_leaves(64, 64, 0))
    latent = network.analysis(x)
    torch.manual_seed(0)
    noisy = [band + 10.0 * torch.randn_like(band) for band in latent]
    error = 255.0 * (network.synthesis(noisy, STEP) - x)
    assert float(error.square().mean()) == pytest.approx(100.0, rel=0.1)


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_pictures_of_a_batch_do_not_see_each_other(name):
    network = awake(name)
    side = max(16, network.multiple)
    x, step = torch.rand(2, 3, side, side), torch.tensor([8.0, 80.0])
    together = network.synthesis(network.analysis(x), step)
    for index in range(2):
        one = slice(index, index + 1)
        alone = network.synthesis(network.analysis(x[one]), step[one])
        torch.testing.assert_close(together[one], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", WAVELET)
@torch.no_grad()
def test_the_synthesis_knows_the_step(name):
    network = awake(name)
    latent = network.analysis(torch.rand(1, 3, 16, 16))
    fine, coarse = (network.synthesis(latent, torch.tensor([step])) for step in (4.0, 128.0))
    assert float((fine - coarse).abs().max()) > 1e-4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_parameter_belongs_to_the_picture_and_learns(name):
    network = awake(name).train()
    side = max(16, network.multiple)
    x = torch.rand(1, 3, side, side)
    network.synthesis(network.analysis(x), STEP).square().mean().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("name", WAVELET)
def test_without_linear_gradient_only_the_nonlinear_synthesis_learns(name):
    network = awake(name).train()
    with torch.no_grad():
        latent = network.analysis(torch.rand(1, 3, 16, 16))
    with_graph = network.synthesis(latent, STEP)
    without = network.synthesis(latent, STEP, linear_gradient=False)
    torch.testing.assert_close(without, with_graph)
    without.square().mean().backward()
    learning = {n for n, p in network.named_parameters() if p.grad is not None}
    assert learning == {f"synthesis_net.{n}" for n, _ in network.synthesis_net.named_parameters()}


def test_linear_and_analysis_parameters_are_found_by_name():
    network = untrained("cae")
    names = {id(p): n for n, p in network.named_parameters()}
    linear = {names[id(p)] for p in network.linear_parameters()}
    analysis = {names[id(p)] for p in network.analysis_parameters()}
    assert {n.rsplit(".", 1)[1] for n in linear} == {"weights"}
    assert len(linear) == 2 * 3 * 2  # two pyramids, three levels, rows and columns
    assert {n.split(".")[0] for n in analysis} == {"analysis_net", "analysis_pyramid"}


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_every_architecture_survives_the_disk(name, tmp_path):
    network = awake(name)
    save_model(tmp_path, network, {"arch": name})
    loaded = load_model(tmp_path)
    assert (loaded.architecture, loaded.config) == (name, network.config)
    x = torch.rand(1, 3, 64, 64)
    for a, b in zip(loaded.analysis(x), network.analysis(x), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


@pytest.mark.parametrize("name", ROLLING)
@torch.no_grad()
def test_no_symbol_reaches_further_than_reach(name):
    """What a tile is shown around itself decides whether seams can be seen."""
    network = awake(name)
    middle = 2 * network.reach
    side = 2 * middle
    torch.manual_seed(3)
    bands = [
        20.0 * torch.randn(1, b.channels, side // b.stride, side // b.stride) for b in network.bands
    ]
    before = network.synthesis(bands, STEP)
    for band, info in zip(bands, network.bands, strict=True):
        band[..., middle // info.stride, middle // info.stride] += 200.0
    changed = ((network.synthesis(bands, STEP) - before).abs() > 1e-6).nonzero()[:, 2:]
    distance = (changed - middle).abs().max()
    assert 0 < int(distance) <= network.reach


@pytest.mark.parametrize("name", ["cae", "generative"])
@torch.no_grad()
def test_the_default_widths_and_levels_reach_no_further_than_reach(name):
    """The same, in one dimension of the picture, for the depth of the shipped configurations."""
    narrow: dict[str, CaeConfig | GenerativeConfig] = {
        "cae": CaeConfig(5, 1, 1, 2, 2, 2, 2),
        "generative": GenerativeConfig(5, 1, 1, 2, 2, 2, 1, "cascade", GAME),
    }
    torch.manual_seed(0)
    network = ARCHITECTURES[name](narrow[name]).eval()
    for parameter in network.parameters():
        if not parameter.any():
            parameter.normal_(0.0, 0.3)
    middle, width, height = 512, 1024, 64
    bands = [
        20.0 * torch.randn(1, b.channels, height // b.stride, width // b.stride)
        for b in network.bands
    ]
    before = network.synthesis(bands, STEP)
    for band, info in zip(bands, network.bands, strict=True):
        band[..., middle // info.stride] += 200.0
    changed = ((network.synthesis(bands, STEP) - before).abs() > 1e-6).nonzero()[:, 3]
    assert 0 < int((changed - middle).abs().max()) <= network.reach == 256


def test_the_base_class_offers_nothing_by_itself():
    network = Network()
    with pytest.raises(TypeError, match="Network has no analysis"):
        network.analysis(torch.rand(1, 3, 8, 8))
    with pytest.raises(TypeError, match="Network has no synthesis"):
        network.synthesis([], STEP)


def test_cae2018_has_the_published_layers():
    network = ARCHITECTURES["cae2018"](Cae2018Config(channels=32))
    convolutions = [m for m in network.analysis_net if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [32, 32, 64, 64, 64, 32]
    assert [m.stride[0] for m in convolutions] == [1, 2, 1, 2, 1, 2]
    assert {m.kernel_size for m in convolutions} == {(3, 3)}
    assert sum(isinstance(m, torch.nn.PReLU) for m in network.analysis_net) == 5


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIGS["cae"].levels = 4  # type: ignore[misc]
