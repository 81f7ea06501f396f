"""The numbers of the architectures: one dataclass and one conf/arch/NAME.yaml each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from linocut.lab.config.number_types import Count, Natural, NonNegative, Positive, require_rising
from linocut.lab.config.schema import Range


@dataclasses.dataclass(frozen=True)
class CaeConfig:
    """Convolutional autoencoder with wavelet-initialised linear paths."""

    levels: Annotated[int, Range(2, 8)]
    gain_channels: Count
    analysis_channels: Count
    analysis_layers: Natural
    synthesis_channels: Count
    synthesis_deep_channels: Count
    synthesis_blocks: Natural


@dataclasses.dataclass(frozen=True)
class GenerativeConfig:
    """Encoder into the latent of a DCGAN-style generator, trained against a discriminator."""

    levels: Annotated[int, Range(2, 8)]
    gain_channels: Count
    analysis_channels: Count
    analysis_layers: Natural
    generator_channels: Count
    discriminator_channels: Count
    adversarial_weight: NonNegative
    feature_weight: NonNegative
    schedule: Literal["cascade", "joint"]


@dataclasses.dataclass(frozen=True)
class Cae2018Config:
    """The autoencoder of Cheng et al., PCS 2018."""

    channels: Count


@dataclasses.dataclass(frozen=True)
class NcodeConfig:
    """The generative compression of Santurkar et al., PCS 2018.

    `latent` numbers of B bits each for a block, for every B of `bits`. Stage one, the generator
    against a discriminator, sees `blocks` an iteration and lasts `train.base.megapixels`; stage
    two, the encoder, lasts `encoder_share` of that.
    """

    latent: Annotated[int, Range(1, 4096)]
    bits: tuple[Annotated[int, Range(1, 8)], ...]
    channels: Count
    blocks: Annotated[int, Range(2, 4096)]
    learning_rate: Positive
    discriminator_learning_rate: Positive
    feature_weight: NonNegative
    encoder_share: NonNegative

    def __post_init__(self) -> None:
        require_rising("arch.ncode.bits", self.bits)


ArchConfig = CaeConfig | GenerativeConfig | Cae2018Config | NcodeConfig
ARCH_CONFIGS: Mapping[str, type[ArchConfig]] = {
    "cae": CaeConfig,
    "generative": GenerativeConfig,
    "cae2018": Cae2018Config,
    "ncode": NcodeConfig,
}
