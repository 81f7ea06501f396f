"""The training loop with a degraded input and a clean target, with and without a bottleneck."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linocut.codec.tiling import padded
from linocut.lab.data.degradation import Degradation, Picture, degrade_batch
from linocut.lab.networks.networks import Network
from linocut.lab.training.rate import Exchange
from linocut.lab.training.trainer import Row, Trainer
from linocut.pictures.quality import psnr_db

CALIBRATION_BATCHES = 8


@dataclass
class RestorationTrainer(Trainer):
    """The training loop with a degraded input.

    Attributes:
        degrade: what happens to the input.
        bottleneck: whether latents are quantised and their rate is paid for.
        step: what the synthesis is told without a bottleneck, grey levels.
        fitted: rate proxy and exchange rate of an earlier training from the same base network for
            the same loss: filled by the first, used by the others.
    """

    degrade: Degradation = field(kw_only=True)
    bottleneck: bool = field(kw_only=True)
    step: float = field(kw_only=True)
    fitted: dict[str, Any] = field(kw_only=True)

    def _forward(self, x: Tensor, step: Tensor, analysis: bool) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**62, ())))  # seeded for each iteration
        x = degrade_batch(x, self.degrade, rng)
        if self.bottleneck:
            return super()._forward(x, step, analysis)
        with torch.set_grad_enabled(analysis):
            latent = self.network.analysis(x)
        x_hat = self.network.synthesis(latent, step, linear_gradient=analysis)
        return torch.zeros_like(step), x_hat

    def _draw_steps(self, rng: np.random.Generator, count: int) -> Tensor:
        if self.bottleneck:
            return super()._draw_steps(rng, count)
        return torch.full((count,), self.step, device=self.device)

    def _fit_proxy(self) -> None:
        if not self.bottleneck:
            return
        if "proxy" in self.fitted:
            self.proxy.load_state_dict(self.fitted["proxy"])
        else:
            super()._fit_proxy()
            self.fitted["proxy"] = {k: v.clone() for k, v in self.proxy.state_dict().items()}

    @torch.no_grad()
    def _calibrate(self) -> Exchange:
        """With a bottleneck as for clean pictures; without, every loss starts at about 1."""
        if self.bottleneck:
            if "exchange" not in self.fitted:
                self.fitted["exchange"] = super()._calibrate()
            exchange: Exchange = self.fitted["exchange"]
            return exchange
        start = []
        for index in range(CALIBRATION_BATCHES):
            x, rng = self.sample(2**31 + index)
            torch.manual_seed(index)
            _, x_hat = self._forward(x, self._draw_steps(rng, len(x)), False)
            start.append(float(self.distortion(x_hat, x).mean()))
        return Exchange((-math.log(float(np.mean(start))),), (0.0,))

    @torch.no_grad()
    def _validate(self) -> Row:
        """PSNR of the averaged weights on degraded validation crops, without quantisation."""
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        found = []
        for index, clean in enumerate(self.validation):
            degraded = self.degrade(clean, np.random.default_rng([self.seed, index]))
            found.append(psnr_db(clean, restore(self.network, degraded, self.step)))
        self.network.load_state_dict(trained)
        return {"rate_bpp": math.nan, "psnr_db": float(np.mean(found))}


@torch.inference_mode()
def restore(network: Network, picture: Picture, step: float) -> Picture:
    """A picture through analysis and synthesis, without quantisation in between."""
    height, width = picture.shape[:2]
    missing = [padded(side, network.multiple) - side for side in (height, width)]
    full = np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    device = next(network.parameters()).device
    x = torch.from_numpy(full).to(device).permute(2, 0, 1)[None].float() / 255.0
    x_hat = network.synthesis(network.analysis(x), torch.tensor([step], device=device))
    pixels = (x_hat[0] * 255.0).round().clamp(0, 255).to(torch.uint8)
    restored: Picture = pixels.permute(1, 2, 0).cpu().numpy()[:height, :width]
    return restored
