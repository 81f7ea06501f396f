"""Rate-distortion curves: averages over pictures, Bjontegaard's delta rate, and its uncertainty.

BD-rate is the average over a range of quality of the difference in log rate of two curves, as a
percentage: -20 means a fifth fewer bits for the same quality. Both curves are interpolated by
PCHIP (cubic, monotone between its points), log rate as a function of quality, and the average runs
over the qualities that both curves reach. Nothing is extrapolated: where too little of the curves
overlaps, there is no BD-rate.

The curve of a codec on a set of pictures goes through the mean rate and the mean quality of the
pictures at each of its settings. The pictures are a sample, so every BD-rate has an interval: the
pictures are drawn again with replacement, the same draw for both codecs, and both mean curves and
their BD-rate are computed anew.

Source: Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001;
Fritsch, Butland, "A method for constructing local monotone piecewise cubic interpolants", SIAM
J. Sci. Stat. Comput. 1984; Efron, Tibshirani, "An introduction to the bootstrap", 1993.

Others published curves on the 24 Kodak pictures: means over the pictures, so without intervals.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike, NDArray

from linocut.errors import LinocutError

Floats = NDArray[np.float64]

MIN_OVERLAP = 0.5
"""Share of the narrower curve's quality range that both curves must cover."""


class CurveError(LinocutError):
    """Curves that cannot be compared: not rising, not finite, or hardly overlapping."""


@dataclass(frozen=True)
class PictureCurves:
    """One codec on every picture: what a mean curve and its uncertainty are made of.

    Attributes:
        pictures: names, in the order of the rows.
        bpp: rate (pictures, points), bits per pixel.
        quality: quality (pictures, points), in the unit that is averaged.
        unit: turns a mean of `quality` into what the curve shows, for instance MS-SSIM into dB.
    """

    pictures: tuple[str, ...]
    bpp: Floats
    quality: Floats
    unit: Callable[[Floats], Floats] | None = None

    def mean(self, draws: NDArray[np.intp] | None = None) -> tuple[Floats, Floats]:
        """Mean curve over the pictures, points ordered by rate.

        Args:
            draws: row numbers (..., n) of resampled pictures; every picture once when left out.

        Returns:
            Rate and quality, (..., points) each.
        """
        if draws is None:
            draws = np.arange(len(self.pictures))
        bpp = self.bpp[draws].mean(axis=-2)
        quality = self.quality[draws].mean(axis=-2)
        if self.unit is not None:
            quality = self.unit(quality)
        order = np.argsort(bpp, axis=-1, kind="stable")
        return np.take_along_axis(bpp, order, -1), np.take_along_axis(quality, order, -1)


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile bootstrap interval."""

    estimate: float
    low: float
    high: float


def is_monotone(bpp: ArrayLike, quality: ArrayLike) -> bool:
    """Whether more rate always buys more quality; points may come in any order."""
    rate, value = np.asarray(bpp, np.float64), np.asarray(quality, np.float64)
    order = np.argsort(rate)
    return bool(np.all(np.diff(rate[order]) > 0) and np.all(np.diff(value[order]) > 0))


def bd_rate(
    anchor_bpp: ArrayLike,
    anchor_quality: ArrayLike,
    test_bpp: ArrayLike,
    test_quality: ArrayLike,
    *,
    min_overlap: float = MIN_OVERLAP,
) -> float:
    """Average difference in rate at equal quality, per cent of the anchor's rate.

    Args:
        anchor_bpp: rates (n,) of the codec that is 0 %.
        anchor_quality: its qualities (n,), in dB.
        test_bpp: rates (m,) of the codec under test.
        test_quality: its qualities (m,).
        min_overlap: smallest accepted share of the narrower quality range that both cover.

    Raises:
        CurveError: fewer than two points, values that are not finite, a quality that does not rise
            with the rate, or too little overlap.
    """
    curves = []
    for name, bpp, quality in (
        ("anchor", anchor_bpp, anchor_quality),
        ("test", test_bpp, test_quality),
    ):
        rate, value = np.asarray(bpp, np.float64), np.asarray(quality, np.float64)
        _require_curve(name, rate, value)
        order = np.argsort(rate)
        curves.append((rate[order], value[order]))
    (rate_a, quality_a), (rate_t, quality_t) = curves
    low, high = max(quality_a[0], quality_t[0]), min(quality_a[-1], quality_t[-1])
    narrower = min(quality_a[-1] - quality_a[0], quality_t[-1] - quality_t[0])
    if high - low < min_overlap * narrower:
        raise CurveError(
            f"the curves share {max(high - low, 0.0) / narrower:.0%} of the narrower quality range "
            f"({quality_a[0]:.2f}..{quality_a[-1]:.2f} and {quality_t[0]:.2f}..{quality_t[-1]:.2f}"
            f"), expected at least {min_overlap:.0%}"
        )
    return float(_delta(rate_a, quality_a, rate_t, quality_t))


def bd_rate_between(anchor: PictureCurves, test: PictureCurves) -> float:
    """BD-rate of the mean curves of two codecs, per cent.

    Raises:
        CurveError: as `bd_rate`, or the codecs saw different pictures.
    """
    _require_same_pictures(anchor, test)
    return bd_rate(*anchor.mean(), *test.mean())


def resample_pictures(count: int, draws: int, seed: int = 0) -> NDArray[np.intp]:
    """Row numbers (draws, count) of pictures drawn with replacement.

    Handing the same draws to several comparisons makes them paired.
    """
    return np.random.default_rng(seed).integers(0, count, (draws, count))


def bd_rate_draws(anchor: PictureCurves, test: PictureCurves, draws: NDArray[np.intp]) -> Floats:
    """BD-rate of every draw of pictures, (draws,) per cent; NaN where a curve does not rise.

    Raises:
        CurveError: the codecs saw different pictures.
    """
    _require_same_pictures(anchor, test)
    (rate_a, quality_a), (rate_t, quality_t) = anchor.mean(draws), test.mean(draws)
    rising = np.all(np.diff(quality_a) > 0, axis=-1) & np.all(np.diff(quality_t) > 0, axis=-1)
    rising &= quality_a[:, -1] > quality_t[:, 0]
    rising &= quality_t[:, -1] > quality_a[:, 0]
    deltas = np.full(len(draws), np.nan)
    deltas[rising] = _delta(rate_a[rising], quality_a[rising], rate_t[rising], quality_t[rising])
    return deltas


def percentile_interval(estimate: float, draws: Floats, confidence: float = 0.95) -> Interval:
    """Interval between the outer percentiles of bootstrap draws (n,); NaN if a tenth failed."""
    valid = draws[np.isfinite(draws)]
    if len(valid) < 0.9 * len(draws) or len(valid) == 0:
        return Interval(estimate, float("nan"), float("nan"))
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(valid, [tail, 100.0 - tail])
    return Interval(estimate, float(low), float(high))


def _require_curve(name: str, rate: Floats, quality: Floats) -> None:
    if rate.ndim != 1 or rate.shape != quality.shape or len(rate) < 2:
        raise CurveError(
            f"{name} curve has rates {rate.shape} and qualities {quality.shape}, "
            "expected two lists of equal length, 2 points or more"
        )
    if not (np.all(np.isfinite(rate)) and np.all(np.isfinite(quality)) and np.all(rate > 0)):
        raise CurveError(f"{name} curve has values that are not finite, or rates not above 0")
    if not is_monotone(rate, quality):
        raise CurveError(f"{name} curve does not rise: more rate does not always buy quality")


def _require_same_pictures(anchor: PictureCurves, test: PictureCurves) -> None:
    if anchor.pictures != test.pictures:
        odd = sorted(set(anchor.pictures) ^ set(test.pictures)) or ["the same ones, reordered"]
        raise CurveError(f"the codecs coded different pictures: {', '.join(odd)}")


def _delta(rate_a: Floats, quality_a: Floats, rate_t: Floats, quality_t: Floats) -> Floats:
    """BD-rate (...,) per cent of curves (..., n) and (..., m) whose quality rises."""
    low = np.maximum(quality_a[..., 0], quality_t[..., 0])
    high = np.minimum(quality_a[..., -1], quality_t[..., -1])
    anchor = _pchip_mean(quality_a, np.log(rate_a), low, high)
    test = _pchip_mean(quality_t, np.log(rate_t), low, high)
    return np.asarray(100.0 * np.expm1(test - anchor))


def _pchip_mean(x: Floats, y: Floats, low: Floats, high: Floats) -> Floats:
    """Mean over [low, high] (...,) of the PCHIP curves through x, y (..., n), x rising."""
    widths = np.diff(x)
    chords = np.diff(y) / widths
    slopes = _pchip_slopes(widths, chords)
    before, after = slopes[..., :-1], slopes[..., 1:]
    square = (3 * chords - 2 * before - after) / widths
    cube = (before + after - 2 * chords) / widths**2

    def antiderivative(end: Floats) -> Floats:
        s = np.clip(end[..., None] - x[..., :-1], 0, widths)
        return s * (y[..., :-1] + s * (before / 2 + s * (square / 3 + s * cube / 4)))

    return np.asarray((antiderivative(high) - antiderivative(low)).sum(-1) / (high - low))


def _pchip_slopes(widths: Floats, chords: Floats) -> Floats:
    """Derivatives (..., n) at the points: weighted harmonic means, 0 at a turn."""
    if chords.shape[-1] == 1:
        return np.repeat(chords, 2, axis=-1)
    left, right = chords[..., :-1], chords[..., 1:]
    weight_left = 2 * widths[..., 1:] + widths[..., :-1]
    weight_right = widths[..., 1:] + 2 * widths[..., :-1]
    level = left * right <= 0
    safe_left, safe_right = np.where(level, 1.0, left), np.where(level, 1.0, right)
    harmonic = (weight_left + weight_right) / (weight_left / safe_left + weight_right / safe_right)
    first = _end_slope(widths[..., 0], widths[..., 1], chords[..., 0], chords[..., 1])
    last = _end_slope(widths[..., -1], widths[..., -2], chords[..., -1], chords[..., -2])
    inner = np.where(level, 0.0, harmonic)
    return np.concatenate([first[..., None], inner, last[..., None]], axis=-1)


def _end_slope(width: Floats, next_width: Floats, chord: Floats, next_chord: Floats) -> Floats:
    """One-sided three-point derivative (...,), limited so that the curve keeps its shape."""
    slope = ((2 * width + next_width) * chord - width * next_chord) / (width + next_width)
    slope = np.where(np.sign(slope) != np.sign(chord), 0.0, slope)
    steep = (np.sign(chord) != np.sign(next_chord)) & (np.abs(slope) > 3 * np.abs(chord))
    return np.where(steep, 3 * chord, slope)


TITLES = {
    "BPG 4:4:4 (0.9.8 x265, CompressAI)": "BPG 4:4:4",
    "VTM (VVC intra, CompressAI)": "VTM",
    "bmshj2018-factorized (MSE)": "factorized prior",
    "bmshj2018-factorized (MS-SSIM)": "factorized prior for MS-SSIM",
    "bmshj2018-hyperprior (MSE)": "hyperprior",
    "bmshj2018-hyperprior (MS-SSIM)": "hyperprior for MS-SSIM",
    "mbt2018 (MSE)": "mbt2018",
    "cheng2020-anchor (MSE)": "cheng2020",
}
"""Those that tables compare with, under short names."""

DRAWN = (
    "bmshj2018-factorized (MSE)",
    "bmshj2018-hyperprior (MSE)",
    "cheng2020-anchor (MSE)",
    "VTM (VVC intra, CompressAI)",
)
"""Those that figures show from the start."""


def is_kodak(pictures: Sequence[str]) -> bool:
    """Whether these are the 24 pictures that published curves are about."""
    return sorted(pictures) == [f"kodim{number:02}" for number in range(1, 25)]


@functools.cache
def published_curves() -> Mapping[str, Mapping[str, list[float]]]:
    """bpp, psnr_db and ms_ssim of each codec, from papers and repositories, with its source."""
    file = resources.files("linocut.lab.evaluation") / "kodak_curves.json"
    return dict(json.loads(file.read_text(encoding="utf-8")))


def bd_rate_to_published(name: str, metric: str, curve: PictureCurves) -> float | None:
    """BD-rate of a measured curve against a published one, per cent; None where they hardly meet.

    Args:
        name: of the published curve.
        metric: "psnr_db" or "ms_ssim_db".
        curve: the measured one, on the Kodak pictures.
    """
    published = published_curves()[name]
    column = {"psnr_db": "psnr_db", "ms_ssim_db": "ms_ssim"}[metric]
    if column not in published:
        return None
    quality = np.array(published[column])
    if curve.unit is not None:
        quality = curve.unit(quality)
    try:
        return bd_rate(published["bpp"], quality, *curve.mean())
    except CurveError:
        return None
