"""Which loss restores better: differences with intervals over pictures and seeds.

Two losses are compared picture by picture and seed by seed. An interval comes from drawing both the
pictures and the seeds with replacement, the same draws for all losses. With a bottleneck losses
have to be read at one rate: the curve of a loss is the mean over the drawn pictures of rate and
score at each step, and all curves of a draw are read, on straight lines over log rate, at the
geometric mean of their rates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from linocut.errors import DataError
from linocut.lab.evaluation.rd import Floats, percentile_interval
from linocut.lab.evaluation.rows import RestoredRow

SCORES = {
    "psnr_db": "PSNR [dB]",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "ssimulacra2": "SSIMULACRA 2",
}
"""Titles of the scores, by field of `RestoredRow`."""

DRAWS = 2000


@dataclass(frozen=True)
class ScoreRow:
    """Mean score of a loss, and its difference to another loss with a 95 % interval.

    Attributes:
        bottleneck: 1 with, 0 without.
        bpp: rate at which the losses are compared; 0 without a bottleneck.
    """

    bottleneck: int
    score: str
    loss: str
    value: float
    against: str
    difference: float
    low: float
    high: float
    bpp: float


def compare_losses(
    rows: Sequence[RestoredRow], pairs: Sequence[tuple[str, str]], seed: int
) -> list[ScoreRow]:
    """Differences of pairs of losses in every score, without and with the bottleneck.

    Args:
        rows: every loss on the same pictures and seeds.
        pairs: (loss, the loss it is compared with).
        seed: of the draws.
    """
    losses = list(dict.fromkeys(row.loss for row in rows))
    found = []
    for bottleneck in sorted({row.bottleneck for row in rows}):
        chosen = [row for row in rows if row.bottleneck == bottleneck]
        seeds = sorted({row.seed for row in chosen})
        pictures = sorted({row.picture for row in chosen})
        rng = np.random.default_rng(seed)
        s, p = len(seeds), len(pictures)
        picked = [(np.arange(s), np.arange(p))]  # the estimate; then the draws
        picked += [(rng.integers(0, s, s), rng.integers(0, p, p)) for _ in range(DRAWS)]
        rates = np.stack([_table(chosen, loss, "bpp") for loss in losses])
        for score in SCORES:
            values = np.stack([_table(chosen, loss, score) for loss in losses])
            read = [_read(rates[:, a][..., b], values[:, a][..., b]) for a, b in picked]
            means = np.array([means for means, _ in read])
            for loss, other in pairs:
                column, reference = losses.index(loss), losses.index(other)
                differences = means[:, column] - means[:, reference]
                interval = percentile_interval(float(differences[0]), differences[1:])
                bounds = (interval.estimate, interval.low, interval.high)
                value, rate = float(means[0, column]), read[0][1]
                found.append(ScoreRow(bottleneck, score, loss, value, other, *bounds, rate))
    return found


def _table(rows: Sequence[RestoredRow], loss: str, field: str) -> Floats:
    """One field of one loss as (seeds, steps, pictures)."""
    mine = sorted(
        (row for row in rows if row.loss == loss), key=lambda row: (row.seed, row.step, row.picture)
    )
    counts = [len({getattr(row, name) for row in mine}) for name in ("seed", "step", "picture")]
    if len(mine) != np.prod(counts):
        raise DataError(f"{loss} has {len(mine)} restored pictures, expected {counts} of each kind")
    return np.array([getattr(row, field) for row in mine]).reshape(counts)


def _read(rates: Floats, values: Floats) -> tuple[Floats, float]:
    """Scores (losses,) at one common rate, and that rate; from (losses, seeds, steps, pictures)."""
    score = values.mean(-1)
    if score.shape[-1] == 1:
        return score[..., 0].mean(-1), 0.0
    log_rate = np.log(rates.mean(-1))
    common = float(log_rate.mean())
    read = [
        np.mean([np.interp(common, x[::-1], y[::-1]) for x, y in zip(curves, at, strict=True)])
        for curves, at in zip(log_rate, score, strict=True)
    ]
    return np.array(read), float(np.exp(common))
