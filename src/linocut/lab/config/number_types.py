"""Ranges of numbers, names, and the schedule: what sections of params.yaml have in common."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Annotated

from linocut.errors import ConfigError
from linocut.lab.config.schema import Options, Range

Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(1e-12)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Length and pace of one training, in megapixels seen rather than in iterations."""

    megapixels: NonNegative
    frozen_analysis_share: Share
    batch_size: Count
    crop_px: Annotated[int, Range(32, 4096)]
    learning_rate: Positive


@dataclasses.dataclass(frozen=True)
class Chosen:
    """An architecture or a loss that a study is about; it has no numbers of its own."""


ARCH_NAMES = Options(dict.fromkeys(("cae", "cae2018", "generative", "ncode"), Chosen))
LOSS_NAMES = Options(dict.fromkeys(("l2", "l1", "ssim", "ms_ssim", "mix"), Chosen))


def require_rising(key: str, numbers: tuple[float, ...]) -> None:
    """Refuse a list of numbers that is empty or does not rise."""
    if not numbers or any(a >= b for a, b in itertools.pairwise(numbers)):
        raise ConfigError(f"{key} is {list(numbers)}, expected numbers that rise")
