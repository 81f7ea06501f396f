"""The numbers of the studies beside the grid: restoration, and the twin decoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated

from linocut.errors import ConfigError
from linocut.lab.config.number_types import (
    ARCH_NAMES,
    LOSS_NAMES,
    Chosen,
    Count,
    Natural,
    NonNegative,
    Positive,
    ScheduleConfig,
    Share,
    require_rising,
)
from linocut.lab.config.schema import Range

# --- restoration tasks: one dataclass and one conf/task/NAME.yaml each ----------------------------


@dataclasses.dataclass(frozen=True)
class DenoiseConfig:
    """Remove white Gaussian noise of standard deviation `sigma`, grey levels."""

    sigma: Annotated[float, Range(0, 128)]


@dataclasses.dataclass(frozen=True)
class DejpegConfig:
    """Remove the artefacts of JPEG files of this quality."""

    quality: Annotated[int, Range(1, 100)]


TaskConfig = DenoiseConfig | DejpegConfig
TASK_CONFIGS: Mapping[str, type[TaskConfig]] = {
    "denoise": DenoiseConfig,
    "dejpeg": DejpegConfig,
}


@dataclasses.dataclass(frozen=True)
class RestoreConfig(ScheduleConfig):
    """Restoration trainings: each loss with `seeds` seeds, without and with a bottleneck.

    `mix` is trained with each of `alphas`. The files of the bottleneck have `step_factors` times
    the step whose rounding errors equal the degradation. `noise_*` are of the noise tolerance.
    """

    seeds: Count
    alphas: tuple[Share, ...]
    step_factors: tuple[Positive, ...]
    table_crops: Count
    noise_sigmas: tuple[NonNegative, ...]
    noise_bpp: Positive

    def __post_init__(self) -> None:
        require_rising("restore.step_factors", self.step_factors)
        require_rising("restore.noise_sigmas", self.noise_sigmas)


@dataclasses.dataclass(frozen=True)
class TwinConfig(ScheduleConfig):
    """Two decoders for the files of one cell, trained without and with an adversary.

    The cells are every one of `arch` with every one of `loss`; the files are those of the `points`
    lowest rates, and without any nothing is trained.
    """

    arch: Annotated[dict[str, Chosen], ARCH_NAMES]
    loss: Annotated[dict[str, Chosen], LOSS_NAMES]
    points: Natural
    discriminator_channels: Count
    discriminator_learning_rate: Positive
    adversarial_weight: NonNegative
    feature_weight: NonNegative

    def __post_init__(self) -> None:
        if self.frozen_analysis_share != 1.0:
            raise ConfigError(
                f"twin.frozen_analysis_share is {self.frozen_analysis_share}, expected 1.0: "
                "both decoders read files of one encoder"
            )
