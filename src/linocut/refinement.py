"""Effort 3: symbols that the decoder turns into the best picture, found through its gradient.

    targets --rate-distortion optimisation--> symbols --decoder--> error --gradient--> targets

Rate-distortion optimisation measures errors in the latent, as if the decoder were orthonormal. Here
the decoder says where each symbol should have been: with r_hat the decoded latent and D the squared
error of the picture, the target r_hat - (dD / d r_hat) / 2 is the analysis itself where the decoder
is orthonormal, and a better one where it is a network. The decoder is unchanged. Related: Yang et
al., "Improving inference for neural image compression", 2020 (stochastic Gumbel annealing), which
anneals its rounding where this lets the coder's own prices decide.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linocut.entropy import EntropyCoder
from linocut.networks import Network
from linocut.quantization import step_of
from linocut.rate_distortion import PRICE, optimise
from linocut.rotation import Rotation

ITERATIONS = 16
DAMPING = 0.2
GREY_LEVELS = 255.0

Symbols = list[NDArray[np.int32]]


def refine(
    network: Network,
    rotation: Rotation,
    coder: EntropyCoder,
    picture: NDArray[np.uint8],
    latent: Sequence[NDArray[np.float32]],
    step_index: int,
) -> Symbols:
    """Quantise the latent of one tile.

    Args:
        network: whose synthesis decodes.
        rotation: of the latent.
        coder: whose tables set the prices.
        picture: uint8 (h, w, 3), the tile, at most as large as its latent says.
        latent: rotated bands (c, h, w) in grey levels.
        step_index: index of the quantisation step.

    Returns:
        int32 (c, h, w) for each band: of all rounds, the symbols with the lowest cost.
    """
    step = step_of(step_index)
    device = next(network.parameters()).device
    x = torch.from_numpy(np.ascontiguousarray(picture)).to(device).permute(2, 0, 1)[None].float()
    targets = [band.copy() for band in latent]
    best, lowest = optimise(coder, targets, step_index)[0], np.inf
    for _ in range(ITERATIONS):
        symbols, bins = optimise(coder, targets, step_index)
        r_hat = [torch.from_numpy(step * band.astype(np.float32)).to(device) for band in symbols]
        for band in r_hat:
            band.requires_grad_(True)
        error = _squared_error(network, rotation, r_hat, x, step)
        bits = float(coder.estimate_bits(symbols, step_index, bins).sum())
        cost = float(error.detach()) / step**2 + PRICE * bits
        if cost < lowest:
            best, lowest = symbols, cost
        gradients = torch.autograd.grad(error, r_hat)
        for target, band, gradient in zip(targets, r_hat, gradients, strict=True):
            wanted = (band.detach() - 0.5 * gradient).cpu().numpy()
            target += np.float32(DAMPING) * (wanted - target)
    return best


def _squared_error(
    network: Network, rotation: Rotation, r_hat: Sequence[Tensor], x: Tensor, step: float
) -> Tensor:
    """Of the picture that the decoder makes of r_hat, in grey levels squared, summed."""
    with torch.enable_grad():
        y_hat = []
        for band, matrix, mean in zip(r_hat, rotation.matrices, rotation.means, strict=True):
            r = torch.from_numpy(np.array(matrix, np.float32)).to(band)
            shift = torch.from_numpy(np.array(mean, np.float32)).to(band)
            y_hat.append((torch.einsum("ji,jhw->ihw", r, band) + shift[:, None, None])[None])
        x_hat = network.synthesis(y_hat, torch.tensor([step], device=x.device))
        decoded = GREY_LEVELS * x_hat[..., : x.shape[2], : x.shape[3]].clamp(0.0, 1.0)
        result: Tensor = (decoded - x).square().sum()
    return result
