"""Differences between losses: paired, with and without a rate to be read at."""

import dataclasses

import numpy as np
import pytest

from linocut.errors import DataError
from linocut.lab.evaluation.rows import RestoredRow
from linocut.lab.report.restoration_section import compare_losses


def rows(gain: dict[str, float], *, slope: float = 0.0, noise: float = 0.0) -> list[RestoredRow]:
    """Losses whose PSNR differs by `gain` at equal rate, and rates that differ by loss."""
    rng, found = np.random.default_rng(0), []
    for place, (loss, more) in enumerate(gain.items()):
        for seed in range(3):
            for picture in range(6):
                for bottleneck, step in ((0, 80.0), (1, 40.0), (1, 80.0)):
                    bpp = bottleneck * 20.0 / step * (1 + 0.2 * place)
                    psnr = 25 + picture + more + noise * rng.standard_normal()
                    psnr += slope * np.log(bpp) if bottleneck else 0.0
                    score = dict.fromkeys(("ssim", "ms_ssim", "ssimulacra2"), psnr)
                    before = {f"input_{name}": 20.0 for name in ("psnr_db", *score)}
                    found.append(
                        RestoredRow(
                            loss=loss,
                            bottleneck=bottleneck,
                            seed=seed,
                            picture=str(picture),
                            step=step,
                            bpp=bpp,
                            psnr_db=psnr,
                            **score,
                            **before,
                        )
                    )
    return found


def test_a_constant_difference_is_found_exactly_though_pictures_differ() -> None:
    first = compare_losses(rows({"l2": 0.0, "l1": 0.3}), [("l1", "l2")], 0)[0]
    assert (first.bottleneck, first.score) == (0, "psnr_db")
    assert (first.difference, first.low, first.high) == pytest.approx((0.3, 0.3, 0.3))
    assert first.bpp == 0


def test_with_a_bottleneck_losses_are_compared_at_equal_rate() -> None:
    found = compare_losses(rows({"l2": 0.0, "l1": 0.3}, slope=4.0), [("l1", "l2")], 0)
    paid = next(row for row in found if row.bottleneck and row.score == "psnr_db")
    assert paid.difference == pytest.approx(0.3)
    assert 0.25 < paid.bpp < 0.6


def test_a_loss_with_finer_files_is_read_where_it_has_some() -> None:
    found = []
    for row in rows({"l1": 0.0, "ssim": 0.0, "ms_ssim": 0.0, "l2": 0.3}, slope=4.0):
        more = 1.2 if row.loss == "l2" else 1.0
        found.append(
            dataclasses.replace(
                row, bpp=row.bpp * more, psnr_db=row.psnr_db + row.bottleneck * 4.0 * np.log(more)
            )
        )
    paid = [row for row in compare_losses(found, [("l1", "l2")], 0) if row.bottleneck]
    assert paid[0].score == "psnr_db"
    assert paid[0].difference == pytest.approx(-0.3)
    assert 0.48 <= paid[0].bpp <= 0.5  # finer than the mean of all rates


def test_noise_widens_the_interval_until_no_difference_is_seen() -> None:
    found = compare_losses(rows({"l2": 0.0, "l1": 0.0}, noise=1.0), [("l1", "l2")], 0)[0]
    assert found.low < 0 < found.high
    assert found.high - found.low > 0.3


def test_a_missing_picture_is_refused() -> None:
    all_rows = rows({"l2": 0.0, "l1": 0.3})
    with pytest.raises(DataError, match="l1 has 35 restored pictures"):
        compare_losses(all_rows[:-1], [("l1", "l2")], 0)


def test_the_order_of_the_rows_does_not_matter() -> None:
    mixed = rows({"l2": 0.0, "l1": 0.3}, noise=0.5)
    turned = [dataclasses.replace(row) for row in reversed(mixed)]
    one, two = (compare_losses(r, [("l1", "l2")], 0)[0] for r in (mixed, turned))
    assert one.difference == pytest.approx(two.difference)
    assert one.low == pytest.approx(two.low)
