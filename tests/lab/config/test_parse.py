"""Losses and architectures of one's own: found, checked against their signature, and watched."""

import pathlib
import sys

import pytest
import torch

from linocut.errors import ConfigError
from linocut.lab.config.params import ArchOption, LossOption
from linocut.lab.config.parse import sources
from linocut.lab.networks.losses import build_loss, smallest_side_px
from linocut.lab.networks.networks import build_network

LOSS = """
import torch

def charbonnier(x_hat: torch.Tensor, x: torch.Tensor, *, epsilon: float) -> torch.Tensor:
    return ((x_hat - x).square() + epsilon**2).sqrt().mean((1, 2, 3)) - epsilon

def bare(x_hat, x, *, epsilon): ...
def three(x_hat, x, step): ...
"""
NETWORK = """
import dataclasses
from linocut.entropy.planes import Band
from linocut.lab.networks.networks import Network
from plugins.own_loss import charbonnier

@dataclasses.dataclass(frozen=True)
class Numbers:
    channels: int

class Own(Network):
    def __init__(self, config: Numbers) -> None:
        super().__init__()
        self.config = config
        self.bands = (Band("y", config.channels, 8),)

class Foreign:
    def __init__(self, config: Numbers) -> None: ...
    analysis = synthesis = None
"""


@pytest.fixture(autouse=True)
def checkout(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A checkout with plugins/own_loss.py and plugins/own_network.py."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    for name, text in {"loss": LOSS, "network": NETWORK, "broken": "import nowhere"}.items():
        (folder / f"own_{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr("linocut.lab.config.parse.CHECKOUT", tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugins"]:
        monkeypatch.delitem(sys.modules, name)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "plugins"]:
        del sys.modules[name]


def loss(**raw: object) -> LossOption:
    return LossOption.of({"target": "plugins.own_loss:charbonnier", **raw}, "loss.own")


def test_a_loss_of_ones_own_is_called_with_its_numbers() -> None:
    distortion = build_loss(loss(epsilon=0.5))
    x = torch.zeros(2, 3, 4, 4)
    torch.testing.assert_close(distortion(x + 1.2, x), torch.full((2,), 1.3 - 0.5))
    assert smallest_side_px(distortion) == 1
    assert loss(epsilon=0.5).as_plain() == {
        "target": "plugins.own_loss:charbonnier",
        "epsilon": 0.5,
    }


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"epsilom": 0.5},
            r"unknown key 'epsilom'; .*:charbonnier takes epsilon",
        ),
        ({}, r"loss\.own lacks epsilon"),
        ({"epsilon": "1e-3"}, r"loss\.own\.epsilon is '1e-3', expected a number: write 0\.001"),
    ],
)
def test_numbers_of_ones_own_loss_are_checked_like_all_others(
    raw: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        loss(**raw)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("plugins.own_loss", "expected module:name .*plugins"),
        ("os:system", "expected module:name with a module of linocut or of .*plugins"),
        ("plugins.nothing:loss", r"plugins/nothing\.py does not exist .*git add"),
        ("plugins.own_broken:loss", "importing plugins.own_broken fails: ModuleNotFoundError"),
        ("plugins.own_loss:charbonier", r"own_loss\.py has no 'charbonier'; it has charbonnier"),
        ("plugins.own_loss:bare", r"takes \(x_hat, x, \*, epsilon\); expected .* with its type"),
        ("plugins.own_loss:three", r"takes \(x_hat, x, step\); expected"),
        ("plugins.own_network:Own", "which is no function"),
    ],
)
def test_a_target_that_is_no_loss_says_where_it_was_looked_for(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        LossOption.of({"target": target}, "loss.own")
    assert str(caught.value).startswith(f"loss.own.target is {target!r}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [{}, [], None, {"target": 3}])
def test_an_option_without_a_target_is_refused(raw: object) -> None:
    with pytest.raises(ConfigError, match=r"loss\.own is .*, expected a mapping with `target"):
        LossOption.of(raw, "loss.own")


def network(name: str = "Own", **numbers: object) -> ArchOption:
    return ArchOption.of({"target": f"plugins.own_network:{name}", **numbers}, "arch.own")


def test_an_architecture_of_ones_own_is_built_from_its_numbers() -> None:
    built = build_network(network(channels=5))
    assert built.bands[0].channels == 5
    assert built.architecture == "plugins.own_network:Own"


def test_misspelt_numbers_of_ones_own_architecture_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'chanels'; plugins\.own_network:Numbers "):
        network(chanels=5)


def test_a_class_that_is_no_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected a class with analysis, synthesis"):
        network("Numbers", channels=5)
    with pytest.raises(ConfigError, match=r"no subclass of linocut.*:Network"):
        build_network(network("Foreign", channels=5))


def test_what_a_target_is_made_of_are_its_file_and_what_that_imports_from_plugins() -> None:
    assert sources(["linocut.lab.networks.losses:l2"]) == {}
    assert list(sources(["plugins.own_loss:charbonnier"])) == ["plugins/own_loss.py"]
    found = sources(["plugins.own_network:Own"])
    assert list(found) == ["plugins/own_loss.py", "plugins/own_network.py"]


def test_a_changed_file_changes_what_a_target_is_made_of(checkout: pathlib.Path) -> None:
    before = sources(["plugins.own_network:Own"])
    with (checkout / "plugins/own_loss.py").open("a", encoding="utf-8") as file:
        file.write("# another\n")
    assert sources(["plugins.own_network:Own"]) != before
