"""Every symbol is coded once, in an order in which what it leans on is already there."""

import numpy as np
import pytest

from linocut.entropy.latents import Band, wavelet_bands
from linocut.entropy.planes import Pass, plane_passes, planes_of, smooth_prediction


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 2), (9, 17), (16, 24)])
@pytest.mark.parametrize("smooth", [False, True])
def test_the_passes_visit_every_sample_exactly_once(shape, smooth):
    plane = planes_of([Band("b", 1, 2, smooth=smooth)])[0]
    visits = np.zeros(shape, int)
    for _, rows, columns in plane_passes(plane, shape):
        assert visits[rows, columns].size
        visits[rows, columns] += 1
    assert (visits == 1).all()


def test_smooth_predictions_read_only_the_coarser_grid():
    plane = planes_of([Band("b", 1, 2, smooth=True)])[0]
    values = np.random.default_rng(0).integers(-99, 99, (21, 30)).astype(np.int32)
    known = np.zeros(values.shape, bool)
    for place in plane_passes(plane, values.shape):
        hidden = np.where(known, values, 10**6).astype(np.int32)
        np.testing.assert_array_equal(
            smooth_prediction(hidden, place), smooth_prediction(values, place)
        )
        known[place.rows, place.columns] = True


def test_a_linear_ramp_is_predicted_exactly_inside():
    ramp = (np.arange(33)[:, None] * 8 + np.arange(33)[None] * 16).astype(np.int32)
    plane = planes_of([Band("b", 1, 2, smooth=True)])[0]
    for place in plane_passes(plane, ramp.shape):
        kind, rows, columns = place
        if kind:
            error = ramp[rows, columns] - smooth_prediction(ramp, place)
            ys, xs = np.arange(33)[rows], np.arange(33)[columns]
            inside = ((ys > 0) & (ys < 32))[:, None] & ((xs > 0) & (xs < 32))[None]
            assert not error[inside].any()


@pytest.mark.parametrize(
    ("values", "mean"),
    [((3, 4, 4, 4), 4), ((-3, -4, -4, -4), -4), ((1, 2, 1, 2), 2), ((-1, -2, -1, -2), -1)],
)
def test_means_round_half_up(values, mean):
    plane = np.zeros((3, 3), np.int32)
    plane[[0, 0, 2, 2], [0, 2, 0, 2]] = values
    place = Pass(1, slice(1, None, 2), slice(1, None, 2))
    assert smooth_prediction(plane, place) == [[mean]]


def test_parents_and_siblings_of_a_wavelet():
    planes = planes_of(wavelet_bands(2))
    first_fine = 12  # LL2, HL2, LH2, HH2 of three channels come before
    assert planes[first_fine].parents == (3,)
    assert planes[first_fine + 2].parents == (3, 5)
    assert planes[first_fine].siblings == (None,) * 8
    assert planes[first_fine + 2].siblings == (13, 12, *(None,) * 6)
    last = planes[20]  # HH1, channel 2: two channels, two bands, then the latest of the others
    assert last.siblings == (19, 18, 17, 14, 16, 15, 13, 12)
    assert planes[3].siblings == (None,) * 8  # smooth planes of the same stride do not count
    assert planes[0].siblings == (None,) * 8


def test_many_channels_see_the_nearest_ones():
    planes = planes_of([Band("a", 20, 8), Band("b", 20, 8)])
    assert planes[19].siblings == (18, 17, None, None, 16, 15, 14, 13)
    assert planes[39].siblings == (38, 37, 19, None, 36, 35, 34, 33)


def test_a_pass_knows_its_shape():
    passes = list(plane_passes(planes_of([Band("b", 1, 2)])[0], (5, 4)))
    assert [place.shape((5, 4)) for place in passes] == [(3, 2), (2, 2), (3, 2), (2, 2)]
    assert sum(place.size((5, 4)) for place in passes) == 20
