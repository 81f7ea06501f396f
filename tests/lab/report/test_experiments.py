"""Seeds as a third axis: cells of several experiments that differ by nothing else."""

import pathlib

import numpy as np
import pytest

from fake_checkout import FakeCheckout
from linocut.errors import DataError
from linocut.lab.evaluation.rows import EvaluationRow
from linocut.lab.report import experiments


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> FakeCheckout:
    """Two losses: l1 is 0.5 dB worse; seed 1 is 0.3 dB better than seed 0 in both."""
    made = FakeCheckout(tmp_path / "checkout")
    made.add_cell("cae-l2", 0.0)
    made.add_cell("cae-l1", -0.5)
    made.commit()
    made.add_cell("cae-l2", 0.3, seed=1)
    made.add_cell("cae-l1", -0.2, seed=1)
    made.save_experiment("other-seed")
    return made


def rate_percent(gain_db: float) -> float:
    """BD-rate of a curve of 6 dB an octave that lies higher by `gain_db`."""
    return 100 * (2 ** (-gain_db / 6) - 1)


def test_a_study_holds_the_cells_that_differ_by_their_seed_alone(checkout: FakeCheckout) -> None:
    checkout.add_cell("cae-l2", 2.0, seed=2, megapixels=99.0)
    (study,) = experiments.studies(checkout.root)
    assert study.seeds == (0, 1)
    assert set(study.cells) == {"cae-l1"}  # of cae-l2 only seed 1 has the same numbers now


def test_every_seed_and_the_spread_between_them_are_shown(checkout: FakeCheckout) -> None:
    (study,) = experiments.studies(checkout.root)
    text = experiments.study_text(study)
    each = [rate_percent(0.0), rate_percent(0.3)]
    (line,) = [line for line in text.splitlines() if line.startswith("| PSNR | cae-l2 | ")][:1]
    assert f"| {each[0]:+.1f} {each[1]:+.1f} | {np.std(each, ddof=1):.2f} |" in line
    assert text.startswith("Seeds 0, 1; 2 cells; 2 pictures.")


def test_losses_are_compared_seed_by_seed_so_what_seeds_share_cancels(
    checkout: FakeCheckout,
) -> None:
    (study,) = experiments.studies(checkout.root)
    worse = f"{rate_percent(-0.5):+.1f}"
    assert f"| PSNR | cae-l2 | cae-l1 | {worse} [{worse}, {worse}] |" in experiments.study_text(
        study
    )


def test_p_values_count_pictures_and_not_their_seeds(checkout: FakeCheckout) -> None:
    """Two pictures: whatever the number of seeds, two signs in four are as extreme."""
    (study,) = experiments.studies(checkout.root)
    (line,) = [
        line for line in experiments.study_text(study).splitlines() if "| cae-l2 | cae-l1 |" in line
    ][:1]
    assert line.split(" | ")[4] == "0.500"


def test_draws_pick_the_same_pictures_in_every_drawn_seed() -> None:
    draws = experiments.crossed_draws(3, 5, 20).reshape(20, 3, 5)
    assert draws.min() >= 0
    assert draws.max() < 15
    pictures = draws % 5
    assert np.all(pictures == pictures[:, :1])
    assert np.all(draws // 5 == (draws // 5)[:, :, :1])


def test_seeds_with_other_rate_points_are_not_averaged() -> None:
    def rows(points: int) -> list[EvaluationRow]:
        return [
            EvaluationRow("a", point, 1.0, 10, 0.1 + point, 0.1, 30.0 + point, 0.9, 0.9, 50.0, 0, 0)
            for point in range(points)
        ]

    with pytest.raises(DataError, match="seeds of cae-l2"):
        experiments.stacked_curves("cae-l2", {0: rows(2), 1: rows(3)}, "psnr_db")


def test_without_a_second_seed_the_command_says_how_to_get_one(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alone = FakeCheckout(tmp_path / "alone")
    alone.add_cell("cae-l2")
    monkeypatch.chdir(alone.root)
    assert experiments.main([]) == 1
    assert "-S seed=0,1,2" in capsys.readouterr().err
