"""Codes of fixed length: exact, as long as promised, and one wrong bit is one wrong sample."""

import numpy as np
import pytest

from linocut.entropy.fixed_codes import MOST_BITS, FixedCodes, bits_of, index_of
from linocut.entropy.planes import Band, step_of
from linocut.errors import BitstreamError

BANDS = (Band("z", 5, 64),)


def latent(seed: int = 0) -> list[np.ndarray]:
    return [np.random.default_rng(seed).uniform(-128, 128, (5, 2, 3)).astype(np.float32)]


@pytest.mark.parametrize("bits", range(1, MOST_BITS + 1))
def test_symbols_come_back_from_as_many_bits_as_promised(bits: int) -> None:
    codes, index = FixedCodes(BANDS), index_of(bits)
    symbols = codes.quantise(latent(), index)
    data = codes.encode_counted(symbols, index)[0]
    assert len(data) == -(-5 * 6 * bits // 8)
    assert codes.estimate_bits(symbols, index).tolist() == [6 * bits] * 5
    assert np.array_equal(codes.decode(data, 128, 192, index)[0], symbols[0])


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_middle_of_a_cell_is_at_most_half_a_step_away(bits: int) -> None:
    index = index_of(bits)
    values = latent()[0]
    values[0, 0] = [-128.0, 128.0, 0.0]
    symbols = FixedCodes(BANDS).quantise([values], index)[0]
    middle = (symbols + 0.5) * step_of(index)
    assert np.abs(middle - values).max() <= step_of(index) / 2
    assert symbols.min() == -(2 ** (bits - 1))
    assert symbols.max() == 2 ** (bits - 1) - 1


def test_codes_lie_plane_by_plane_most_significant_bit_first() -> None:
    codes = FixedCodes((Band("z", 2, 64),))
    symbols = [np.array([[[-8, 7]], [[0, -1]]], dtype=np.int32)]
    assert codes.encode_counted(symbols, index_of(4))[0] == bytes([0b0000_1111, 0b1000_0111])


def test_a_wrong_bit_is_a_wrong_symbol_and_no_more() -> None:
    codes, index = FixedCodes(BANDS), index_of(4)
    data = bytearray(codes.encode_counted(codes.quantise(latent(), index), index)[0])
    whole = codes.decode(bytes(data), 128, 192, index)[0]
    data[7] ^= 0x10
    assert int((codes.decode(bytes(data), 128, 192, index)[0] != whole).sum()) == 1


@pytest.mark.parametrize("change", [-1, 1])
def test_a_payload_of_another_length_is_refused(change: int) -> None:
    data = bytes(15 + change)
    with pytest.raises(
        BitstreamError, match=f"has {15 + change} bytes, 30 codes of 4 bits have 15"
    ):
        FixedCodes(BANDS).decode(data, 128, 192, index_of(4))


@pytest.mark.parametrize("index", [1, 8 * 64, 640])
def test_a_step_that_no_number_of_bits_has_is_refused(index: int) -> None:
    with pytest.raises(BitstreamError, match=f"step index {index} is not that of codes"):
        bits_of(index)


def test_the_nearest_step_is_always_one_of_a_number_of_bits() -> None:
    codes = FixedCodes(BANDS)
    for index in range(641):
        nearest = codes.nearest_index(index)
        assert 1 <= bits_of(nearest) <= MOST_BITS
        assert abs(nearest - min(index, 448)) <= 32


def test_there_is_no_resilient_layout_to_decode_a_part_of() -> None:
    with pytest.raises(BitstreamError, match="codes of fixed length have no resilient layout"):
        FixedCodes(BANDS).decode(bytes(15), 128, 192, index_of(4), bands=0)
