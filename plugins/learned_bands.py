"""The codec `cae` with bands that are learned: does a PCA find in them what training did not?

    x --colour, residual net, wavelet--> nine details of a level --3x3 convolution--> a band of nine

The wavelet alone fixes which of the nine channels (three orientations, three colours) is which.
Here a convolution of each level decides it, and another one undoes it. Both start as one random
rotation and its inverse, so that nothing but training, or else a PCA, leads back to good axes.
docs/answers.md has what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from linocut.entropy.planes import Band
from linocut.lab.config.params import CaeConfig
from linocut.lab.config.parse import STRICT
from linocut.lab.networks.layers import convolution, in_full
from linocut.lab.networks.networks import Cae

CHANNELS = 9
"""Details of a level: HL, LH and HH of three colours."""


@dataclass(frozen=True, config=STRICT)
class LearnedBandsConfig(CaeConfig):
    """As for `cae`; whether the bands start `rotated` or as the wavelet's."""

    rotated: bool


class LearnedBands(Cae):
    """LL as it is, then one band of nine channels for every level, coarse to fine."""

    def __init__(self, config: LearnedBandsConfig) -> None:
        super().__init__(config)
        smooth = self.bands[0]
        details = [
            Band(f"D{level}", CHANNELS, 2**level, index if index else None)
            for index, level in enumerate(range(config.levels, 0, -1))
        ]
        self.bands = (smooth, *details)
        analysis = [convolution(CHANNELS, CHANNELS, zero=True) for _ in details]
        synthesis = [convolution(CHANNELS, CHANNELS, zero=True) for _ in details]
        with torch.no_grad():
            for there, back in zip(analysis, synthesis, strict=True):
                axes = torch.eye(CHANNELS)
                if config.rotated:
                    nn.init.orthogonal_(axes)
                there.weight[:, :, 1, 1] = axes
                back.weight[:, :, 1, 1] = axes.T
        self.analysis_bands = nn.ModuleList(analysis)
        self.synthesis_bands = nn.ModuleList(synthesis)

    def analysis(self, x: Tensor) -> list[Tensor]:
        """See `Network`."""
        smooth, *details = super().analysis(x)
        levels = [torch.cat(details[i : i + 3], 1) for i in range(0, len(details), 3)]
        layers = zip(self.analysis_bands, levels, strict=True)
        return [smooth, *(in_full(layer, level) for layer, level in layers)]

    def linear(self, y_hat: Sequence[Tensor]) -> Tensor:
        """See `Network`."""
        bands = [y_hat[0]]
        for layer, level in zip(self.synthesis_bands, y_hat[1:], strict=True):
            bands += torch.split(in_full(layer, level), 3, dim=1)
        return super().linear(bands)

    def synthesis(
        self, y_hat: Sequence[Tensor], step: Tensor, *, linear_gradient: bool = True,
        scale: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """See `Network`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and linear_gradient):
            x0 = self.linear(y_hat)
        return self.finish(x0, step, scale)
