"""Contexts are causal, and their networks give the same whole numbers however they are computed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linocut.entropy.contexts import (
    BINS,
    LARGEST_BIAS,
    LARGEST_MAGNITUDE,
    LARGEST_WEIGHT,
    MAGNITUDE_INPUTS,
    SIGN_INPUTS,
    ContextNetwork,
    ContextState,
    levels_of,
    signed_levels,
    smooth_bin,
)
from linocut.entropy.planes import Band, plane_passes, planes_of, smooth_prediction, wavelet_bands
from symbols import laplace_latent, random_network

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
        for step_of_plane in plane_passes(planes[index], values.shape):
            _, rows, columns = step_of_plane
            place = (index, rows.start, columns.start, rows.step)
            actual = values[rows, columns]
            if planes[index].smooth:
                prediction = smooth_prediction(values, step_of_plane)
                result.append((place, [prediction]))
                state.put(step_of_plane, actual - prediction)
            else:
                everywhere = np.arange(actual.size)
                arrays = [state.magnitude_contexts(index, step_of_plane, everywhere)]
                arrays.append(state.sign_contexts(index, step_of_plane, everywhere))
                result.append((place, [array.reshape(-1, *actual.shape) for array in arrays]))
                state.put(step_of_plane, actual)
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


def test_parent_levels_are_of_the_place_at_half_resolution():
    bands = wavelet_bands(2, 1)
    latent = [np.zeros((1, 16 // b.stride, 16 // b.stride), np.int32) for b in bands]
    latent[1][0, 1, 2] = -300
    seen = dict(everything_seen(bands, latent))
    for top, left in ((0, 0), (1, 1), (0, 1), (1, 0)):
        magnitude, box = seen[(4, top, left, 2)][0][8:10]
        expected = np.zeros((4, 4), int)
        expected[1, 2] = 16 * 8  # 16 log2(1 + 255)
        np.testing.assert_array_equal(magnitude, expected)
        assert box[0:3, 1:4].min() == box.max() == 16 * 8
        assert np.count_nonzero(box) == 9
        parent = seen[(4, top, left, 2)][1][12:17]
        np.testing.assert_array_equal(parent[0], -expected)
        assert [int((plane != 0).sum()) for plane in parent] == [1] * 5


def test_levels_are_written_down():
    numbers = np.array([0, 1, 2, 3, 4, 7, 15, 255, 9 * 255])
    assert levels_of(numbers).tolist() == [0, 16, 24, 32, 36, 48, 64, 128, 177]
    assert signed_levels(np.array([-255, -1, 0, 2])).tolist() == [-128, -16, 0, 24]


def test_levels_are_logarithms_that_never_fall():
    numbers = np.arange(9 * LARGEST_MAGNITUDE + 1)
    levels = levels_of(numbers)
    assert (np.diff(levels) >= 0).all()
    assert np.abs(levels - 16 * np.log2(1 + numbers)).max() <= 2.4


@pytest.mark.parametrize("name", LATENTS)
def test_turning_all_signs_turns_the_sign_contexts_and_nothing_else(name):
    bands = LATENTS[name]
    latent = laplace_latent(bands, HEIGHT, WIDTH, 4)
    turned = [-band for band in latent]
    planes = planes_of(bands)
    pairs = zip(everything_seen(bands, latent), everything_seen(bands, turned), strict=True)
    for (place, before), (_, after) in pairs:
        if not planes[place[0]].smooth:
            np.testing.assert_array_equal(before[0], after[0])
            np.testing.assert_array_equal(before[1], -after[1])


@pytest.mark.parametrize("name", LATENTS)
def test_contexts_are_whole_numbers_that_fit_the_networks(name):
    bands = LATENTS[name]
    latent = laplace_latent(bands, HEIGHT, WIDTH, 4, spread=500.0)
    planes = planes_of(bands)
    for place, arrays in everything_seen(bands, latent, step=640):
        if not planes[place[0]].smooth:
            assert [len(array) for array in arrays] == [MAGNITUDE_INPUTS, SIGN_INPUTS]
            assert all((array == np.round(array)).all() for array in arrays)
            assert max(float(np.abs(array).max()) for array in arrays) <= 255


def test_signs_are_read_at_the_chosen_places_only():
    planes = planes_of([Band("a", 1, 8)])
    state = ContextState(planes, [(6, 7)], 0)
    values = np.arange(42, dtype=np.int32).reshape(6, 7) - 20
    state.open(0)
    passes = list(plane_passes(planes[0], (6, 7)))
    for place in passes[:2]:
        state.put(place, values[place.rows, place.columns])
    chosen = np.array([0, 5])  # rows 0, 2, 4 and columns 1, 3, 5: (0, 1) and (2, 5)
    seen = state.sign_contexts(0, passes[2], chosen)
    np.testing.assert_array_equal(seen[0], signed_levels(values[[0, 2], [0, 4]]))
    np.testing.assert_array_equal(seen[3], signed_levels(values[[1, 3], [1, 5]]))


def test_smooth_bins_are_an_octave_and_a_kind():
    assert [smooth_bin(kind, 0) for kind in range(4)] == [0, 1, 2, 2]
    assert [smooth_bin(0, step) for step in (63, 64, 576, 640)] == [0, 3, 27, 27]
    assert max(smooth_bin(kind, 640) for kind in range(4)) < BINS


@pytest.mark.parametrize("name", LATENTS)
@pytest.mark.parametrize("shape", [(40, 56), (24, 40), (72, 8)])
def test_contexts_are_quiet_everywhere_but_at_busy_places(name, shape):
    bands = LATENTS[name]
    rng = np.random.default_rng(3)
    latent = [band * (rng.random(band.shape) < 0.03) for band in laplace_latent(bands, *shape, 0)]
    planes = planes_of(bands)
    symbols = [band[c] for band in latent for c in range(len(band))]
    state = ContextState(planes, [plane.shape for plane in symbols], 300)
    quiet = 0
    for index, values in enumerate(symbols):
        state.open(index)
        for place in plane_passes(planes[index], values.shape):
            actual = values[place.rows, place.columns]
            if not planes[index].smooth:
                contexts = state.magnitude_contexts(index, place, np.arange(actual.size))
                loud = np.flatnonzero((contexts != state.quiet_context()).any(0))
                busy = state.busy(index, place)
                assert set(loud) <= set(busy)
                quiet += actual.size - len(busy)
            state.put(place, actual)
        state.close(index)
    assert quiet > 0


def in_integers(network, x, plane, kind):
    """The same by Python's integers of any size."""
    x = x.astype(int)
    sums = network.first[plane].astype(object) @ x + network.first_bias[plane, kind][:, None]
    hidden = np.clip((sums.astype(int) >> 8), 0, 255)
    sums = network.second.astype(object) @ hidden + network.second_bias[:, None]
    hidden = np.clip((sums.astype(int) >> 8), 0, 255)
    return network.last.astype(object) @ hidden + network.last_bias[plane, kind]


@pytest.mark.parametrize("seed", range(3))
def test_float_products_are_exact(seed):
    network = random_network(2, 28, seed, hidden=16)
    x = np.random.default_rng(seed).integers(-178, 256, (28, 500)).astype(np.float32)
    for plane, kind in ((0, 0), (1, 3)):
        expected = in_integers(network, x, plane, kind)
        np.testing.assert_array_equal(network(x, plane, kind), expected)


def extreme(hidden, inputs, sign=1):
    weight, bias = sign * LARGEST_WEIGHT, sign * LARGEST_BIAS
    return ContextNetwork(
        np.full((1, hidden, inputs), weight, np.int16), np.full((1, 4, hidden), bias, np.int32),
        np.full((hidden, hidden), weight, np.int16), np.full(hidden, bias, np.int32),
        np.full(hidden, weight, np.int16), np.full((1, 4), bias, np.int32),
    )  # fmt: skip


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_are_exact_too(sign):
    network = extreme(48, 48, sign)
    x = np.full((48, 3), 255, np.float32)
    x[0, 1], x[1, 2] = 254, 0
    np.testing.assert_array_equal(network(x, 0, 0), in_integers(network, x, 0, 0))


def test_odd_turns_with_its_inputs():
    network = random_network(1, 25, 5, hidden=8)
    x = np.random.default_rng(0).integers(-128, 129, (25, 200)).astype(np.float32)
    values = network.odd(x, 0, 2)
    np.testing.assert_array_equal(network.odd(-x, 0, 2), -values)
    assert not network.odd(np.zeros((25, 1), np.float32), 0, 2).any()
    assert values.any()


def test_networks_that_could_round_are_refused():
    with pytest.raises(ValueError, match="49 inputs and 2 hidden numbers, expected at most 48"):
        extreme(2, 49)
    network = extreme(2, 3)
    parts = [getattr(network, name) for name in network.__dataclass_fields__]
    parts[0] = parts[0] + np.int16(1)
    with pytest.raises(ValueError, match="first holds 1024, expected at most 1023"):
        ContextNetwork(*parts)
    parts[0] = network.first[:, :, 0]
    with pytest.raises(ValueError, match="expected 3 axes"):
        ContextNetwork(*parts)
    parts[0] = network.first
    parts[2] = network.second[:1]
    with pytest.raises(ValueError, match=r"second is \(1, 2\), expected \(2, 2\)"):
        ContextNetwork(*parts)


def test_tensors_bring_the_network_back():
    network = random_network(2, 6, 0)
    again = ContextNetwork.from_tensors(network.tensors("a.b"), "a.b")
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.testing.assert_array_equal(network(x, 1, 1), again(x, 1, 1))
