"""The smallest networks of every architecture, the losses, and pictures to feed them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linocut.lab.config.params import (
    ArchOption,
    Cae2018Config,
    CaeConfig,
    GameConfig,
    GenerativeConfig,
    LossOption,
    NcodeConfig,
)
from linocut.lab.networks.losses import Distortion, build_loss
from linocut.lab.networks.networks import ARCHITECTURES, Network

GAME = GameConfig(
    megapixels=6 * 2 * 32**2 / 1e6, warmup_share=0.34, crops=2, batch_size=2, crop_px=32,
    learning_rate=1e-3, adversarial_weight=0.8, distortion_weight=0.5, feature_weight=1.0,
    mean_weight=1.0, weave_weight=0.25, discriminator_channels=3,
    discriminator_learning_rate=1e-3, discriminator_accuracy=0.9, blend=1.0,
)  # fmt: skip
"""Of six iterations, two of them without the adversary."""

CONFIGS: dict[str, Any] = {
    "cae": CaeConfig(
        levels=3, gain_channels=2, analysis_channels=4, analysis_layers=1,
        synthesis_channels=4, synthesis_deep_channels=4, synthesis_blocks=1,
    ),
    "generative": GenerativeConfig(
        levels=3, gain_channels=2, analysis_channels=4, analysis_layers=1,
        synthesis_channels=4, synthesis_deep_channels=4, synthesis_blocks=1, schedule="cascade",
        game=GAME,
    ),
    "cae2018": Cae2018Config(channels=4),
    "ncode": NcodeConfig(
        latent=5, bits=(2, 4), channels=4, blocks=2, learning_rate=1e-3,
        discriminator_learning_rate=2e-4, feature_weight=1.0, encoder_share=1.0,
    ),
}  # fmt: skip


OPTIONS = {
    name: ArchOption(f"linocut.lab.networks.networks:{name.title()}", config)
    for name, config in CONFIGS.items()
}
"""As in params.yaml."""

LOSSES = ("l2", "l1", "ssim", "ms_ssim", "mix")


def loss_option(name: str, alpha: float = 0.84) -> LossOption:
    """As in params.yaml."""
    numbers = {"alpha": alpha} if name == "mix" else {}
    return LossOption(f"linocut.lab.networks.losses:{name}", numbers)


def loss_of(name: str, alpha: float = 0.84) -> Distortion:
    """As the stages make it."""
    return build_loss(loss_option(name, alpha))


def untrained(architecture: str, seed: int = 0) -> Network:
    """As a training starts it: every residual branch is silent."""
    torch.manual_seed(seed)
    return ARCHITECTURES[architecture](CONFIGS[architecture]).eval()


def awake(architecture: str, seed: int = 0) -> Network:
    """With something in the weights that start at zero, as after a training."""
    network = untrained(architecture, seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.05)
    return network


def tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 (h, w, 3) or (n, h, w, 3) -> (n, 3, h, w) in [0, 1]."""
    batch = pictures if pictures.ndim == 4 else pictures[None]
    return torch.from_numpy(batch.copy()).permute(0, 3, 1, 2).float() / 255.0
