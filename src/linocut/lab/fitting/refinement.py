"""Effort 3: symbols that the decoder turns into the best picture, found through its gradient.

    targets --rate-distortion optimisation--> symbols --decoder--> distortion --gradient--> targets

Rate-distortion optimisation measures errors in the latent, as if the decoder were orthonormal and
the network trained for squared error. Here the decoder says where each symbol should have been.
The distortion D is half squared error, half what the network was trained for, both in units of
what they are per squared error of the latent to begin with. Then with r_hat the decoded latent
the target r_hat - (dD / d r_hat) / 2 is the analysis itself where the decoder is orthonormal, and a
better one otherwise. Targets move there by steps that grow shorter. The decoder is unchanged.
MS-SSIM alone would buy contrast with specks, which it hardly sees (docs/log.md).

Related: Yang et al., "Improving inference for neural image compression", 2020 (stochastic Gumbel
annealing), which anneals its rounding where this lets the coder's own prices decide.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linocut.codec.rotation import Rotation
from linocut.codec.transforms import GraphTransforms, Transforms
from linocut.entropy.choice import PRICE, optimise
from linocut.entropy.coder import Coder
from linocut.entropy.planes import LARGEST_SYMBOL, SPACING, Integers, step_of
from linocut.errors import CheckpointError, ConfigError
from linocut.lab.networks.losses import Distortion, described, l2, smallest_side_px
from linocut.lab.networks.networks import Network
from linocut.lab.networks.store import load_model
from linocut.lab.networks.torch_transforms import TorchTransforms
from linocut.models.folders import About

ROUNDS = 8
FIRST_SHARE, LAST_SHARE = 0.3, 0.02
"""Of the way to the new target, in the first and in the last round."""


@dataclasses.dataclass(frozen=True)
class Aim:
    """What a network was trained for.

    Attributes:
        distortion: the loss.
    """

    distortion: Distortion

    @classmethod
    def of(cls, about: About) -> "Aim":
        """From the facts in model.json; squared error where they do not say.

        Raises:
            CheckpointError: they name a loss that is not there, or other numbers than it takes.
        """
        try:
            return cls(described(about.facts))
        except ConfigError as error:
            raise CheckpointError(
                f"effort 3 measures the loss that the model was trained for, but in model.json "
                f"{error}; lower efforts do not need it"
            ) from None

    def inside(self, height: int, width: int) -> Distortion:
        """The distortion, or squared error for a picture too small for it."""
        return self.distortion if min(height, width) >= smallest_side_px(self.distortion) else l2


class Refiner:
    """What effort 3 asks for: the network of a codec with its gradients, and what it is to lower.

    Args:
        transforms: of the codec; graphs have no gradients, so the network of their folder is read.
        rotation: of the latent.
        coder: whose tables set the prices.
        about: of the model.

    Raises:
        CheckpointError: the model's loss is not known.
        ConfigError: nothing says where the network is.
    """

    def __init__(
        self, transforms: Transforms, rotation: Rotation, coder: Coder, about: About
    ) -> None:
        self._aim = Aim.of(about)
        self._network = network_of(transforms)
        self._rotation, self._coder = rotation, coder

    def refine(
        self, picture: NDArray[np.uint8], latent: Sequence[NDArray[np.float32]], step_index: int,
        scale: NDArray[np.float32] | None,
    ) -> list[Integers]:  # fmt: skip
        """Symbols of one tile; see `refine`."""
        factors = None if scale is None else torch.from_numpy(scale)
        return refine(
            self._network, self._rotation, self._coder, picture, latent, step_index, self._aim,
            factors,
        )  # fmt: skip


def network_of(transforms: Transforms) -> Network:
    """The network behind a codec's operations, as PyTorch runs it.

    Raises:
        ConfigError: they are neither PyTorch's nor those of a folder.
    """
    if isinstance(transforms, TorchTransforms):
        return transforms.network
    if isinstance(transforms, GraphTransforms):
        device = "cuda" if transforms.device == "cuda" else "cpu"
        network = load_model(transforms.folder).to(device)
        return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]
    raise ConfigError(f"{type(transforms).__name__} has no gradients for effort 3")


def refine(
    network: Network, rotation: Rotation, coder: Coder, picture: NDArray[np.uint8],
    latent: Sequence[NDArray[np.float32]], step_index: int, aim: Aim, scale: Tensor | None,
) -> list[Integers]:  # fmt: skip
    """Quantise the latent of one tile.

    Args:
        network: whose synthesis decodes.
        rotation: of the latent.
        coder: whose tables set the prices.
        picture: uint8 (h, w, 3), the tile, at most as large as its latent says.
        latent: rotated bands (c, h, w) in grey levels.
        step_index: index of the quantisation step.
        aim: what the picture should be close in, besides squared error.
        scale: of the last layer, see `linocut.codec.correction`; None for none.

    Returns:
        int32 (c, h, w) for each band: of all rounds, the symbols with the lowest cost.
    """
    step = step_of(step_index)
    device = next(network.parameters()).device
    x = torch.from_numpy(picture.astype(np.float32) / 255.0).to(device).permute(2, 0, 1)[None]
    measure = aim.inside(*picture.shape[:2])
    targets = [band.copy() for band in latent]
    largest = step * SPACING * LARGEST_SYMBOL
    measures = [measure] if measure is l2 else [measure, l2]
    units: list[float] = []
    best, lowest = optimise(coder, targets, step_index)[0], np.inf
    for share in np.linspace(FIRST_SHARE, LAST_SHARE, ROUNDS):
        symbols, bins = optimise(coder, targets, step_index)
        r_hat = [
            torch.from_numpy(band).to(device) for band in coder.dequantise(symbols, step_index)
        ]
        for band in r_hat:
            band.requires_grad_(True)
        with torch.enable_grad():
            x_hat = _decode(network, rotation, r_hat, coder.told_step(step_index), scale)
            inside = x_hat[..., : x.shape[2], : x.shape[3]].clamp(0.0, 1.0)
            found = [one(inside, x).sum() for one in measures]
            if not units:
                error = _squared_error(coder.dequantise(symbols, step_index), latent)
                units = [float(one.detach()) / error for one in found]
                if min(units) <= 0.0:
                    break  # nothing is wrong
            parts = [one / unit for one, unit in zip(found, units, strict=True)]
            distortion = torch.stack(parts).mean()
        gradients = torch.autograd.grad(distortion, r_hat)
        bits = float(coder.estimate_bits(symbols, step_index, bins).sum())
        cost = float(distortion.detach()) / step**2 + PRICE * bits
        if cost < lowest:
            best, lowest = symbols, cost
        for target, band, gradient in zip(targets, r_hat, gradients, strict=True):
            wanted = (band.detach() - 0.5 * gradient).cpu().numpy()
            target += np.float32(share) * (wanted - target)
            np.clip(target, -largest, largest, out=target)
    return best


def _squared_error(
    decoded: Sequence[NDArray[np.float32]], latent: Sequence[NDArray[np.float32]]
) -> float:
    """Of the latent, in grey levels squared, summed; never 0."""
    pairs = zip(decoded, latent, strict=True)
    return max(sum(float(np.square(band - r).sum()) for band, r in pairs), 1e-9)


def _decode(
    network: Network, rotation: Rotation, r_hat: Sequence[Tensor], step: float, scale: Tensor | None
) -> Tensor:
    """The picture that the decoder makes of r_hat, (1, 3, h, w), not clipped."""
    y_hat = []
    for band, matrix, mean in zip(r_hat, rotation.matrices, rotation.means, strict=True):
        r = torch.from_numpy(np.array(matrix, np.float32)).to(band)
        shift = torch.from_numpy(np.array(mean, np.float32)).to(band)
        y_hat.append((torch.einsum("ji,jhw->ihw", r, band) + shift[:, None, None])[None])
    steps = torch.tensor([step], device=r_hat[0].device)
    return network.synthesis(y_hat, steps, scale=None if scale is None else scale.to(steps))
