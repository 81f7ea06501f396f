"""The numbers that follow from measured points: curves, BD-rates, intervals, ranking of losses.

Part of `verify.py`. BD-rates come from the package `bjontegaard`, tests from scipy.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import bjontegaard
import numpy as np
import scipy.interpolate
import scipy.stats

Array = np.ndarray[Any, np.dtype[np.float64]]
METRICS = ("psnr_db", "ssim_db", "ms_ssim_db", "ssimulacra2")
"""Of the columns of points behind the rate."""
MIN_OVERLAP = 0.5
"""Of the narrower of two ranges of quality; below it curves have no BD-rate."""


@dataclass
class Expected:
    """Every number of the report that follows from the files.

    Attributes:
        cells: names in order.
        controls: names in order.
        anchors: names in order.
        pictures: names of the test pictures.
        points: (pictures, points, 5) of rate, PSNR, SSIM, MS-SSIM and SSIMULACRA 2, by curve.
        bd: estimate, low and high by (curve, metric, anchor); NaN where there is none.
        files: how many files each cell has.
        draws: resampled pictures.
    """

    cells: list[str]
    controls: list[str]
    anchors: list[str]
    pictures: list[str]
    points: dict[str, Array]
    bd: dict[tuple[str, str, str], tuple[float, float, float]]
    files: dict[str, int]
    draws: np.ndarray[Any, Any]
    _integrated: dict[tuple[str, str], list[Any]] = field(default_factory=dict)

    @classmethod
    def compute(
        cls,
        cells: Sequence[str],
        measured: Mapping[str, Mapping[str, Sequence[tuple[float, ...]]]],
        *,
        seed: int,
        draws: int,
        controls: Sequence[str] = (),
    ) -> Expected:
        """Mean curves, BD-rates and intervals of measured points."""
        pictures = sorted(next(iter(measured.values())))
        points = {
            name: np.array([by_picture[picture] for picture in pictures])
            for name, by_picture in measured.items()
        }
        chosen = np.random.default_rng(seed).integers(0, len(pictures), (draws, len(pictures)))
        anchors = [name for name in measured if name not in (*cells, *controls)]
        files = {cell: points[cell].shape[0] * points[cell].shape[1] for cell in cells}
        made = cls(list(cells), list(controls), anchors, pictures, points, {}, files, chosen)
        for name in points:
            for metric in METRICS:
                for anchor in anchors:
                    if anchor != name:
                        made.bd[name, metric, anchor] = made.interval(name, metric, anchor)
        return made

    def curve(self, name: str, metric: str, pictures: Any = slice(None)) -> tuple[Array, Array]:
        """Mean rate and quality, rising in rate."""
        mean = self.points[name][pictures].mean(axis=0)
        mean = mean[np.argsort(mean[:, 0], kind="stable")]
        quality = mean[:, 1 + METRICS.index(metric)]
        if metric in ("ssim_db", "ms_ssim_db"):
            quality = -10 * np.log10(1 - quality)
        return mean[:, 0], quality

    def bd_rate(self, test: str, metric: str, anchor: str, pictures: Any = slice(None)) -> float:
        """BD-rate in per cent of two mean curves, NaN where there is none."""
        return bd_rate(self.curve(anchor, metric, pictures), self.curve(test, metric, pictures))

    def drawn(self, test: str, metric: str, anchor: str) -> Array:
        """BD-rates of all draws of pictures, those that exist: what the package says, sooner.

        Every curve is interpolated once for each draw and integrated up to every quality; the
        package would do it again for every pair of curves.
        """
        rates = []
        for one, two in zip(self._areas(anchor, metric), self._areas(test, metric), strict=True):
            if one is not None and two is not None:
                low, high = max(one.x[0], two.x[0]), min(one.x[-1], two.x[-1])
                if high > low:
                    below, above = two((low, high)) - one((low, high))
                    rates.append(100 * math.expm1((above - below) / (high - low)))
        return np.array(rates)

    def _areas(self, name: str, metric: str) -> list[Any]:
        """Log rate integrated over quality, of the mean curve of each draw; None if it falls."""
        if (name, metric) not in self._integrated:
            found: list[Any] = []
            for pictures in self.draws:
                rate, quality = self.curve(name, metric, pictures)
                rising = np.all(np.diff(rate) > 0) and np.all(np.diff(quality) > 0)
                curve = scipy.interpolate.PchipInterpolator(quality, np.log(rate)) if rising else 0
                found.append(curve.antiderivative() if curve else None)
            self._integrated[name, metric] = found
        return self._integrated[name, metric]

    def interval(self, test: str, metric: str, anchor: str) -> tuple[float, float, float]:
        """BD-rate and its bootstrap interval."""
        estimate = self.bd_rate(test, metric, anchor)
        if math.isnan(estimate):
            return estimate, math.nan, math.nan
        drawn = self.drawn(test, metric, anchor)
        if len(drawn) < 0.9 * len(self.draws):
            return estimate, math.nan, math.nan
        low, high = np.percentile(drawn, [2.5, 97.5])
        return estimate, float(low), float(high)

    def ranking(self, metric: str, arch: str) -> dict[str, list[float]]:
        """Cells of an architecture, the leading one first: against it BD-rate, interval, p, power.

        Those without a BD-rate against it are left out; all of them where nothing compares.
        """
        cells = [cell for cell in self.cells if cell.partition("-")[0] == arch]
        rates = {(a, b): self.bd_rate(b, metric, a) for a in cells for b in cells if a != b}
        wins = {cell: sum(rates[other, cell] < 0 for other in cells if other != cell)
                for cell in cells}  # fmt: skip
        if not any(math.isfinite(rate) for rate in rates.values()):
            return {}
        best = max(cells, key=lambda cell: wins[cell])
        adjusted = self.p_values(metric, cells)
        found = {best: [0.0, 0.0, 0.0, 1.0, 0.0]}
        for cell in cells:
            if cell != best and math.isfinite(rates[best, cell]):
                error = np.std(np.log1p(self.drawn(cell, metric, best) / 100))
                numbers = [*self.interval(cell, metric, best), adjusted[frozenset((best, cell))]]
                found[cell] = [*numbers, 100 * math.expm1(2.8 * error)]
        return found

    def p_values(self, metric: str, cells: Sequence[str]) -> dict[frozenset[str], float]:
        """Sign-flip tests of all pairs of cells after Holm's correction; NaN for none."""
        pairs = list(combinations(cells, 2))
        raw = [self.p_value(metric, one, two) for one, two in pairs]
        adjusted, running = {}, 0.0
        for place, index in enumerate(np.argsort(raw, kind="stable")):  # NaN comes last
            running = max(running, (len(pairs) - place) * raw[index])
            known = math.isfinite(raw[index])
            adjusted[frozenset(pairs[index])] = min(running, 1.0) if known else math.nan
        return adjusted

    def p_value(self, metric: str, one: str, two: str) -> float:
        """Sign-flip test of the log-rate differences of the pictures."""
        rates = [self.bd_rate(two, metric, one, [index]) for index in range(len(self.pictures))]
        if not np.isfinite(rates).all():
            return math.nan
        return float(
            scipy.stats.permutation_test(
                (np.log1p(np.array(rates) / 100),), np.sum, permutation_type="samples",
                n_resamples=np.inf if len(rates) <= 16 else 20_000, rng=1,
            ).pvalue
        )  # fmt: skip


def bd_rate(anchor: tuple[Array, Array], test: tuple[Array, Array]) -> float:
    """BD-rate in per cent by the package `bjontegaard`, NaN where curves fall or hardly meet."""
    for rate, quality in (anchor, test):
        if not (np.all(np.diff(rate) > 0) and np.all(np.diff(quality) > 0)):
            return math.nan
    shared = min(anchor[1][-1], test[1][-1]) - max(anchor[1][0], test[1][0])
    if not shared > 0 or shared < MIN_OVERLAP * min(np.ptp(anchor[1]), np.ptp(test[1])):
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(
            bjontegaard.bd_rate(
                *anchor, *test, method="pchip", require_matching_points=False, min_overlap=0
            )
        )
