"""Choosing symbols by their price costs fewer bits for the same error, and never a wrong file."""

import numpy as np
import pytest

from linocut.entropy.choice import EFFORTS, PRICE, choose_symbols, optimise
from linocut.entropy.coder import EntropyCoder
from linocut.entropy.planes import SPACING, step_of, wavelet_bands
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
    pairs = zip(latent, coder.dequantise(symbols, INDEX), strict=True)
    error = sum(np.square((band - decoded) / step_of(INDEX)).sum() for band, decoded in pairs)
    return error + price * coder.estimate_bits(symbols, INDEX).sum()


def test_prices_lower_the_cost_and_the_bits(coder, latent):
    least, priced = (choose_symbols(coder, latent, INDEX, effort)[0] for effort in (0, 1))
    assert cost(coder, latent, priced) < cost(coder, latent, least)
    bits = [coder.estimate_bits(symbols, INDEX).sum() for symbols in (least, priced)]
    assert bits[1] < bits[0]


def test_higher_efforts_choose_like_the_first(coder, latent):
    first, *others = (choose_symbols(coder, latent, INDEX, effort)[0] for effort in EFFORTS[1:])
    for symbols in others:
        for a, b in zip(first, symbols, strict=True):
            np.testing.assert_array_equal(a, b)


def test_signs_never_change(coder, latent):
    for before, after in zip(latent, optimise(coder, latent, INDEX)[0], strict=True):
        assert (after * before >= 0).all()


def test_free_bits_make_errors_smaller_than_rounding_to_the_levels_of_one_quantiser(coder, latent):
    symbols, _ = optimise(coder, latent, INDEX, 0.0)
    decoded = coder.dequantise(symbols, INDEX)
    errors = np.concatenate([(a - b).ravel() for a, b in zip(decoded[1:], latent[1:], strict=True)])
    assert np.square(errors).mean() < 0.85 * (2 * SPACING * step_of(INDEX)) ** 2 / 12


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
