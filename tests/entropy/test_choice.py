"""Choosing symbols by their price costs fewer bits for the same error, and never a wrong file."""

import numpy as np
import pytest

from linocut.entropy.choice import EFFORTS, PRICE, choose_symbols, optimise
from linocut.entropy.coder import EntropyCoder
from linocut.entropy.planes import step_of, wavelet_bands
from linocut.errors import DataError
from linocut.lab.fitting.entropy_fit import fit_networks, fit_tables
from symbols import laplace_latent

BANDS = wavelet_bands(2, 1)
INDEX = 256  # step 16


@pytest.fixture(scope="module")
def coder():
    samples = [(laplace_latent(BANDS, 64, 64, seed), INDEX) for seed in range(3)]
    networks = fit_networks(BANDS, samples, iterations=60, seed=0)
    return EntropyCoder(BANDS, fit_tables(BANDS, samples, networks))


@pytest.fixture(scope="module")
def latent():
    noise = np.random.default_rng(0)
    symbols = laplace_latent(BANDS, 64, 64, 9)
    return [
        (step_of(INDEX) * (band + noise.uniform(-0.5, 0.5, band.shape))).astype(np.float32)
        for band in symbols
    ]


def cost(coder, latent, symbols, price=PRICE):
    """What is minimised: squared error in steps, plus the price of the bits."""
    step = step_of(INDEX)
    error = sum(
        np.square(band / step - chosen).sum() for band, chosen in zip(latent, symbols, strict=True)
    )
    return error + price * coder.estimate_bits(symbols, INDEX).sum()


def test_optimised_symbols_cost_less_than_rounded_ones(coder, latent):
    chosen = [choose_symbols(coder, latent, INDEX, effort)[0] for effort in EFFORTS]
    costs = [cost(coder, latent, symbols) for symbols in chosen]
    assert costs[2] < min(costs[:2])
    bits = [coder.estimate_bits(symbols, INDEX).sum() for symbols in chosen]
    assert bits[2] < bits[0]


def test_magnitudes_only_fall_and_signs_never_change(coder, latent):
    nearest, _ = choose_symbols(coder, latent, INDEX, 0)
    for before, after in zip(nearest, optimise(coder, latent, INDEX)[0], strict=True):
        assert (np.abs(after) <= np.abs(before)).all()
        assert (after * before >= 0).all()


def test_free_bits_are_rounding_to_nearest_in_details(coder, latent):
    nearest, _ = choose_symbols(coder, latent, INDEX, 0)
    for before, after in zip(nearest[1:], optimise(coder, latent, INDEX, 0.0)[0][1:], strict=True):
        assert (np.abs(after - before) <= 1).all()
        assert (after != before).mean() < 0.01  # halves may go either way


def test_optimised_symbols_survive_the_coder(coder, latent):
    symbols, _ = optimise(coder, latent, INDEX)
    decoded = coder.decode(coder.encode(symbols, INDEX), 64, 64, INDEX)
    for a, b in zip(symbols, decoded, strict=True):
        np.testing.assert_array_equal(a, b)


def test_unknown_levels_are_refused(coder, latent):
    with pytest.raises(DataError, match=r"effort is 9, expected one of \[0, 1, 2, 3\]"):
        choose_symbols(coder, latent, INDEX, 9)


def test_table_indices_met_on_the_way_are_those_of_the_coder(coder, latent):
    symbols, bins = optimise(coder, latent, INDEX)
    with_bins, bits = coder.encode_counted(symbols, INDEX, bins)
    assert with_bins == coder.encode(symbols, INDEX)
    np.testing.assert_array_equal(bits, coder.estimate_bits(symbols, INDEX))
