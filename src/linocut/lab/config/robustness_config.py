"""The numbers of the measurement of bit errors, section `robustness` of params.yaml."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from linocut.errors import ConfigError
from linocut.lab.config.number_types import LOSS_NAMES, Chosen, Count
from linocut.lab.config.schema import Range


@dataclasses.dataclass(frozen=True)
class RobustnessConfig:
    """Bit errors: `trials` for each of `rates`, on files of `bpp` of the cells of `losses`.

    `pictures` are cut to the middle `crop_px`; those damaged at the rates `shown` are kept.
    """

    losses: Annotated[dict[str, Chosen], LOSS_NAMES]
    pictures: Count
    crop_px: Annotated[int, Range(192, 1024)]
    bpp: Annotated[float, Range(0.05, 8)]
    rates: tuple[Annotated[float, Range(1e-9, 0.5)], ...]
    trials: Count
    shown: tuple[Annotated[float, Range(1e-9, 0.5)], ...]

    def __post_init__(self) -> None:
        if list(self.rates) != sorted(set(self.rates)) or not self.rates:
            raise ConfigError(f"robustness.rates is {list(self.rates)}, expected numbers that rise")
        if not set(self.shown) <= set(self.rates):
            raise ConfigError(
                f"robustness.shown is {list(self.shown)}, expected some of {list(self.rates)}"
            )
