"""Steps lie on the grid that files store; rounding has the dead zone it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linocut.entropy.quantization import (
    LARGEST_SYMBOL,
    STEPS_PER_OCTAVE,
    dequantise,
    quantise,
    step_index,
    step_of,
)
from linocut.errors import DataError
from linocut.format.bitstream import MAX_STEP_INDEX


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


def test_half_rounds_to_nearest():
    r = np.array([-2.6, -2.4, -0.6, -0.4, 0.0, 0.4, 0.6, 2.4, 2.6], np.float32)
    np.testing.assert_array_equal(quantise(r, 1.0), [-3, -2, -1, 0, 0, 0, 1, 2, 3])


def test_less_than_half_widens_the_zero_bin_only_at_its_edges():
    r = np.linspace(-3, 3, 6001).astype(np.float32)
    zero = np.abs(r[quantise(r, 1.0, 0.4) == 0])
    assert zero.max() == pytest.approx(0.6, abs=0.002)
    one = r[quantise(r, 1.0, 0.4) == 1]
    assert (one.min(), one.max()) == (pytest.approx(0.6, abs=0.002), pytest.approx(1.6, abs=0.002))


@pytest.mark.parametrize("rounding", [0.5, 0.42, 0.33])
def test_quantisation_is_odd(rounding):
    r = np.random.default_rng(0).normal(0, 50, 1000).astype(np.float32)
    np.testing.assert_array_equal(quantise(-r, 7.0, rounding), -quantise(r, 7.0, rounding))


@given(st.floats(1.0, 1024.0), st.integers(0, 2**32 - 1))
def test_error_is_at_most_half_a_step(step, seed):
    r = np.random.default_rng(seed).normal(0, 4 * step, 50).astype(np.float32)
    error = np.abs(dequantise(quantise(r, step), step) - r)
    assert error.max() <= step * (0.5 + 1e-5)


def test_what_lies_beyond_the_largest_symbol_is_clipped():
    r = np.array([-1e9, 1e9, np.float32(3e38)], np.float32)
    np.testing.assert_array_equal(
        quantise(r, 1.0), [-LARGEST_SYMBOL, LARGEST_SYMBOL, LARGEST_SYMBOL]
    )
