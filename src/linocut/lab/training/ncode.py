"""The two stages of NCode: a generator that makes blocks, then an encoder into its latent.

    stage one: z uniform in [-1, 1] --generator--> blocks <--discriminator--> blocks of pictures
    stage two: x --encoder--> z --2^B cells--> z_hat --generator, frozen--> x_hat

    stage two minimises    a * distortion(x_hat, x) + w * |features(x_hat) - features(x)|_1

The distortion is the loss of the cell; the features are those of the third layer of stage one's
discriminator; `a` makes both terms equal at the start, w is `feature_weight`. B changes from
picture to picture, as it does between the files.

Source: Santurkar, Budden, Shavit, "Generative compression", PCS 2018. Not as there: hinge loss and
spectral normalisation instead of batch normalisation in the discriminator, which judges 16
overlapping parts of a block.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from linocut.entropy.fixed_codes import HALF_RANGE, index_of
from linocut.entropy.planes import step_of
from linocut.lab.networks.dcgan import BLOCK_PX
from linocut.lab.networks.networks import Network
from linocut.lab.training.adversary import Discriminator
from linocut.lab.training.rate import Exchange
from linocut.lab.training.trainer import Row, Trainer

FEATURE_LAYER = 2
EVEN = Exchange((0.0,), (0.0,))
CALIBRATION_BATCHES = 4


@dataclass
class GeneratorTrainer(Trainer):
    """Stage one: nothing is coded, and no block is compared with another."""

    def _fit_proxy(self) -> None:
        """There is no rate."""

    def _calibrate(self) -> Exchange:
        return EVEN

    def _draw_steps(self, rng: np.random.Generator, count: int) -> Tensor:
        return torch.ones(count, device=self.device)

    def _forward(self, x: Tensor, step: Tensor, analysis: bool) -> tuple[Tensor, Tensor]:
        """Blocks out of nothing, as many as there are in x."""
        n, _, height, width = x.shape
        shape = (n, self.network.bands[0].channels, height // BLOCK_PX, width // BLOCK_PX)
        z = 2.0 * torch.rand(shape).to(x) - 1.0
        return torch.zeros_like(step), self.network.synthesis([HALF_RANGE * z], 0.0 * step)

    def _freeze(self, joint: bool) -> None:
        for parameter in self.network.parameters():
            parameter.requires_grad_(True)
        for parameter in self.network.analysis_parameters():
            parameter.requires_grad_(False)

    def _validate(self) -> Row:
        return {"rate_bpp": math.nan, "psnr_db": math.nan}


@dataclass
class EncoderTrainer(Trainer):
    """Stage two.

    Attributes:
        discriminator: of stage one, for its features.
        feature_weight: of their distance.
    """

    discriminator: Discriminator = field(kw_only=True)
    feature_weight: float = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.discriminator.to(self.device).eval().requires_grad_(False)

    def _fit_proxy(self) -> None:
        """The rate is what it is."""

    def _draw_steps(self, rng: np.random.Generator, count: int) -> Tensor:
        steps = [step_of(index_of(bits)) for bits in self.network.fixed_bits]
        return torch.from_numpy(rng.choice(steps, count)).float().to(self.device)

    def _forward(self, x: Tensor, step: Tensor, analysis: bool) -> tuple[Tensor, Tensor]:
        """The feature distance (n,) in place of a rate, and x_hat."""
        x_hat = through_cells(self.network, x, step)
        return self.feature_weight * self._feature_distance(x_hat, x), x_hat

    def _feature_distance(self, x_hat: Tensor, x: Tensor) -> Tensor:
        features = [self.discriminator(picture)[1][FEATURE_LAYER] for picture in (x_hat, x)]
        distance: Tensor = (features[0] - features[1]).abs().mean((1, 2, 3))
        return distance

    @torch.no_grad()
    def _calibrate(self) -> Exchange:
        """The weight with which the distortion is as large as the feature distance."""
        self._freeze(True)
        ratios = []
        for batch in range(CALIBRATION_BATCHES):
            x, rng = self.sample(2**31 + batch)
            x_hat = through_cells(self.network, x, self._draw_steps(rng, len(x)))
            features = float(self._feature_distance(x_hat, x).mean())
            ratios.append(math.log(features / float(self.distortion(x_hat, x).mean())))
        return Exchange((float(np.mean(ratios)),), (0.0,))

    def _freeze(self, joint: bool) -> None:
        """The encoder alone learns; the generator's normalisation stands still, too."""
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        for parameter in self.network.analysis_parameters():
            parameter.requires_grad_(True)
        self.network.get_submodule("generator").eval()

    @torch.no_grad()
    def _validate(self) -> Row:
        """Rate and PSNR of the averaged weights on the validation crops at the finest cells."""
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.network.eval()
        bits = self.network.fixed_bits[-1]
        errors = []
        for picture in self.validation:
            x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255.0
            x = x.to(self.device)
            step = torch.full((1,), step_of(index_of(bits)), device=self.device)
            x_hat = through_cells(self.network, x, step)
            errors.append(-10.0 * math.log10(float((x_hat - x).square().mean()) + 1e-12))
        self.network.load_state_dict(trained)
        self.network.train()
        rate_bpp = self.network.bands[0].channels * bits / BLOCK_PX**2
        return {"rate_bpp": rate_bpp, "psnr_db": float(np.mean(errors))}


def through_cells(network: Network, x: Tensor, step: Tensor) -> Tensor:
    """x (n, 3, h, w) through encoder, cells of width step (n,) and generator.

    The gradient passes the cells as if they were not there.
    """
    y = network.analysis(x)[0]
    width = step[:, None, None, None]
    lowest, highest = -HALF_RANGE / width, HALF_RANGE / width - 1.0
    cells = torch.minimum(torch.maximum(torch.floor(y / width), lowest), highest)
    middle = (cells + 0.5) * width
    return network.synthesis([y + (middle - y).detach() - width / 2.0], step)
