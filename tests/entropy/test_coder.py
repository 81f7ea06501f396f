"""The entropy coder loses nothing, costs what its integer tables promise, and never changes."""

import hashlib

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_decoder
from linocut.entropy.coder import EntropyCoder
from linocut.entropy.passes import exact_model
from linocut.entropy.planes import Band, wavelet_bands
from linocut.entropy.tables import (
    TOKEN_EXTRA_BITS,
    TOKEN_START,
    TOKENS,
    EntropyTables,
    tokens_of,
)
from linocut.entropy.trellis import LARGEST_MAGNITUDE
from linocut.errors import BitstreamError
from linocut.lab.fitting.entropy_fit import whole_frequencies
from symbols import laplace_latent, on_the_path, random_tables, written_tables

WAVELET = wavelet_bands(2, 2)
PLAIN = tuple(Band(name, 3, 4) for name in "ab")
CODERS = {
    "wavelet": EntropyCoder(WAVELET, random_tables(WAVELET)),
    "plain": EntropyCoder(PLAIN, random_tables(PLAIN, 1)),
}
MOST = LARGEST_MAGNITUDE


def assert_equal(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@st.composite
def latents(draw, bands):
    """Of any size, with planes that are empty, sparse, or full of extreme values."""
    height, width = (4 * draw(st.integers(1, 9)) for _ in range(2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    result = []
    for band in bands:
        shape = (band.channels, height // band.stride, width // band.stride)
        most = draw(st.sampled_from([0, 1, 16, 300, MOST]))
        values = rng.integers(-most, most + 1, shape)
        values[rng.uniform(size=shape) < draw(st.sampled_from([0.0, 0.5, 0.99]))] = 0
        values[draw(st.integers(0, band.channels - 1))] = 0
        result.append(values.astype(np.int32))
    return on_the_path(bands, result), height, width


@pytest.mark.parametrize("name", CODERS)
@settings(deadline=None, max_examples=30)
@given(data=st.data(), step=st.integers(0, 640))
def test_symbols_come_back_at_no_more_than_the_ideal_cost(name, data, step):
    """It may be less: zeros at the end of a payload are not written, and empty planes are zeros."""
    coder = CODERS[name]
    latent, height, width = data.draw(latents(coder.bands))
    payload = coder.encode(latent, step)
    assert_equal(coder.decode(payload, height, width, step), latent)
    assert 8 * len(payload) <= 1.01 * coder.estimate_bits(latent, step).sum() + 64


@pytest.mark.parametrize("name", CODERS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_the_estimate_is_within_1_percent_and_64_bits_of_the_bytes(name, spread):
    coder = CODERS[name]
    latent = laplace_latent(coder.bands, 64, 80, 2, spread)
    latent[-1][-1, -4:] = 3  # zeros at the end would cost nothing
    latent = on_the_path(coder.bands, latent)
    size = 8 * len(coder.encode(latent, 200))
    assert abs(size - coder.estimate_bits(latent, 200).sum()) <= 0.01 * size + 64


@pytest.mark.parametrize("value", [-MOST, MOST])
def test_the_largest_symbols_survive_next_to_their_opposites(value):
    """Residuals of a smooth plane are then twice as large as any symbol."""
    coder = CODERS["wavelet"]
    latent = laplace_latent(WAVELET, 64, 64, 0)
    for band in latent:
        band[:, ::2] = value
        band[:, 1::2] = -value
    latent = on_the_path(WAVELET, latent)
    assert_equal(coder.decode(coder.encode(latent, 0), 64, 64, 0), latent)


@pytest.mark.parametrize("name", CODERS)
def test_a_decoder_written_from_the_document_gives_the_same_symbols(name):
    coder = CODERS[name]
    latent = laplace_latent(coder.bands, 40, 28, 3, spread=20.0)
    latent[-1][0] = 0
    payload = coder.encode(latent, 293)
    bands = [(b.channels, b.stride, b.parent, b.smooth) for b in coder.bands]
    tables = {
        key: (list(array.shape), array.ravel().tolist())
        for key, array in coder.tables.tensors().items()
    }
    decoded = reference_decoder.Latent(payload, bands, tables, (40, 28), 293).planes
    planes = [band[c] for band in latent for c in range(len(band))]
    assert decoded == [plane.tolist() for plane in planes]


def test_golden_bytes():
    """Written down once, never edited: a change here is a change of the format."""
    coder = EntropyCoder(wavelet_bands(1, 2), written_tables(wavelet_bands(1, 2)))
    numbers = np.arange(2 * 4 * 6 * 4, dtype=np.int64)
    values = (numbers * 7919 + numbers**2 * 104729) % 23 - 11
    values[numbers % 5 == 0] = 0
    values[50], values[100], values[101] = 1000, -MOST, 20
    latent = [band.astype(np.int32) for band in values.reshape(4, 2, 4, 6)]
    latent[2][1] = 0
    latent = on_the_path(coder.bands, latent)
    payload = coder.encode(latent, 293)
    assert payload.hex() == GOLDEN
    assert_equal(coder.decode(payload, 8, 12, 293), latent)


GOLDEN = (
    "e9ba7936bca6c064cbc5aaf80aec4ee35f0c60b94207a90013a21fb8fc9b44d582a48a71"
    "7af4eb9b838171ae70125fb5f896f7051f9eada0258fc8404c9a0e7500c6a47b03626fbd"
    "cd2156c10bb1d8c08ac9b183d2fda0bca690fe99f2d3af8ed398982a53cfbaa50a411864"
    "aa34b612"
)


def test_golden_digest_of_a_larger_latent():
    coder = EntropyCoder(wavelet_bands(2), written_tables(wavelet_bands(2)))
    latent = []
    for position, band in enumerate(coder.bands):
        shape = (band.channels, 64 // band.stride, 96 // band.stride)
        numbers = np.arange(int(np.prod(shape)), dtype=np.int64) + 1000 * position
        values = (numbers * 48271 % 2147483647 * 69621 % 2147483647) % 9 - 4
        latent.append((values // 2).reshape(shape).astype(np.int32))
    latent = on_the_path(coder.bands, latent)
    payload = coder.encode(latent, 100)
    assert (len(payload), hashlib.sha256(payload).hexdigest()[:16]) == DIGEST
    assert_equal(coder.decode(payload, 64, 96, 100), latent)


DIGEST = (9252, "bc26aae380683136")


def test_every_token_covers_its_interval():
    assert len(TOKEN_START) == len(TOKEN_EXTRA_BITS) == TOKENS
    ends = TOKEN_START + (1 << TOKEN_EXTRA_BITS)
    np.testing.assert_array_equal(ends[:-1], TOKEN_START[1:])
    assert ends[-1] == 2**17
    np.testing.assert_array_equal(tokens_of(TOKEN_START), np.arange(TOKENS))
    np.testing.assert_array_equal(tokens_of((ends - 1).astype(np.int32)), np.arange(TOKENS))


@pytest.mark.parametrize("sharp", [0.0, 0.3, 2.0])
def test_the_coders_probabilities_are_exactly_the_integers_of_the_table(sharp):
    """Probed at both sides of every boundary, so that no unit of 2^-24 can be elsewhere."""
    frequencies = whole_frequencies(np.exp(-sharp * np.arange(TOKENS)))
    model = exact_model(frequencies)
    borders = np.cumsum(256 * frequencies.astype(np.int64))
    scale = (2**64 - 1) >> 24
    for symbol, border in enumerate(borders):
        for quantile, expected in ((int(border) - 1, symbol), (int(border), symbol + 1)):
            if quantile < 1 << 24:
                point = quantile * scale
                words = np.array([point >> 32, point & 0xFFFFFFFF], dtype=np.uint32)
                assert constriction.stream.queue.RangeDecoder(words).decode(model) == expected


def test_the_code_length_is_that_of_the_integer_probabilities():
    frequencies = whole_frequencies(np.exp(-0.4 * np.arange(TOKENS)))
    tokens = np.random.default_rng(0).choice(TOKENS, 20_000, p=frequencies / 65536)
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(tokens.astype(np.int32), exact_model(frequencies))
    ideal = (16 - np.log2(frequencies[tokens].astype(float))).sum()
    assert abs(32 * len(encoder.get_compressed()) - ideal) < 64


def test_an_empty_latent_costs_next_to_nothing():
    coder = EntropyCoder(WAVELET, written_tables(WAVELET))
    empty = [np.zeros((b.channels, 256 // b.stride, 256 // b.stride), np.int32) for b in WAVELET]
    payload = coder.encode(empty, 300)
    assert len(payload) < 16
    assert_equal(coder.decode(payload, 256, 256, 300), empty)


def test_no_bytes_at_all_are_a_latent_too():
    """Zeros follow the end of a payload: the coder drops them, and a decoder adds them."""
    assert len(CODERS["wavelet"].decode(b"", 16, 16, 0)) == len(WAVELET)


@settings(deadline=None, max_examples=60)
@given(data=st.binary(max_size=200), step=st.integers(0, 640))
def test_any_bytes_are_symbols_or_a_bitstream_error(data, step):
    try:
        latent = CODERS["wavelet"].decode(data, 32, 24, step)
    except BitstreamError:
        return
    assert max(int(np.abs(band.astype(np.int64)).max()) for band in latent) < 2**21


def test_a_point_outside_of_the_range_is_refused():
    with pytest.raises(BitstreamError, match="payload is not a valid latent"):
        CODERS["wavelet"].decode(b"\xff" * 64, 16, 16, 0)


def changed(tables, **arrays):
    names = ("magnitude", "sign", "frequencies", "agreement", "occupied")
    return EntropyTables(*({name: getattr(tables, name) for name in names} | arrays).values())


@pytest.mark.parametrize("damage", ["zero", "sum"])
def test_tables_with_a_zero_or_another_sum_are_refused(damage):
    tables = written_tables(PLAIN)
    frequencies = tables.frequencies.copy()
    frequencies[0, 1, 0, 0 if damage == "sum" else 40] = 0
    with pytest.raises(ValueError, match="free of zeros and sum to 65536"):
        changed(tables, frequencies=frequencies)


@pytest.mark.parametrize("field", ["frequencies", "agreement", "occupied"])
def test_tables_of_another_latent_are_refused(field):
    tables = written_tables(PLAIN)
    with pytest.raises(ValueError, match="expected"):
        changed(tables, **{field: getattr(tables, field)[:-1]})


@pytest.mark.parametrize("field", ["agreement", "occupied"])
def test_impossible_flags_are_refused(field):
    tables = written_tables(PLAIN)
    with pytest.raises(ValueError, match="must be free of zeros"):
        changed(tables, **{field: np.zeros_like(getattr(tables, field))})


def test_networks_of_another_latent_are_refused():
    tables = written_tables(PLAIN)
    with pytest.raises(ValueError, match="the sign network is for 6 planes and 28 inputs"):
        changed(tables, sign=tables.magnitude)
    with pytest.raises(ValueError, match="tables are for 6 planes, the latent has 8"):
        EntropyCoder(wavelet_bands(1, 2), tables)


def test_tensors_are_the_tables():
    tables = random_tables(PLAIN)
    again = EntropyTables.from_tensors(tables.tensors())
    for name, array in tables.tensors().items():
        np.testing.assert_array_equal(again.tensors()[name], array)


def test_estimates_are_per_plane():
    coder = CODERS["plain"]
    latent = laplace_latent(PLAIN, 32, 32, 0)
    latent[1][2] = 0
    bits = coder.estimate_bits(latent, 10)
    assert bits.shape == (6,)
    ones = int(coder.tables.occupied[5, 0]) / 65536
    assert bits[5] == pytest.approx(-np.log2(1 - ones))


@pytest.mark.parametrize("value", [1 << 17, -(1 << 17)])
def test_symbols_without_a_token_are_refused(value):
    latent = laplace_latent(PLAIN, 8, 8, 0)
    latent[0][0, 1, 1] = value
    with pytest.raises(ValueError, match="magnitude of a symbol is not less than 131072"):
        CODERS["plain"].encode(latent, 0)
