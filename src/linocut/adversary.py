"""The optional adversary of a training: a DCGAN discriminator and the two distances it gives.

    generator cost = adversarial_weight * mean(-D(x_hat))
                   + feature_weight * |features(x_hat) - features(x)|_1
    discriminator  = mean(max(0, 1 - D(x))) + mean(max(0, 1 + D(x_hat)))    (hinge)

Spectral normalisation keeps it stable. Source: Radford et al. 2016 (4x4 convolutions of stride 2,
leaky ReLU);
Santurkar et al. 2017 (pixel + feature distance); Miyato et al. 2018 (spectral normalisation,
hinge).
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from linocut.config import GenerativeConfig
from linocut.study_config import TwinConfig


class Discriminator(nn.Module):
    """x (n, 3, h, w) in [0, 1] -> logits (n, 1, h/16, w/16) and the features of every layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (3, channels, 2 * channels, 4 * channels, 4 * channels)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in itertools.pairwise(widths)
        )
        self.logits = spectral_norm(nn.Conv2d(widths[-1], 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and features."""
        x = 2.0 * x - 1.0
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.logits(x), features


class Adversary(nn.Module):
    """A discriminator with its optimiser.

    Args:
        config: of the generative architecture, or of twin decoders.
        learning_rate: peak; follows the generator's schedule.
    """

    def __init__(self, config: GenerativeConfig | TwinConfig, learning_rate: float) -> None:
        super().__init__()
        self.config = config
        self.cascade = isinstance(config, GenerativeConfig) and config.schedule == "cascade"
        self.discriminator = Discriminator(config.discriminator_channels)
        self.optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=learning_rate, betas=(0.5, 0.9)
        )

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser belongs to the state: a resumed training needs its moments."""
        return self.optimiser.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Undo `get_extra_state`."""
        self.optimiser.load_state_dict(state)

    def generator_cost(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Cost (n,) that x_hat pays for being told from x, to be weighed like a distortion."""
        with torch.no_grad():
            _, real = self.discriminator(x)
        logits, fake = self.discriminator(x_hat)
        adversarial = -logits.mean((1, 2, 3))
        feature = torch.stack(
            [(a - b).abs().mean((1, 2, 3)) for a, b in zip(fake, real, strict=True)]
        )
        cost = self.config.adversarial_weight * adversarial
        cost = cost + self.config.feature_weight * feature.mean(0)
        return cost, {"generator_adversarial": float(adversarial.detach().mean())}

    def learn(self, x: Tensor, x_hat: Tensor, learning_rate: float) -> dict[str, float]:
        """One step of the discriminator on a batch; returns its row for the history."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        real, fake = self.discriminator(x)[0], self.discriminator(x_hat)[0]
        loss = functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
        return {
            "discriminator_loss": float(loss.detach()),
            "discriminator_accuracy": float(accuracy),
        }
