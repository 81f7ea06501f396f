"""The quality scale and the searches for a size or a PSNR."""

from __future__ import annotations

import math

import pytest

from linocut.codec.rate_control import fit_bytes, fit_psnr, quality_step, step_quality
from linocut.errors import ConfigError

STEPS = (0.5, 512.0)


class Encoder:
    """Files of 100000 / step^exponent bytes, PSNR 50 dB - 18 log10(step); counts its calls."""

    def __init__(self, exponent: float = 0.9) -> None:
        self.exponent = exponent
        self.calls = 0

    def size(self, step: float) -> bytes:
        self.calls += 1
        return bytes(40 + round(100_000 * step**-self.exponent))

    def size_and_psnr(self, step: float) -> tuple[bytes, float]:
        return self.size(step), 50 - 18 * math.log10(step)


def test_quality_and_step_are_inverse_and_monotone() -> None:
    steps = [quality_step(quality) for quality in range(1, 101)]
    assert steps == sorted(steps, reverse=True)
    assert [round(step_quality(step)) for step in steps] == list(range(1, 101))


@pytest.mark.parametrize("quality", [0, 101, -5, 0.5])
def test_quality_outside_of_the_scale_is_refused(quality: float) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 100"):
        quality_step(quality)


@pytest.mark.parametrize("exponent", [0.5, 0.9, 1.6])
@pytest.mark.parametrize("most", [6_000, 20_000, 60_000])
def test_the_size_limit_is_kept_and_nearly_used(most: int, exponent: float) -> None:
    encoder = Encoder(exponent)
    found = len(fit_bytes(encoder.size, most, STEPS))
    assert encoder.calls <= 11
    assert 0.98 * most < found <= most


def test_a_limit_below_the_smallest_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="smallest file of this model has 404 bytes, not 100"):
        fit_bytes(Encoder().size, 100, STEPS)


def test_a_generous_limit_gives_the_finest_step() -> None:
    encoder = Encoder()
    assert len(fit_bytes(encoder.size, 10_000_000, STEPS)) == len(encoder.size(STEPS[0]))


@pytest.mark.parametrize("least_db", [20.0, 33.3, 52.0])
def test_the_psnr_is_reached_and_hardly_exceeded(least_db: float) -> None:
    encoder = Encoder()
    data = fit_psnr(encoder.size_and_psnr, least_db, STEPS)
    step = ((len(data) - 40) / 100_000) ** (-1 / 0.9)
    assert least_db - 0.02 <= 50 - 18 * math.log10(step) <= least_db + 0.1
    assert encoder.calls <= 10


def test_an_unreachable_psnr_is_refused_with_the_best_there_is() -> None:
    with pytest.raises(ConfigError, match=r"best file of this model has 55\.42 dB, not 60 dB"):
        fit_psnr(Encoder().size_and_psnr, 60, STEPS)


def test_a_low_psnr_gives_the_coarsest_step() -> None:
    encoder = Encoder()
    data = fit_psnr(encoder.size_and_psnr, 0, STEPS)
    assert len(data) == len(encoder.size(STEPS[1]))
