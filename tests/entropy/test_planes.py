"""Bands and steps are those of files; every symbol is coded once, after all that it leans on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linocut.entropy.planes import (
    SPACING,
    STEPS_PER_OCTAVE,
    Band,
    Pass,
    dequantise,
    plane_passes,
    planes_of,
    smooth_prediction,
    step_index,
    step_of,
    wavelet_bands,
)
from linocut.errors import DataError
from linocut.format.bitstream import MAX_STEP_INDEX


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


def test_wavelet_bands_go_from_coarse_to_fine():
    bands = wavelet_bands(2)
    assert [band.name for band in bands] == ["LL2", "HL2", "LH2", "HH2", "HL1", "LH1", "HH1"]
    assert [band.stride for band in bands] == [4, 4, 4, 4, 2, 2, 2]
    assert {band.channels for band in bands} == {3}


def test_every_finer_detail_names_the_same_orientation_as_parent():
    bands = wavelet_bands(4)
    for band in bands[4:]:
        parent = bands[band.parent]
        assert (parent.name[:2], parent.stride) == (band.name[:2], 2 * band.stride)
    assert all(band.parent is None for band in bands[:4])


def test_only_the_low_pass_band_is_smooth():
    assert [band.smooth for band in wavelet_bands(3)] == [True] + 9 * [False]


def test_as_many_samples_as_pixels():
    assert sum(band.channels / band.stride**2 for band in wavelet_bands(5, 3)) == 3


def test_a_band_is_not_smooth_and_has_no_parent_unless_said():
    assert Band("Y", 32, 8) == Band("Y", 32, 8, None, False)


def test_every_index_of_the_format_is_found_again():
    indices = range(MAX_STEP_INDEX + 1)
    assert [step_index(step_of(index)) for index in indices] == list(indices)


def test_the_grid_covers_1_to_1024_grey_levels():
    assert (step_of(0), step_of(MAX_STEP_INDEX)) == (1.0, 1024.0)
    assert step_of(STEPS_PER_OCTAVE) == 2.0


@given(st.floats(1.0, 1024.0))
def test_the_nearest_step_is_within_half_a_64th_of_an_octave(step):
    assert abs(np.log2(step_of(step_index(step)) / step)) <= 0.5 / 64 + 1e-12


@pytest.mark.parametrize("step", [0.0, -3.0, 0.999, 1025.0, float("inf"), float("nan")])
def test_other_steps_are_refused(step):
    with pytest.raises(DataError, match=r"outside 1\.\.1024 grey levels"):
        step_index(step)


def test_smooth_planes_lie_on_steps_and_details_on_finer_levels():
    bands = (Band("a", 1, 2, smooth=True), Band("b", 1, 2))
    symbols = [np.array([[[-3, 2]]], np.int32)] * 2
    smooth, detail = dequantise(bands, symbols, 8.0)
    np.testing.assert_array_equal(smooth, [[[-24.0, 16.0]]])
    np.testing.assert_array_equal(detail, np.float32(8 * SPACING) * symbols[1].astype(np.float32))
