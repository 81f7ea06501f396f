"""Reed-Solomon: the code of the textbooks, repaired to its limit, and honest beyond it."""

import numpy as np
import pytest
import reedsolo
from hypothesis import given
from hypothesis import strategies as st

from linocut.format.resilient import LONGEST, protect, protected_length, recover

PARITIES = (2, 3, 24, 32, 64, 96)


def noise(seed, length):
    return np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8).tobytes()


def hit(area, places, seed=0):
    """The same bytes with others at these places."""
    damaged = np.frombuffer(area, np.uint8).copy()
    damaged[places] ^= np.random.default_rng(seed).integers(1, 256, len(places), dtype=np.uint8)
    return damaged.tobytes()


@pytest.mark.parametrize("parity", PARITIES)
@pytest.mark.parametrize("length", [1, 17, 159])
def test_codewords_are_those_of_another_library(parity, length):
    data = noise(length, length)
    assert protect(data, parity) == bytes(reedsolo.RSCodec(parity).encode(data))


@given(st.integers(0, 1500), st.sampled_from(PARITIES))
def test_undamaged_data_comes_back(length, parity):
    data = noise(length, length)
    area = protect(data, parity)
    assert len(area) == protected_length(length, parity)
    found, sound, repaired = recover(area, length, parity)
    assert found == data
    assert sound.all()
    assert repaired == 0


@given(st.integers(1, 1500), st.sampled_from(PARITIES), st.integers(0, 2**32))
def test_half_the_parity_of_every_codeword_is_repaired(length, parity, seed):
    data = noise(seed, length)
    area = protect(data, parity)
    count = -(-length // (LONGEST - parity))
    rng = np.random.default_rng(seed)
    places, start = [], 0
    for number in range(count):
        size = length // count + (number < length % count) + parity
        places += (start + rng.choice(size, parity // 2, replace=False)).tolist()
        start += size
    assert start == len(area)
    found, sound, repaired = recover(hit(area, places, seed), length, parity)
    assert found == data
    assert sound.all()
    assert repaired == len(places)


def test_a_burst_beyond_repair_spoils_its_codeword_only():
    data = noise(3, 223 * 4)
    area = protect(data, 32)
    found, sound, repaired = recover(hit(area, range(260, 300)), len(data), 32)
    assert sound.tolist() == [True] * 223 + [False] * 223 + [True] * 446
    assert np.array_equal(
        np.frombuffer(found, np.uint8)[sound], np.frombuffer(data, np.uint8)[sound]
    )
    assert repaired == 0


def test_what_is_called_sound_is_sound_under_any_damage():
    data = noise(4, 20_000)
    area = protect(data, 24)
    for seed, share in enumerate((0.03, 0.05, 0.06, 0.2, 1.0)):
        places = np.flatnonzero(np.random.default_rng(seed).random(len(area)) < share)
        found, sound, _ = recover(hit(area, places, seed), len(data), 24)
        assert bytes(np.frombuffer(found, np.uint8)[sound]) == bytes(
            np.frombuffer(data, np.uint8)[sound]
        )
        assert 0 < sound.mean() < 1 or share in (0.2, 1.0, 0.03)


@pytest.mark.parametrize("length", [0, 1, 200, 254, 255, 300, 700, 1019])
def test_a_missing_end_leaves_the_codewords_before_it(length):
    data = noise(5, 231 * 4)
    area = protect(data, 24)
    found, sound, _ = recover(area[:length], len(data), 24)
    assert sound.tolist() == [True] * (231 * (length // 255)) + [False] * min(length % 255, 231)
    assert data.startswith(found)


def test_a_length_that_the_bytes_cannot_have_costs_nothing():
    found, sound, repaired = recover(b"abc", 2**60, 32)
    assert (found, sound.tolist(), repaired) == (b"abc", [False] * 3, 0)
