"""Which differences between trained losses are more than the choice of test pictures.

Losses of one architecture are ranked by what they need in bits for the quality of the best of them.
For every other loss there is the BD-rate against the best with a paired bootstrap interval, and the
p-value of an exact test: were the two equally good, the sign of their log-rate difference on each
picture would be a coin toss. The best is known only after looking, so Holm's correction runs over
all pairs of losses and not only over those with the best. With n pictures no p-value is below
2^(1-n) before the correction: with few pictures nothing can be significant, and then nothing is.

All this is about pictures; `linocut.lab.report.seeds` draws the seeds of the training, too.

Source: Fisher, "The Design of Experiments", 1935 (permutation of signs); Holm, "A simple
sequentially rejective multiple test procedure", Scand. J. Statist. 1979.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from linocut.lab.evaluation.rd import (
    CurveError,
    Floats,
    PictureCurves,
    bd_rate,
    bd_rate_between,
    bd_rate_draws,
    percentile_interval,
)

EXACT_PICTURES = 16
"""Up to this many pictures all patterns of signs are tried, beyond it `RANDOM_FLIPS` of them."""

RANDOM_FLIPS = 20_000

POWER_FACTOR = 1.96 + 0.84
"""Standard errors that a difference needs to be seen at 5 % with a probability of 80 %."""


@dataclass(frozen=True)
class Ranked:
    """A curve beside the best of its group; the best itself comes first, with zeros.

    Attributes:
        curve: its name.
        best: the name of the best.
        bd_rate: bits at equal quality against the best, per cent.
        low: lower bound of the 95 % interval.
        high: upper bound.
        p_value: of no difference, corrected for all pairs of curves; NaN where some picture has no
            BD-rate.
        detectable: the smallest difference that this set of pictures would show four times in
            five, per cent.
    """

    curve: str
    best: str
    bd_rate: float
    low: float
    high: float
    p_value: float
    detectable: float


def rank(
    curves: Mapping[str, PictureCurves],
    draws: NDArray[np.intp],
    units: NDArray[np.intp] | None = None,
) -> list[Ranked]:
    """Order curves by their BD-rate against the best, and test the differences.

    Args:
        curves: on the same pictures, by name.
        draws: resampled pictures (draws, n).
        units: rows of each independent picture (pictures, k), where there are several of each,
            for instance of several seeds; one row each when left out.

    Returns:
        The best, then the others by rising BD-rate; curves that hardly overlap with it are left
        out.
    """
    best = _best(curves)
    if best is None:
        return []
    pairs = list(combinations(curves, 2))
    p_values = holm([sign_flip_p(picture_log_rates(curves[a], curves[b], units)) for a, b in pairs])
    corrected = {frozenset(pair): p_value for pair, p_value in zip(pairs, p_values, strict=True)}
    others = []
    for name, curve in curves.items():
        if name == best:
            continue
        try:
            estimate = bd_rate_between(curves[best], curve)
        except CurveError:
            continue
        drawn = bd_rate_draws(curves[best], curve, draws)
        interval = percentile_interval(estimate, drawn)
        error = float(np.std(np.log1p(drawn[np.isfinite(drawn)] / 100)))
        detectable = 100 * float(np.expm1(POWER_FACTOR * error))
        bounds = (interval.estimate, interval.low, interval.high)
        p_value = corrected[frozenset((best, name))]
        others.append(Ranked(name, best, *bounds, p_value, detectable))
    others.sort(key=lambda row: row.bd_rate)
    return [Ranked(best, best, 0.0, 0.0, 0.0, 1.0, 0.0), *others]


def picture_log_rates(
    anchor: PictureCurves, test: PictureCurves, units: NDArray[np.intp] | None = None
) -> Floats:
    """log(1 + BD-rate) of each picture by itself, (pictures,); NaN where it has none."""
    units = np.arange(len(anchor.pictures))[:, None] if units is None else units
    found = np.full(len(units), np.nan)
    for index, alone in enumerate(units):
        try:
            found[index] = np.log1p(bd_rate(*anchor.mean(alone), *test.mean(alone)) / 100)
        except CurveError:
            continue
    return found


def sign_flip_p(differences: Floats, seed: int = 0) -> float:
    """Two-sided p-value of paired differences (n,) under random signs; NaN if one is missing."""
    count = len(differences)
    if count == 0 or not np.all(np.isfinite(differences)):
        return float("nan")
    if count <= EXACT_PICTURES:
        patterns = np.arange(2**count)[:, None] >> np.arange(count) & 1
        sums = np.abs((2 * patterns - 1) @ differences)
        return float(np.mean(sums >= abs(differences.sum()) * (1 - 1e-12)))
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (RANDOM_FLIPS, count))
    as_large = np.sum(np.abs(signs @ differences) >= abs(differences.sum()) * (1 - 1e-12))
    return float((1 + as_large) / (1 + RANDOM_FLIPS))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for testing all of them, in their order; NaN counts as a comparison."""
    order = np.argsort([p if np.isfinite(p) else np.inf for p in p_values], kind="stable")
    adjusted = [float("nan")] * len(p_values)
    running = 0.0
    for place, index in enumerate(order):
        if np.isfinite(p_values[index]):
            running = max(running, (len(p_values) - place) * p_values[index])
            adjusted[index] = min(running, 1.0)
    return adjusted


def _best(curves: Mapping[str, PictureCurves]) -> str | None:
    """The curve that needs the fewest bits against any other; None where nothing compares."""
    wins = dict.fromkeys(curves, 0)
    compared = False
    for one in curves:
        for two in curves:
            if one == two:
                continue
            try:
                wins[two] += bd_rate_between(curves[one], curves[two]) < 0
                compared = True
            except CurveError:
                continue
    return max(wins, key=lambda name: wins[name]) if compared else None
