"""The operations of `linocut.codec.transforms`, done by PyTorch: of a network that still changes.

    network --TorchTransforms--> linocut.codec.codec.Codec(transforms, ...)
    network --linocut.lab.networks.export--> graphs, traced from the same functions

Pictures, bands and results are numpy arrays without a batch; the functions take tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from linocut.codec.transforms import Geometry, Latent, Picture
from linocut.lab.networks.layers import quiet_and_busy
from linocut.lab.networks.networks import Network, residual_gain


class TorchTransforms:
    """See `linocut.codec.transforms.Transforms`.

    Args:
        network: of any architecture, on any device; put into evaluation mode.
    """

    def __init__(self, network: Network) -> None:
        with torch.inference_mode(False):  # else it could learn no more
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network.eval()

    @property
    def geometry(self) -> Geometry:
        """See `Transforms`."""
        return geometry_of(self.network)

    @property
    def at_once(self) -> int:
        """See `Transforms`; PyTorch divides the work among threads of its own."""
        return 1

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        found: torch.device = next(self.network.parameters()).device
        return found

    @torch.inference_mode()
    def analysis(self, window: Picture) -> Latent:
        """See `Transforms`."""
        bands = analysis(self.network, torch.from_numpy(window).to(self.device))
        return [band.cpu().numpy() for band in bands]

    @torch.inference_mode()
    def synthesis(
        self, y_hat: Latent, step: float, scale: NDArray[np.float32] | None = None
    ) -> Picture:
        """See `Transforms`."""
        bands, steps = self._tensors(y_hat), self._step(step)
        if scale is None:
            picture = synthesis(self.network, steps, bands)
        else:
            picture = corrected(self.network, steps, self._tensors([scale])[0], bands)
        found: Picture = picture.cpu().numpy()
        return found

    @torch.inference_mode()
    def linear(self, y_hat: Latent) -> NDArray[np.float32]:
        """See `Transforms`."""
        found: NDArray[np.float32] = linear(self.network, self._tensors(y_hat)).cpu().numpy()
        return found

    @torch.inference_mode()
    def look(
        self, linear: NDArray[np.float32], y_hat: Latent, step: float, picture: Picture
    ) -> tuple[NDArray[np.float32], ...]:
        """See `Transforms`."""
        seen = torch.from_numpy(np.ascontiguousarray(picture)).to(self.device)
        whole = self._tensors([linear])[0]
        found = look(self.network, self._step(step), seen, whole, self._tensors(y_hat))
        return tuple(one.cpu().numpy() for one in found)

    @torch.inference_mode()
    def sums(
        self, features: NDArray[np.float32], missing: NDArray[np.float32],
        places: NDArray[np.float32], step: float,
    ) -> tuple[NDArray[np.float32], ...]:  # fmt: skip
        """See `Transforms`."""
        found = sums(self.network, self._step(step), *self._tensors([features, missing, places]))
        return tuple(one.cpu().numpy() for one in found)

    def _tensors(self, arrays: Sequence[NDArray[np.float32]]) -> list[Tensor]:
        return [torch.from_numpy(np.ascontiguousarray(one)).to(self.device) for one in arrays]

    def _step(self, step: float) -> Tensor:
        return torch.tensor([step], device=self.device)


def geometry_of(network: Network) -> Geometry:
    """What the codec has to know of a network besides its operations."""
    layer = network.last_layer
    features = None if layer is None else layer.in_channels
    return Geometry(
        network.bands, network.multiple, network.reach, tuple(network.fixed_bits), features,
        None if layer is None else network.frame,
    )  # fmt: skip


def analysis(network: Network, window: Tensor) -> list[Tensor]:
    """Window, uint8 (h, w, 3) -> bands (c, h, w)."""
    x = window.permute(2, 0, 1)[None].float() / 255.0
    return [band[0].float() for band in network.analysis(x)]


def synthesis(network: Network, step: Tensor, bands: Sequence[Tensor]) -> Tensor:
    """Step (1,) and bands (c, h, w) -> picture, uint8 (h, w, 3)."""
    return _pixels(network.synthesis([band[None] for band in bands], step))


def corrected(network: Network, step: Tensor, scale: Tensor, bands: Sequence[Tensor]) -> Tensor:
    """The same with a `scale` (5, c) of the last layer."""
    return _pixels(network.synthesis([band[None] for band in bands], step, scale=scale))


def linear(network: Network, bands: Sequence[Tensor]) -> Tensor:
    """Bands (c, h, w) -> the linear path, (3, h, w)."""
    return network.linear([band[None] for band in bands])[0]


def look(
    network: Network, step: Tensor, picture: Tensor, linear: Tensor, bands: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (c, m, n), what is missing (12, m, n), places (8, m, n); see `Transforms`."""
    layer = network.last_layer
    assert layer is not None
    linear = linear[None]
    features = network.features(linear, [band[None] for band in bands], step)
    wanted = network.colour(picture.permute(2, 0, 1)[None].float() / 255.0)
    missing = functional.pixel_unshuffle(wanted - linear, 2) / residual_gain(step)
    places = functional.pixel_unshuffle(quiet_and_busy(linear, step), 2)
    return features[0], (missing - layer(features))[0], places[0]


def sums(
    network: Network, step: Tensor, features: Tensor, missing: Tensor, places: Tensor
) -> tuple[Tensor, ...]:
    """Normal equations of a strip; see `Transforms`."""
    layer = network.last_layer
    assert layer is not None
    weight = residual_gain(step)[0, 0].square()
    shares = layer.shares(features[None])
    quiet, busy = places[:4].flatten(), places[4:].flatten()
    seen = [shares[0], shares[0] * quiet, shares[0] * busy, *shares[1:]]
    products = [weight * (one @ one.transpose(0, 1)) for one in seen]
    aside = [weight * (seen[0] @ one.transpose(0, 1)) for one in seen[1:3]]
    neither = 0.0 * products[0]  # no place is quiet and busy
    luma = [
        torch.cat([products[0], *aside], 1),
        torch.cat([aside[0], products[1], neither], 1),
        torch.cat([aside[1], neither, products[2]], 1),
    ]
    targets = [missing[4 * colour : 4 * colour + 4].reshape(-1, 1) for colour in (0, 0, 0, 1, 2)]
    moments = [
        (weight * (one @ target)).flatten() for one, target in zip(seen, targets, strict=True)
    ]
    return torch.cat(luma), *products[3:], torch.cat(moments[:3]), *moments[3:]


def _pixels(x_hat: Tensor) -> Tensor:
    """(1, 3, h, w) around 0 to 1 -> uint8 (h, w, 3)."""
    return (x_hat * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)[0].permute(1, 2, 0)
