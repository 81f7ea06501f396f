"""The quantisers in force follow from the symbols, and the path that is found is the cheapest."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linocut.entropy.contexts import BINS
from linocut.entropy.tables import TOKEN_EXTRA_BITS, TOKENS, tokens_of
from linocut.entropy.trellis import (
    LARGEST_MAGNITUDE,
    QUANTISERS,
    STATES,
    cheapest_path,
    level_of,
    magnitudes_of,
    next_state,
    path_of,
)


def one_by_one(magnitudes, state):
    path = []
    for magnitude in magnitudes:
        path.append(state & 1)
        state = next_state(state, magnitude)
    return path, state


@given(st.lists(st.integers(0, 70_000), max_size=60), st.integers(0, STATES - 1))
def test_the_path_is_that_of_one_step_after_the_other(magnitudes, state):
    path, end = path_of(np.array(magnitudes, np.int32), state)
    assert (path.tolist(), end) == one_by_one(magnitudes, state)


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 40), st.integers(0, STATES - 1))
def test_a_path_may_be_followed_in_parts(magnitudes, cut, state):
    first, middle = path_of(np.array(magnitudes[:cut], np.int32), state)
    second, end = path_of(np.array(magnitudes[cut:], np.int32), middle)
    whole, whole_end = path_of(np.array(magnitudes, np.int32), state)
    assert (first.tolist() + second.tolist(), end) == (whole.tolist(), whole_end)


def test_both_parities_lead_to_different_states_and_every_state_is_reached_twice():
    reached = [next_state(state, parity) for state in range(STATES) for parity in range(2)]
    assert sorted(reached) == sorted([*range(STATES)] * 2)


@pytest.mark.parametrize("quantiser", range(QUANTISERS))
def test_magnitudes_are_found_again_from_levels(quantiser):
    magnitudes = np.array([0, 1, 2, 3, LARGEST_MAGNITUDE])
    levels = np.array([level_of(quantiser, int(k)) for k in magnitudes])
    np.testing.assert_array_equal(magnitudes_of(levels), magnitudes)
    np.testing.assert_array_equal(magnitudes_of(-levels), magnitudes)
    assert ((levels & 1)[1:] == quantiser).all()


def cost(sizes, magnitudes, bins, lengths, price, state):
    path, _ = one_by_one(magnitudes, state)
    total = 0.0
    for size, k, table, quantiser in zip(sizes, magnitudes, bins, path, strict=True):
        token = int(tokens_of(np.array(k)))
        bits = lengths[quantiser, table, token] + TOKEN_EXTRA_BITS[token] + (k > 0)
        total += (size - level_of(quantiser, k)) ** 2 + price * bits
    return total


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("price", [0.0, 0.2, 1.0])
def test_no_other_path_is_cheaper(seed, price):
    rng = np.random.default_rng(seed)
    sizes = np.abs(rng.laplace(0, 2, 5)).astype(np.float32)
    bins = rng.integers(0, BINS, 5).astype(np.uint8)
    lengths = rng.uniform(0.5, 1.0, (QUANTISERS, BINS, TOKENS)).cumsum(-1).astype(np.float32)
    state = int(rng.integers(STATES))
    levels, end = cheapest_path(sizes, bins, lengths, price, state)
    magnitudes = magnitudes_of(levels).tolist()
    path, expected_end = one_by_one(magnitudes, state)
    assert levels.tolist() == [level_of(*pair) for pair in zip(path, magnitudes, strict=True)]
    assert end == expected_end
    found = cost(sizes, magnitudes, bins, lengths, price, state)
    every = itertools.product(*(range(int(size / 2) + 3) for size in sizes))
    best = min(cost(sizes, other, bins, lengths, price, state) for other in every)
    assert found <= best + 1e-4


def test_the_error_is_about_a_decibel_less_than_that_of_either_quantiser():
    sizes = np.random.default_rng(0).uniform(50, 90, 4000).astype(np.float32)
    lengths = np.zeros((QUANTISERS, BINS, TOKENS), np.float32)
    levels, _ = cheapest_path(sizes, np.zeros(len(sizes), np.uint8), lengths, 0.0, 0)
    gain = 10 * np.log10(4 / 12 / np.mean((sizes - levels) ** 2))
    assert 0.9 < gain < 1.2


def test_sizes_beyond_all_levels_are_clipped():
    sizes = np.array([1e9, 3e38, np.inf], np.float32)[:2]
    levels, _ = cheapest_path(
        sizes, np.zeros(2, np.uint8), np.zeros((QUANTISERS, BINS, TOKENS), np.float32), 0.1, 0
    )
    assert levels.min() > 2 * LARGEST_MAGNITUDE - 8
    assert levels.max() <= 2**15 - 1
