"""Fitted networks and tables are valid, the same every time, and worth their bytes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from linocut.codec.codec import Codec
from linocut.entropy.coder import EntropyCoder
from linocut.entropy.contexts import LARGEST_WEIGHT, MAGNITUDE_INPUTS
from linocut.entropy.planes import Band, planes_of, wavelet_bands
from linocut.entropy.tables import BIN_SHIFT
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.fitting.build import shipped_tables
from linocut.lab.fitting.entropy_fit import (
    ContextNetworks,
    fit_networks,
    fit_tables,
    no_contexts,
    whole_frequencies,
)
from linocut.lab.fitting.refit import refit
from linocut.lab.networks.store import load_model, load_tensors
from linocut.models import folders as models
from linocut.pictures.image import write_png
from symbols import laplace_latent, written_tables

GOLDEN = Path(__file__).parents[2] / "golden" / "wavelet"

BANDS = wavelet_bands(2, 1)
SAMPLES = [(laplace_latent(BANDS, 64, 64, seed), 100 + 90 * seed) for seed in range(4)]


def fit(samples=SAMPLES, bands=BANDS, seed=0):
    networks = fit_networks(bands, samples, iterations=150, seed=seed)
    return fit_tables(bands, samples, networks)


@pytest.fixture(scope="module")
def fitted():
    return fit()


def test_every_row_sums_to_65536_without_a_zero(fitted):
    assert (fitted.frequencies.astype(np.int64).sum(-1) == 65536).all()
    assert fitted.frequencies.min() >= 1
    assert fitted.frequencies.dtype == np.uint16
    assert min(fitted.occupied.min(), fitted.agreement.min()) >= 1


def test_fitted_networks_are_in_small_whole_numbers(fitted):
    for network in (fitted.magnitude, fitted.sign):
        assert network.first.dtype == network.last.dtype == np.int16
        assert 8 < np.abs(network.first).max() <= LARGEST_WEIGHT


def test_the_same_samples_and_seed_give_the_same_tables(fitted):
    again, other = fit().tensors(), fit(seed=1).tensors()
    for name, array in fitted.tensors().items():
        np.testing.assert_array_equal(again[name], array)
    assert (other["tables.sign.first"] != fitted.sign.first).any()


def bits(tables, latent=None):
    latent = laplace_latent(BANDS, 64, 64, 50) if latent is None else latent
    return EntropyCoder(BANDS, tables).estimate_bits(latent, 200).sum()


def test_on_other_latents_contexts_beat_none_and_fitting_beats_guessing(fitted):
    without = fit_tables(BANDS, SAMPLES, no_contexts(BANDS))
    assert bits(fitted) < 0.97 * bits(without)
    known = [(latent, 200) for latent, _ in SAMPLES]  # without contexts a step knows itself alone
    alone = fit_tables(BANDS, known, no_contexts(BANDS))
    assert bits(alone) < bits(written_tables(BANDS))


def test_without_contexts_a_plane_that_was_always_empty_is_expected_to_be_nearly_so():
    tables = fit_tables(BANDS, [], no_contexts(BANDS))
    for plane, rows in zip(planes_of(BANDS), tables.frequencies, strict=True):
        zeros = rows[..., 0] / 65536
        assert (zeros < 0.3).all() if plane.smooth else (zeros > 0.9).all()


def test_without_contexts_the_tables_still_follow_the_step():
    planes = len(planes_of(BANDS))
    network = no_contexts(BANDS).magnitude
    steps = np.zeros((MAGNITUDE_INPUTS, 161), np.float32)
    steps[0] = np.arange(161)
    tables = network(steps, planes - 1, 3) >> BIN_SHIFT
    assert (tables[0], tables[-1]) == (0, 29)
    assert sorted(set(tables)) == list(range(30))
    assert (np.diff(tables) >= 0).all()


def agreeing(seed):
    """A latent in which neighbours of a row have the same sign."""
    rng = np.random.default_rng(seed)
    latent = laplace_latent(BANDS, 64, 64, seed)
    for band in latent[1:]:
        band[:] = np.abs(band) * rng.choice([-1, 1], (band.shape[0], band.shape[1], 1))
    return latent


def test_signs_that_follow_their_neighbours_cost_less_than_a_bit():
    samples = [(agreeing(seed), 200) for seed in range(4)]
    networks = fit_networks(BANDS, samples, iterations=300, seed=0)
    fitted = fit_tables(BANDS, samples, networks)
    blind = ContextNetworks(networks.magnitude, no_contexts(BANDS).sign, networks.shapes)
    latent = agreeing(50)
    signs = sum(np.count_nonzero(band) for band in latent[1:])
    assert bits(fit_tables(BANDS, samples, blind), latent) - bits(fitted, latent) > 0.3 * signs


def test_planes_that_never_hold_a_symbol_can_be_fitted():
    latent = SAMPLES[0][0]
    silent = [([*latent[:-1], np.zeros_like(latent[-1])], 640)]
    tables = fit(silent)
    assert tables.occupied[-1, -1] < 30_000
    assert EntropyCoder(BANDS, tables).encode(silent[0][0], 640)


def test_latents_smaller_than_the_passes_or_empty_can_be_fitted():
    bands = (Band("b", 1, 8),)
    fit([([np.ones((1, 1, 1), np.int32)], 0)], bands)
    fit([([np.zeros((1, 4, 4), np.int32)], 0)], bands)


def test_networks_can_be_kept_while_tables_are_fitted_again(fitted):
    again = fit_tables(BANDS, SAMPLES[:2], ContextNetworks.of(fitted))
    np.testing.assert_array_equal(again.magnitude.first, fitted.magnitude.first)
    assert (again.frequencies != fitted.frequencies).any()


def test_known_table_indices_give_the_same_tables(fitted):
    coder, networks = EntropyCoder(BANDS, fitted), ContextNetworks.of(fitted)
    latents = [coder.dequantise(latent, index) for latent, index in SAMPLES[:2]]
    found = [coder.optimise(latent, 200, 0.1) for latent in latents]
    samples = [(symbols, 200) for symbols, _ in found]
    again = fit_tables(BANDS, samples, networks, [bins for _, bins in found])
    for name, array in fit_tables(BANDS, samples, networks).tensors().items():
        np.testing.assert_array_equal(again.tensors()[name], array)


def test_networks_that_begin_with_others_learn_on_from_there(fitted):
    start = ContextNetworks.of(fitted)
    cold = fit_networks(BANDS, SAMPLES, iterations=120, seed=3)
    warm = fit_networks(BANDS, SAMPLES, iterations=120, seed=3, start=start)
    costs = [bits(fit_tables(BANDS, SAMPLES, networks)) for networks in (start, warm, cold)]
    assert costs[1] < 1.02 * costs[0]
    assert costs[1] < costs[2]


def test_a_codec_is_fitted_anew_and_keeps_its_network(tmp_path):
    crops = np.stack([dead_leaves(64, 64, seed) for seed in range(3)])
    np.save(tmp_path / "train.npy", crops)
    (tmp_path / "validation").mkdir()
    write_png(tmp_path / "validation" / "a.png", crops[0])
    out = tmp_path / "new"
    places = (GOLDEN, tmp_path / "train.npy", tmp_path / "validation", out)
    refit(*places, count=2, iterations=3, seed=0)
    old, new = load_tensors(GOLDEN), load_tensors(out)
    assert set(old) == set(new)
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert {"tables.frequencies", "tables.magnitude.first"} <= changed
    assert all(name.startswith("tables.") for name in changed)
    codec = Codec.load(out)
    assert codec.decompress(codec.compress(crops[1], step=20.0)).shape == (64, 64, 3)


@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=60))
def test_whole_frequencies_are_whole_positive_and_sum_to_65536(weights):
    whole = whole_frequencies(np.array(weights)).astype(np.int64)
    assert whole.sum() == 65536
    assert whole.min() >= 1
    shares = np.array(weights) / sum(weights) * (65536 - len(weights))
    assert np.abs(whole - 1 - shares).max() <= 1.0 + 1e-6


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"loss": "ms_ssim"}, "cae-ms_ssim"),
        ({"loss": "ms_ssim", "continues": "cae-l2"}, "cae-l2"),
        ({"loss": "of one's own"}, "cae-l2"),
    ],
)
def test_tables_begin_with_those_of_the_codec_that_is_continued(about, expected):
    folder = models.folder_of(expected)
    begun = shipped_tables(load_model(folder), about)
    assert begun is not None
    known = load_tensors(folder)
    found = begun.tensors()
    assert all(np.array_equal(array, known[name].numpy()) for name, array in found.items())
