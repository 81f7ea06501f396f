"""How fine to quantise: the quality scale, and the search for a size or a PSNR.

Quality 1 to 100 is the quantisation step on a logarithmic scale, the same for every model, because
every model's latent is in grey levels of an orthonormal transform:

    step = 256 * 2^(-7 * quality / 100)      quality 1: 244, 25: 76, 50: 23, 75: 6.7, 100: 2

Four points of quality change the step by about a fifth. Searches never run the analysis network
again: they call back with a step and look at the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeVar

from linocut.errors import ConfigError

T = TypeVar("T")

DEFAULT_QUALITY = 50

_COARSEST, _OCTAVES = 256.0, 7.0
_MOST_TRIALS = 14
_CLOSE_LOG = math.log(2) / 64 * 1.01
"""Bracket of the logarithm of the step that is not searched further: one index of the format."""


def quality_step(quality: float) -> float:
    """Quantisation step in grey levels of a quality from 1 to 100.

    Raises:
        ConfigError: outside of 1 to 100.
    """
    if not 1 <= quality <= 100:
        raise ConfigError(f"quality is {quality:g}, expected 1 to 100")
    return _COARSEST * math.exp2(-_OCTAVES * quality / 100)


def step_quality(step: float) -> float:
    """The quality of a quantisation step; not limited to 1 to 100."""
    return 100 * math.log2(_COARSEST / step) / _OCTAVES


def fit_bytes(
    encode: Callable[[float], bytes], most_bytes: int, steps: tuple[float, float]
) -> bytes:
    """The best file that is not larger than `most_bytes`.

    Args:
        encode: gives the file of a step.
        most_bytes: the limit.
        steps: finest and coarsest step allowed.

    Raises:
        ConfigError: the coarsest step still gives a larger file.
    """
    search = _Search(encode, lambda data: math.log(len(data)), math.log(most_bytes), steps)
    search.run(tolerance=0.01, from_above=False)
    if search.coarse is None:
        found = math.exp(search.reached)
        raise ConfigError(
            f"the smallest file of this model has {found:.0f} bytes, not {most_bytes}"
        )
    return search.coarse[2]


def fit_psnr(
    encode: Callable[[float], tuple[bytes, float]], least_db: float, steps: tuple[float, float]
) -> bytes:
    """The smallest file whose decoded picture has at least `least_db`.

    Args:
        encode: gives the file of a step and the PSNR of the picture it decodes to, dB.
        least_db: the PSNR wanted.
        steps: finest and coarsest step allowed.

    Raises:
        ConfigError: the finest step does not reach it.
    """
    search = _Search(encode, lambda result: result[1], least_db, steps)
    search.run(tolerance=0.05, from_above=True)
    if search.fine is None:
        raise ConfigError(
            f"the best file of this model has {search.reached:.2f} dB, not {least_db:g} dB"
        )
    return search.fine[2][0]


class _Search(Generic[T]):
    """Bracketed search for a target of a value that falls as the step grows.

    Attributes:
        fine: (log step, value, result) of the coarsest step seen whose value reaches the target.
        coarse: the same of the finest step seen whose value is not above the target.
        reached: value at the end of the allowed steps, where that end missed the target.
    """

    def __init__(
        self,
        encode: Callable[[float], T],
        value: Callable[[T], float],
        target: float,
        steps: tuple[float, float],
    ) -> None:
        self._encode, self._value, self._target = encode, value, target
        self._low, self._high = math.log(steps[0]), math.log(steps[1])
        self.fine: tuple[float, float, T] | None = None
        self.coarse: tuple[float, float, T] | None = None
        self.reached = math.nan

    def run(self, *, tolerance: float, from_above: bool) -> None:
        """Close in until the wanted side lies within `tolerance` of the target."""
        at = min(max(math.log(quality_step(DEFAULT_QUALITY)), self._low), self._high)
        leap = math.log(3)
        for _ in range(_MOST_TRIALS):
            self._try(at)
            wanted = self.fine if from_above else self.coarse
            if wanted is not None and abs(wanted[1] - self._target) <= tolerance:
                return
            if self.fine is None:
                if at <= self._low:
                    return
                at, leap = max(at - leap, self._low), 2 * leap
            elif self.coarse is None:
                if at >= self._high:
                    return
                at, leap = min(at + leap, self._high), 2 * leap
            else:
                if self.coarse[0] - self.fine[0] < _CLOSE_LOG:
                    return
                at = self._between(self.fine, self.coarse, tolerance, from_above)

    def _try(self, at: float) -> None:
        result = self._encode(math.exp(at))
        self.reached = self._value(result)
        point = (at, self.reached, result)
        if self.reached >= self._target and (self.fine is None or at > self.fine[0]):
            self.fine = point
        if self.reached <= self._target and (self.coarse is None or at < self.coarse[0]):
            self.coarse = point

    def _between(
        self,
        fine: tuple[float, float, T],
        coarse: tuple[float, float, T],
        tolerance: float,
        from_above: bool,
    ) -> float:
        """Straight line between the two, aimed half a tolerance onto the wanted side."""
        aim = self._target + (0.5 if from_above else -0.5) * tolerance
        slope = (coarse[1] - fine[1]) / (coarse[0] - fine[0])
        share = (aim - fine[1]) / slope / (coarse[0] - fine[0]) if slope else 0.5
        return fine[0] + min(max(share, 0.03), 0.97) * (coarse[0] - fine[0])
