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
from torch.overrides import handle_torch_function, has_torch_function

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
        blocks = self.body(z.permute(0, 2, 3, 1).flatten(0, 2)[..., None, None])
        return joined(torch.tanh(blocks) / 2.0 + 0.5, z)


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
        z = torch.tanh(self.body(blocks_of(2.0 * x - 1.0)))
        return grid_of(z.flatten(1), x[..., ::BLOCK_PX, ::BLOCK_PX]).permute(0, 3, 1, 2)


def blocks_of(x: Tensor) -> Tensor:
    """x (n, c, 64 h, 64 w) -> its blocks, picture by picture and row by row, (n h w, c, 64, 64)."""
    columns = torch.unflatten(x, 3, (-1, BLOCK_PX)).permute(0, 1, 3, 4, 2)
    cut = torch.unflatten(columns, 4, (-1, BLOCK_PX))
    return cut.permute(0, 4, 2, 1, 5, 3).flatten(0, 2)


def joined(blocks: Tensor, like: Tensor) -> Tensor:
    """Undo `blocks_of` for pictures of h x w blocks; `like` is (n, any, h, w)."""
    grid = grid_of(blocks, like).permute(0, 3, 1, 4, 2, 5)
    return grid.flatten(4, 5).flatten(2, 3)


def grid_of(rows: Tensor, like: Tensor) -> Tensor:
    """(n h w, ...) -> (n, h, w, ...), where `like` is (n, any, h, w).

    One operation for those that trace a network: they cannot see where h and w come from.
    """
    if has_torch_function((rows, like)):
        found: Tensor = handle_torch_function(grid_of, (rows, like), rows, like)
        return found
    return rows.reshape(like.shape[0], *like.shape[2:], *rows.shape[1:])


def _first_weights(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, _DEVIATION)
