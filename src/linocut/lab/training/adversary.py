"""The adversary of NCode: a DCGAN discriminator of blocks that a generator made out of nothing.

    generator cost = mean(-D(x_hat))
    discriminator  = mean(max(0, 1 - D(x))) + mean(max(0, 1 + D(x_hat)))    (hinge)

No block is a version of another here; what a decoder plays against is `linocut.lab.training.game`.

Source: Radford et al. 2016 (4x4 convolutions of stride 2, leaky ReLU); Miyato et al. 2018 (spectral
normalisation, hinge).
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from linocut.lab.training import parallel
from linocut.lab.training.trainer import Outcome


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
        x, features = 2.0 * x - 1.0, []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.logits(x), features


class BlockAdversary(nn.Module):
    """A discriminator of blocks with its optimiser.

    Args:
        channels: of its first layer.
        learning_rate: peak of the generator's; its schedule is followed.
        pace: learning rate of the discriminator in units of the generator's.
    """

    def __init__(self, channels: int, learning_rate: float, pace: float = 1.0) -> None:
        super().__init__()
        self.pace = pace
        self.discriminator = Discriminator(channels)
        self.optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=pace * learning_rate, betas=(0.5, 0.9)
        )

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser belongs to the state: a resumed training needs its moments."""
        return self.optimiser.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Undo `get_extra_state`."""
        self.optimiser.load_state_dict(state)

    def generator_cost(
        self, x: Tensor, outcome: Outcome, step: Tensor, distortion: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What each block pays for being told from one of a picture, (n,)."""
        cost = -self.discriminator(outcome.x_hat)[0].mean((1, 2, 3))
        return cost, {"generator_adversarial": cost.detach().mean()}

    def learn(
        self, x: Tensor, outcome: Outcome, step: Tensor, learning_rate: float
    ) -> dict[str, Tensor]:
        """One step of the discriminator on a batch; single numbers for the history."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.pace * learning_rate
        real, fake = (self.discriminator(one)[0] for one in (x, outcome.x_hat))
        loss = functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean()
        accuracy = ((real > 0).float().mean() + (fake < 0).float().mean()) / 2
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parallel.average_gradients(self.discriminator.parameters())
        self.optimiser.step()
        return {
            "discriminator_loss": loss.detach(),
            "discriminator_accuracy": accuracy,
        }
