"""The two stages of NCode: a generator that makes blocks, then an encoder into its latent.

    stage one: z uniform in [-1, 1] --generator--> blocks <--discriminator--> blocks of pictures
    stage two: x --encoder--> z --2^B cells--> z_hat --generator, frozen--> x_hat

    stage two minimises    a * distortion(x_hat, x) + w * |features(x_hat) - features(x)|_1

The distortion is the loss of the cell; the features are those of the third layer of stage one's
discriminator; `a` makes both terms equal at the start, w is `feature_weight`. B changes from
picture to picture, as it does between the files.

The adversary of stage one is a DCGAN discriminator of blocks that a generator made out of nothing;
no block is a version of another here (what a decoder plays against is `linocut.lab.training.game`):

    generator cost = mean(-D(x_hat))
    discriminator  = mean(max(0, 1 - D(x))) + mean(max(0, 1 + D(x_hat)))    (hinge)

Source: Santurkar, Budden, Shavit, "Generative compression", PCS 2018; Radford et al. 2016 (4x4
convolutions of stride 2, leaky ReLU); Miyato et al. 2018 (spectral normalisation, hinge). Not as
in the first: hinge loss and spectral normalisation instead of batch normalisation in the
discriminator, which judges 16 overlapping parts of a block.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from linocut.entropy.fixed_codes import HALF_RANGE, index_of
from linocut.entropy.planes import step_of
from linocut.lab.networks.layers import BLOCK_PX
from linocut.lab.networks.networks import Network
from linocut.lab.training import parallel
from linocut.lab.training.machine import picture_batch
from linocut.lab.training.rate import Exchange
from linocut.lab.training.trainer import CropSampler, Distortion, Outcome, Row, batch_psnr_db

FEATURE_LAYER = 2
EVEN = Exchange((0.0,), (0.0,))
CALIBRATION_BATCHES = 4


class Generation:
    """The objective of stage one: nothing is coded, and no block is compared with another.

    Args:
        network: whose generator learns.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.learned = nn.Module()

    def to(self, device: torch.device) -> None:
        """Nothing belongs to the objective."""

    def calibrate(self, sample: CropSampler, distortion: Distortion, seed: int) -> Exchange:
        """There is no rate."""
        return EVEN

    def draw_steps(self, rng: np.random.Generator, count: int) -> Tensor:
        """There are no steps."""
        return torch.ones(count)

    def forward(self, x: Tensor, step: Tensor, joint: bool) -> Outcome:
        """Blocks out of nothing, as many as there are in x, for nothing."""
        n, _, height, width = x.shape
        shape = (n, self.network.bands[0].channels, height // BLOCK_PX, width // BLOCK_PX)
        z = 2.0 * torch.rand(shape).to(x) - 1.0
        y_hat = [HALF_RANGE * z]
        return Outcome(torch.zeros_like(step), self.network.synthesis(y_hat, 0.0 * step), y_hat)

    def choose_learning(self, joint: bool) -> None:
        """The generator."""
        for parameter in self.network.parameters():
            parameter.requires_grad_(True)
        for parameter in self.network.analysis_parameters():
            parameter.requires_grad_(False)

    def validate(self, pictures: NDArray[np.uint8], seed: int) -> Row:
        """There is nothing to compare."""
        return {"rate_bpp": math.nan, "psnr_db": math.nan}


class Encoding:
    """The objective of stage two: a distance of features is paid for beside the distortion.

    Args:
        network: whose encoder learns.
        discriminator: of stage one, for its features.
        feature_weight: of their distance.
    """

    def __init__(
        self, network: Network, discriminator: Discriminator, feature_weight: float
    ) -> None:
        self.network = network
        self.discriminator = discriminator.eval().requires_grad_(False)
        self.feature_weight = feature_weight
        self.learned = nn.Module()

    def to(self, device: torch.device) -> None:
        """Move the discriminator."""
        self.discriminator.to(device)

    @torch.no_grad()
    def calibrate(self, sample: CropSampler, distortion: Distortion, seed: int) -> Exchange:
        """The weight with which the distortion is as large as the feature distance."""
        self.choose_learning(True)
        ratios = []
        for batch in range(CALIBRATION_BATCHES):
            x, rng = sample(2**31 + batch)
            x_hat, _ = through_cells(self.network, x, self.draw_steps(rng, len(x)).to(x.device))
            features = float(self._feature_distance(x_hat, x).mean())
            ratios.append(math.log(features / float(distortion(x_hat, x).mean())))
        return Exchange((float(np.mean(ratios)),), (0.0,))

    def draw_steps(self, rng: np.random.Generator, count: int) -> Tensor:
        """Those of the numbers of bits that files have."""
        steps = [step_of(index_of(bits)) for bits in self.network.fixed_bits]
        return torch.from_numpy(rng.choice(steps, count)).float()

    def forward(self, x: Tensor, step: Tensor, joint: bool) -> Outcome:
        """Paid is the weighed feature distance."""
        x_hat, y_hat = through_cells(self.network, x, step)
        return Outcome(self.feature_weight * self._feature_distance(x_hat, x), x_hat, y_hat)

    def choose_learning(self, joint: bool) -> None:
        """The encoder alone learns; the generator's normalisation stands still, too."""
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        for parameter in self.network.analysis_parameters():
            parameter.requires_grad_(True)
        self.network.get_submodule("generator").eval()

    def validate(self, pictures: NDArray[np.uint8], seed: int) -> Row:
        """Rate and PSNR at the finest cells."""
        bits = self.network.fixed_bits[-1]
        device = next(self.network.parameters()).device
        step = torch.full((1,), step_of(index_of(bits)), device=device)
        errors = []
        for picture in pictures:
            x = picture_batch(picture, device)
            errors.append(batch_psnr_db(through_cells(self.network, x, step)[0], x))
        rate_bpp = self.network.bands[0].channels * bits / BLOCK_PX**2
        return {"rate_bpp": rate_bpp, "psnr_db": float(np.mean(errors))}

    def _feature_distance(self, x_hat: Tensor, x: Tensor) -> Tensor:
        features = [self.discriminator(picture)[1][FEATURE_LAYER] for picture in (x_hat, x)]
        distance: Tensor = (features[0] - features[1]).abs().mean((1, 2, 3))
        return distance


def through_cells(network: Network, x: Tensor, step: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x (n, 3, h, w) through encoder, cells of width step (n,) and generator: x_hat and y_hat.

    The gradient passes the cells as if they were not there.
    """
    y = network.analysis(x)[0]
    width = step[:, None, None, None]
    lowest, highest = -HALF_RANGE / width, HALF_RANGE / width - 1.0
    cells = torch.minimum(torch.maximum(torch.floor(y / width), lowest), highest)
    middle = (cells + 0.5) * width
    y_hat = [y + (middle - y).detach() - width / 2.0]
    return network.synthesis(y_hat, step), y_hat


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
