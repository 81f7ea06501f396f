"""The parts of NCode: a DCGAN generator of blocks of 64 x 64 px, and an encoder that mirrors it.

    z (n, d, h, w) in [-1, 1] --a block for each place--> x_hat (n, 3, 64 h, 64 w) in [0, 1]
    x (n, 3, 64 h, 64 w) in [0, 1] --> z (n, d, h, w)

Blocks never see each other. Source: Radford et al., "Unsupervised representation learning with
DCGANs", 2016; Santurkar, Budden, Shavit, "Generative compression", PCS 2018.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCK_PX = 64
_MOMENTUM = 0.1
_DEVIATION = 0.02  # of first weights, as in DCGAN


class BatchNorm(nn.Module):
    """Batch normalisation whose buffers are floats only, so that they can be averaged."""

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (n, c, h, w), of the same shape."""
        return functional.batch_norm(
            x, self.mean, self.variance, self.weight, self.bias, self.training, _MOMENTUM
        )


class BlockGenerator(nn.Module):
    """Four doublings from 4 x 4: transposed 4x4 convolutions of stride 2, ReLU, tanh at the end."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        widths = (8 * channels, 4 * channels, 2 * channels, channels)
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False)]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [BatchNorm(inputs), nn.ReLU()]
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False))
        layers += [BatchNorm(channels), nn.ReLU(), nn.ConvTranspose2d(channels, 3, 4, 2, 1)]
        self.body = nn.Sequential(*layers)
        _first_weights(self)

    def forward(self, z: Tensor) -> Tensor:
        """z (n, d, h, w) -> blocks side by side, (n, 3, 64 h, 64 w)."""
        n, d, h, w = z.shape
        blocks = self.body(z.permute(0, 2, 3, 1).reshape(n * h * w, d, 1, 1))
        return joined(torch.tanh(blocks) / 2.0 + 0.5, h, w)


class BlockEncoder(nn.Module):
    """The generator's mirror image: 4x4 convolutions of stride 2, leaky ReLU, tanh at the end."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        widths = (3, channels, 2 * channels, 4 * channels, 8 * channels)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), BatchNorm(outputs)]
            layers.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*layers, nn.Conv2d(widths[-1], latent, 4))
        _first_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """x (n, 3, 64 h, 64 w) -> z (n, d, h, w)."""
        n, _, height, width = x.shape
        z = torch.tanh(self.body(blocks_of(2.0 * x - 1.0)))
        h, w = height // BLOCK_PX, width // BLOCK_PX
        return z.reshape(n, h, w, -1).permute(0, 3, 1, 2)


def blocks_of(x: Tensor) -> Tensor:
    """x (n, c, 64 h, 64 w) -> its blocks, picture by picture and row by row, (n h w, c, 64, 64)."""
    n, c, height, width = x.shape
    h, w = height // BLOCK_PX, width // BLOCK_PX
    cut = x.reshape(n, c, h, BLOCK_PX, w, BLOCK_PX).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(n * h * w, c, BLOCK_PX, BLOCK_PX)


def joined(blocks: Tensor, h: int, w: int) -> Tensor:
    """Undo `blocks_of` for pictures of h x w blocks."""
    c = blocks.shape[1]
    grid = blocks.reshape(-1, h, w, c, BLOCK_PX, BLOCK_PX).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, c, h * BLOCK_PX, w * BLOCK_PX)


def _first_weights(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, _DEVIATION)
