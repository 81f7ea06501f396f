"""The optional adversary of a training: a DCGAN discriminator and the two distances it gives.

    generator cost = adversarial_weight * mean(-D(x_hat))
                   + feature_weight * |features(x_hat) - features(x)|_1
    discriminator  = mean(max(0, 1 - D(x))) + mean(max(0, 1 + D(x_hat)))    (hinge)

Twin decoders show the same picture as x, coded: logits of the two differ by a thousandth of what
they differ between pictures, and a hinge loss learns nothing in some hundred iterations. Their
discriminator sees fine detail only, and the pair at once (relativistic hinge loss):

    generator cost = adversarial_weight * mean(max(0, 1 + D(x) - D(x_hat))) + features as above
    discriminator  = 2 mean(max(0, 1 - D(x) + D(x_hat)))

Spectral normalisation keeps it stable.

Source: Radford et al. 2016 (4x4 convolutions of stride 2, leaky ReLU); Santurkar et al. 2017 (pixel
+ feature distance); Miyato et al. 2018 (spectral normalisation, hinge); Jolicoeur-Martineau 2019
(relativistic).
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from linocut.lab.config.params import GenerativeConfig, TwinConfig

DETAIL_PX, DETAIL_GAIN, LAYER_GAIN = 4, 8.0, 1.7
"""Side of the means that a detail discriminator does not see; what makes up for its small input,
and for spectral normalisation, which shrinks all but one direction of it.
"""


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
        return self._judge(2.0 * x - 1.0, 1.0)

    def _judge(self, x: Tensor, gain: float) -> tuple[Tensor, list[Tensor]]:
        features = []
        for layer in self.layers:
            x = gain * functional.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.logits(x), features


class DetailDiscriminator(Discriminator):
    """A discriminator for what is finer than means over squares of `DETAIL_PX`."""

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits and features."""
        means = functional.avg_pool2d(x, DETAIL_PX)
        low = functional.interpolate(means, scale_factor=float(DETAIL_PX), mode="bilinear")
        return self._judge(DETAIL_GAIN * (x - low), LAYER_GAIN)


@dataclass(frozen=True)
class Game:
    """What a game is about, where no section of the parameters is about it alone."""

    discriminator_channels: int
    adversarial_weight: float
    feature_weight: float


class Adversary(nn.Module):
    """A discriminator with its optimiser.

    Args:
        config: of the generative architecture, of twin decoders, or of a game alone.
        learning_rate: peak of the generator's; its schedule is followed.
        pace: learning rate of the discriminator in units of the generator's.
    """

    discriminator_type = Discriminator

    def __init__(
        self, config: GenerativeConfig | TwinConfig | Game, learning_rate: float, pace: float = 1.0
    ) -> None:
        super().__init__()
        self.pace = pace
        self.config = config
        self.cascade = isinstance(config, GenerativeConfig) and config.schedule == "cascade"
        self.discriminator = self.discriminator_type(config.discriminator_channels)
        self.optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=pace * learning_rate, betas=(0.5, 0.9)
        )

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser belongs to the state: a resumed training needs its moments."""
        return self.optimiser.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Undo `get_extra_state`."""
        self.optimiser.load_state_dict(state)

    def generator_cost(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cost (n,) that x_hat pays for being told from x, to be weighed like a distortion.

        Beside it what the history shows of it: single numbers, still on the device.
        """
        with torch.no_grad():
            real_logits, real = self.discriminator(x)
        logits, fake = self.discriminator(x_hat)
        adversarial = self.adversarial_cost(real_logits, logits)
        feature = torch.stack(
            [(a - b).abs().mean((1, 2, 3)) for a, b in zip(fake, real, strict=True)]
        )
        cost = self.config.adversarial_weight * adversarial
        cost = cost + self.config.feature_weight * feature.mean(0)
        return cost, {"generator_adversarial": adversarial.detach().mean()}

    def adversarial_cost(self, real: Tensor, fake: Tensor) -> Tensor:
        """Cost (n,) of the generator from the logits."""
        return -fake.mean((1, 2, 3))

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and accuracy from the logits."""
        loss = functional.relu(1.0 - real).mean() + functional.relu(1.0 + fake).mean()
        return loss, ((real > 0).float().mean() + (fake < 0).float().mean()) / 2

    def learn(self, x: Tensor, x_hat: Tensor, learning_rate: float) -> dict[str, Tensor]:
        """One step of the discriminator on a batch; single numbers for the history."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.pace * learning_rate
        real, fake = self.discriminator(x)[0], self.discriminator(x_hat)[0]
        loss, accuracy = self.discriminator_loss(real, fake)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return {
            "discriminator_loss": loss.detach(),
            "discriminator_accuracy": accuracy,
        }


class PairedAdversary(Adversary):
    """The game about a pair: which of two versions of one picture is the original.

    Args:
        config: of twin decoders.
    """

    discriminator_type = DetailDiscriminator

    def __init__(self, config: TwinConfig) -> None:
        pace = config.discriminator_learning_rate / config.learning_rate
        super().__init__(config, config.learning_rate, pace)

    def adversarial_cost(self, real: Tensor, fake: Tensor) -> Tensor:
        """Relativistic hinge."""
        return functional.relu(1.0 + real - fake).mean((1, 2, 3))

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Relativistic hinge; right is who finds the original's logit larger."""
        loss = 2.0 * functional.relu(1.0 - real + fake).mean()
        return loss, (real > fake).float().mean()
