"""Fitted tables are valid, the same every time, and worth their bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from linocut.entropy import EntropyCoder
from linocut.entropy_fit import LARGEST_WEIGHT, _small_nnls, fit_tables, whole_frequencies
from linocut.latents import Band, wavelet_bands
from symbols import laplace_latent, written_tables

BANDS = wavelet_bands(2, 1)
SAMPLES = [(laplace_latent(BANDS, 64, 64, seed), 100 + 90 * seed) for seed in range(4)]


@pytest.fixture(scope="module")
def fitted():
    return fit_tables(BANDS, SAMPLES)


def test_every_row_sums_to_65536_without_a_zero(fitted):
    assert (fitted.frequencies.astype(np.int64).sum(-1) == 65536).all()
    assert fitted.frequencies.min() >= 1
    assert fitted.frequencies.dtype == np.uint16
    assert fitted.occupied.min() >= 1
    assert fitted.weights.dtype == np.int32


def test_weights_are_small_natural_numbers(fitted):
    assert fitted.weights.min() >= 0
    assert fitted.weights.max() <= LARGEST_WEIGHT
    assert fitted.weights[1:, :, 0].min() >= 1  # details have a constant
    assert not fitted.weights[0].any()  # the smooth plane has no contexts


def test_the_same_samples_give_the_same_tables(fitted):
    again = fit_tables(BANDS, SAMPLES)
    for name in ("weights", "frequencies", "occupied"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted, name))


def bits(tables, seed=50):
    coder = EntropyCoder(BANDS, tables)
    return coder.estimate_bits(laplace_latent(BANDS, 64, 64, seed), 200).sum()


def test_on_other_latents_contexts_beat_none_and_fitting_beats_guessing(fitted):
    without = fit_tables(BANDS, SAMPLES, contexts=False)
    assert bits(fitted) < 0.98 * bits(without)
    assert bits(without) < bits(written_tables(BANDS))


def test_planes_that_never_hold_a_symbol_can_be_fitted():
    latent = SAMPLES[0][0]
    silent = [([*latent[:-1], np.zeros_like(latent[-1])], 640)]
    tables = fit_tables(BANDS, silent)
    assert tables.occupied[-1, -1] < 30_000
    assert EntropyCoder(BANDS, tables).encode(silent[0][0], 640)


def test_latents_smaller_than_the_passes_can_be_fitted():
    tiny = [([np.ones((1, 1, 1), np.int32)], 0)]
    fit_tables((Band("b", 1, 8),), tiny)


@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=60))
def test_whole_frequencies_are_whole_positive_and_sum_to_65536(weights):
    whole = whole_frequencies(np.array(weights)).astype(np.int64)
    assert whole.sum() == 65536
    assert whole.min() >= 1
    shares = np.array(weights) / sum(weights) * (65536 - len(weights))
    assert np.abs(whole - 1 - shares).max() <= 1.0 + 1e-6


def test_small_nnls_is_nnls():
    rng = np.random.default_rng(0)
    a, x = rng.uniform(size=(500, 6)), np.array([1.0, 0.0, 2.0, -1.0, 0.5, 0.0])
    b = a @ x + rng.normal(0, 0.1, 500)
    np.testing.assert_allclose(_small_nnls(a, b), nnls(a, b)[0], atol=1e-5)
