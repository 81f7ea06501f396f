"""What the networks do for the codec: a window of a picture <-> the latent of its tile."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linocut.codec.rotation import Rotation
from linocut.codec.tiling import Tile
from linocut.entropy.planes import dequantise, step_of
from linocut.lab.networks.networks import Network

Picture = NDArray[np.uint8]


@torch.inference_mode()
def analyse_window(network: Network, picture: Picture, tile: Tile) -> list[NDArray[np.float32]]:
    """Latent of one tile, bands (c, h, w), from its window of the picture (h, w, 3)."""
    top, left, bottom, right = tile.window
    height, width = picture.shape[:2]
    window = picture[top : min(bottom, height), left : min(right, width)]
    missing = (bottom - top - window.shape[0], right - left - window.shape[1])
    window = np.pad(window, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    x = torch.from_numpy(window).to(device_of(network)).permute(2, 0, 1)[None].float() / 255.0
    bands = network.analysis(x.contiguous(memory_format=torch.channels_last))
    latent = []
    for band, values in zip(network.bands, bands, strict=True):
        y, x0 = (tile.top - top) // band.stride, (tile.left - left) // band.stride
        h, w = (tile.bottom - tile.top) // band.stride, (tile.right - tile.left) // band.stride
        latent.append(values[0, :, y : y + h, x0 : x0 + w].float().cpu().numpy())
    return latent


@torch.inference_mode()
def synthesise_window(
    network: Network, used: Rotation, symbols: list[NDArray[np.int32]], index: int,
    scale: Tensor | None = None,
) -> Picture:  # fmt: skip
    """Symbols of a window -> its pixels, uint8 (h, w, 3)."""
    step = step_of(index)
    latent = used.inverse_transform([dequantise(b, step) for b in symbols])
    return synthesise(network, latent, step, scale)


@torch.inference_mode()
def synthesise(
    network: Network, latent: list[NDArray[np.float32]], step: float, scale: Tensor | None = None
) -> Picture:
    """Bands (c, h, w) in grey levels -> pixels, uint8 (h, w, 3); for `scale` see the network."""
    device = device_of(network)
    bands = [torch.from_numpy(band)[None].to(device) for band in latent]
    scale = None if scale is None else scale.to(device)
    x_hat = network.synthesis(bands, torch.tensor([step], device=device), scale=scale)
    pixels = (x_hat[0] * 255.0).round_().clamp_(0, 255).to(torch.uint8)
    picture: Picture = pixels.permute(1, 2, 0).cpu().numpy()
    return picture


def device_of(network: Network) -> torch.device:
    """Where the network runs."""
    device: torch.device = next(network.parameters()).device
    return device
