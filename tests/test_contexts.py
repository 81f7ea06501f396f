"""Contexts are causal: nothing that is decoded later ever changes what an earlier symbol saw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linocut.contexts import (
    BINS,
    LARGEST_MAGNITUDE,
    THRESHOLDS,
    ContextState,
    context_bins,
    context_sum,
    inverse_step,
    plane_passes,
    planes_of,
    smooth_bin,
    smooth_prediction,
)
from linocut.latents import Band, wavelet_bands
from symbols import laplace_latent

LATENTS = {"wavelet": wavelet_bands(2, 2), "plain": tuple(Band(name, 3, 8) for name in "ab")}
HEIGHT, WIDTH = 40, 56


def everything_seen(bands, latent, step=300):
    """What the coder sees before every pass, in coding order: (place, arrays)."""
    planes = planes_of(bands)
    symbols = [band[c] for band in latent for c in range(len(band))]
    state = ContextState(planes, [plane.shape for plane in symbols], step)
    result = []
    for index, values in enumerate(symbols):
        state.open(index)
        for kind, rows, columns in plane_passes(planes[index], values.shape):
            place = (index, rows.start, columns.start, rows.step)
            if planes[index].smooth:
                prediction = smooth_prediction(values, kind, rows, columns)
                result.append((place, [prediction]))
                state.put(rows, columns, values[rows, columns] - prediction)
            else:
                features = state.features(index, kind, rows, columns)
                shape = values[rows, columns].shape
                result.append((place, [np.broadcast_to(f, shape).copy() for f in features]))
                state.put(rows, columns, values[rows, columns])
        state.close(index)
    return result


@pytest.mark.parametrize("name", LATENTS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_later_symbol_never_changes_an_earlier_context(name, data):
    bands = LATENTS[name]
    latent = laplace_latent(bands, HEIGHT, WIDTH, 0)
    before = everything_seen(bands, latent)
    band = data.draw(st.integers(0, len(bands) - 1))
    channel, y, x = (data.draw(st.integers(0, size - 1)) for size in latent[band].shape)
    latent[band][channel, y, x] += data.draw(st.sampled_from([-40000, -1, 1, 300]))
    plane = sum(b.channels for b in bands[:band]) + channel
    after = everything_seen(bands, latent)
    mine = next(
        number
        for number, ((index, top, left, size), _) in enumerate(before)
        if index == plane and (y - top) % size == 0 and (x - left) % size == 0
        and y >= top and x >= left
    )  # fmt: skip
    for (_, old), (_, new) in zip(before[: mine + 1], after[: mine + 1], strict=True):
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a, b)


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
    for kind, rows, columns in plane_passes(plane, values.shape):
        hidden = np.where(known, values, 10**6).astype(np.int32)
        np.testing.assert_array_equal(
            smooth_prediction(hidden, kind, rows, columns),
            smooth_prediction(values, kind, rows, columns),
        )
        known[rows, columns] = True


def test_a_linear_ramp_is_predicted_exactly_inside():
    ramp = (np.arange(33)[:, None] * 8 + np.arange(33)[None] * 16).astype(np.int32)
    plane = planes_of([Band("b", 1, 2, smooth=True)])[0]
    for kind, rows, columns in plane_passes(plane, ramp.shape):
        if kind:
            error = ramp[rows, columns] - smooth_prediction(ramp, kind, rows, columns)
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
    assert smooth_prediction(plane, 1, slice(1, None, 2), slice(1, None, 2)) == [[mean]]


def test_parents_and_siblings_of_a_wavelet():
    planes = planes_of(wavelet_bands(2))
    first_fine = 12  # LL2, HL2, LH2, HH2 of three channels come before
    assert planes[first_fine].parents == (3,)
    assert planes[first_fine + 2].parents == (3, 5)
    assert planes[first_fine].siblings == ()
    assert planes[-1].siblings == tuple(range(12, 20))
    assert planes[3].siblings == ()  # the low-pass planes of the same stride do not count
    assert planes[3].features == 6
    assert planes[-1].features == 6 + 2 * (2 + 8)


def test_at_most_eleven_siblings_the_latest_ones():
    planes = planes_of([Band("a", 20, 8)])
    assert planes[19].siblings == tuple(range(8, 19))


def test_parent_features_are_of_the_place_at_half_resolution():
    bands = wavelet_bands(2, 1)
    latent = [np.zeros((1, 16 // b.stride, 16 // b.stride), np.int32) for b in bands]
    latent[1][0, 1, 2] = -300
    seen = dict(everything_seen(bands, latent))
    for top, left in ((0, 0), (1, 1), (0, 1), (1, 0)):
        magnitude, box = seen[(4, top, left, 2)][6:8]
        expected = np.zeros((4, 4), int)
        expected[1, 2] = LARGEST_MAGNITUDE
        np.testing.assert_array_equal(magnitude, expected)
        assert box[0:3, 1:4].min() == box.max() == LARGEST_MAGNITUDE
        assert box.sum() == 9 * LARGEST_MAGNITUDE


def test_sums_are_exact_integers_and_skip_zero_weights():
    features = [1, 100, np.full((2, 2), 2040, np.int32), np.arange(4, dtype=np.int32).reshape(2, 2)]
    weights = np.array([3, 2, 1024, 0], np.int32)
    np.testing.assert_array_equal(
        context_sum(features, weights, (2, 2)), np.full((2, 2), 3 + 200 + 2040 * 1024)
    )


def test_the_largest_possible_context_does_not_overflow():
    largest_box, features = 9 * LARGEST_MAGNITUDE, 6 + 2 * (2 + 11)
    array = np.full((1, 1), largest_box, np.int32)
    total = context_sum([array] * features, np.full(features, 1024, np.int32), (1, 1))
    assert int(total[0, 0]) == largest_box * 1024 * features


def test_bins_are_written_down():
    contexts = np.array([0, 2, 3, 4, 5, 8516, 8517, 2**30], np.int32)
    assert context_bins(contexts).tolist() == [0, 0, 2, 2, 3, 26, 27, 27]
    assert THRESHOLDS.tolist() == [
        3, 3, 5, 7, 9, 12, 17, 23, 31, 42, 58, 79, 108, 148, 202, 276, 376, 514, 702, 960, 1311,
        1790, 2446, 3341, 4564, 6235, 8517,
    ]  # fmt: skip
    assert len(THRESHOLDS) == BINS - 1


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 4096), (1, 4051), (63, 2070), (64, 2048), (293, 171), (640, 4)]
)
def test_inverse_steps_are_written_down(step, expected):
    assert inverse_step(step) == expected
    assert inverse_step(step) == pytest.approx(4096 / 2 ** (step / 64), rel=0.01, abs=1.0)


def test_smooth_bins_are_an_octave_and_a_kind():
    assert [smooth_bin(kind, 0) for kind in range(4)] == [0, 1, 2, 2]
    assert [smooth_bin(0, step) for step in (63, 64, 576, 640)] == [0, 3, 24, 24]
    assert max(smooth_bin(kind, 640) for kind in range(4)) < BINS
