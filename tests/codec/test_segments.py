"""Squares coded alone: the same symbols, damage that stays where it is, holes that are filled."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bit_errors import flipped
from linocut.codec.codec import Codec
from linocut.codec.segments import (
    Damage,
    Lost,
    SquareCoder,
    decode_segments,
    fill,
    layer_bands,
)
from linocut.entropy.planes import Band, step_index, wavelet_bands
from linocut.errors import BitstreamError
from linocut.format.bitstream import header_bytes, unpack
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.pictures.quality import psnr_db

GOLDEN = Path(__file__).parents[1] / "golden"
STEP = 12.0
PICTURE = dead_leaves(280, 520, 11)


@pytest.fixture(scope="module")
def codec():
    return Codec.load(GOLDEN / "wavelet")


@pytest.fixture(scope="module")
def data(codec):
    return codec.compress(PICTURE, step=STEP, resilient=True)


def damaged(file, number, good):
    """The same file with one square of its first tile reduced to its first layers."""
    tile = list(file.resilience.segments[0])
    tile[number] = replace(tile[number], good=good)
    return replace(file, resilience=replace(file.resilience, segments=[tile]))


def decoded(codec, file):
    return decode_segments(codec.coder, file, 0, (280, 520))


@pytest.mark.parametrize("name", ["wavelet", "personal"])
@pytest.mark.parametrize("size", [(1, 1), (9, 30), (40, 250)])
def test_symbols_of_one_square_are_those_of_the_plain_file(name, size):
    codec = Codec.load(GOLDEN / name)
    picture = dead_leaves(*size, 3)
    plain = codec.compress(picture, step=STEP)
    resilient = codec.compress(picture, step=STEP, resilient=True)
    for one, other in zip(
        codec.decode_symbols(plain), codec.decode_symbols(resilient), strict=True
    ):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("effort", [0, 2])
def test_squares_choose_their_symbols_alone_and_as_well(codec, data, effort):
    plain = codec.compress(PICTURE, step=STEP, effort=effort)
    squares = codec.compress(PICTURE, step=STEP, effort=effort, resilient=True)
    losses = [psnr_db(PICTURE, codec.decompress(one)) for one in (plain, squares)]
    assert abs(losses[0] - losses[1]) < 0.1
    symbols = codec.decode_symbols(plain)[0][-1], codec.decode_symbols(squares)[0][-1]
    assert (symbols[0] != symbols[1]).any()
    coder = SquareCoder(codec.coder)
    payload, bits = coder.encode_counted(
        [band.astype(np.int32) for band in codec.decode_symbols(squares)[0]], step_index(STEP)
    )
    assert unpack(squares).payload_bytes == len(payload)
    assert abs(8 * len(payload) - bits.sum()) < 0.02 * bits.sum()


def test_the_same_picture_gives_the_same_file(codec, data):
    assert codec.compress(PICTURE, step=STEP, resilient=True) == data


def test_layers_add_up_to_a_payload_and_cost_no_second_coding(codec, data):
    file = unpack(data)
    sizes = [len(b"".join(segment.layers)) for segment in file.resilience.segments[0]]
    plain = unpack(codec.compress(PICTURE, step=STEP)).payload_bytes
    assert sum(sizes) == file.payload_bytes
    assert plain < file.payload_bytes < 1.06 * plain


def test_without_its_last_layer_a_square_is_blurred_and_nothing_else(codec, data):
    file = unpack(data)
    whole, none = decoded(codec, file)
    assert none == Lost(0, 0)
    less, lost = decoded(codec, damaged(file, 1, 2))
    assert lost == Lost(1, 0)
    for band, a, b in zip(codec.geometry.bands, whole, less, strict=True):
        left, right = 256 // band.stride, 512 // band.stride
        bottom = 256 // band.stride
        inside = b[:, :bottom, left:right]
        if band.stride > 2:
            np.testing.assert_array_equal(a, b)
        else:
            assert a[:, :bottom, left:right].any()
            assert not inside.any()
            b[:, :bottom, left:right] = a[:, :bottom, left:right]
            np.testing.assert_array_equal(a, b)


def test_without_its_first_layer_a_square_is_filled_from_around(codec, data):
    file = unpack(data)
    whole, _ = decoded(codec, file)
    less, lost = decoded(codec, damaged(file, 1, 0))
    assert lost == Lost(0, 1)
    smooth = less[0][:, :64, 64:128]
    around = np.concatenate([whole[0][:, :, 63], whole[0][:, :, 128], whole[0][:, 64, :]], axis=1)
    for channel in range(3):
        assert smooth[channel].min() >= around[channel].min()
        assert smooth[channel].max() <= around[channel].max()
    assert not any(band[:, : 256 // 4, 256 // 4 : 512 // 4].any() for band in less[1:4])
    np.testing.assert_array_equal(less[0][:, :, :64], whole[0][:, :, :64])


def test_the_codec_counts_what_it_lost(codec, data):
    assert codec.decode(unpack(data)).damage == Damage(6, 0, 0, 0, ())
    assert codec.decode(unpack(codec.compress(PICTURE, step=STEP))).damage is None
    half = codec.decode(unpack(data[: len(data) // 2]))
    assert half.damage.blurred + half.damage.concealed > 0
    assert half.picture.shape == PICTURE.shape
    assert "squares concealed" in half.damage.note


@pytest.mark.parametrize("seed", range(3))
def test_at_one_wrong_bit_in_ten_thousand_not_a_pixel_is_lost(codec, data, seed):
    found = codec.decode(unpack(flipped(data, 1e-4, seed)))
    assert found.damage.repaired_bytes > 0
    assert found.damage.note is None
    np.testing.assert_array_equal(found.picture, codec.decode(unpack(data)).picture)


def test_quality_falls_step_by_step_with_the_error_rate(codec, data):
    clean = psnr_db(PICTURE, codec.decompress(data))
    levels = [
        np.mean([psnr_db(PICTURE, codec.decompress(flipped(data, rate, s))) for s in range(3)])
        for rate in (1e-3, 5e-3, 1e-2)
    ]
    assert levels[0] == pytest.approx(clean, abs=0.5)
    assert clean > levels[1] > levels[2] > 12


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.2, 0.5])
def test_hopeless_damage_ends_in_a_picture_or_a_clear_error(codec, data, rate):
    endings = set()
    for seed in range(3):
        try:
            endings.add(codec.decode(unpack(flipped(data, rate, seed))).picture.shape)
        except BitstreamError as error:
            endings.add(re.sub(r"^.* (beyond repair|b'LINO'|reads 1)$", r"\1", str(error)))
    assert endings <= {PICTURE.shape, "beyond repair", "b'LINO'", "reads 1"}


def test_with_a_whole_header_nothing_behind_it_stops_the_decoder(codec, data):
    start = header_bytes(data)
    found = codec.decode(unpack(data[:start] + bytes(len(data) - start)))
    assert found.damage.concealed == found.damage.segments == 6
    assert np.ptp(found.picture) == 0 or found.picture.std() < 10


def test_squares_that_do_not_fit_the_model_are_refused(codec, data):
    file = unpack(data)
    layout = replace(file.resilience, layer_bands=(7, 200))
    with pytest.raises(BitstreamError, match="do not fit the model"):
        decoded(codec, replace(file, resilience=layout))


def test_layers_split_the_bands_by_stride():
    assert layer_bands(wavelet_bands(5)) == (7, 13)
    assert layer_bands(wavelet_bands(2)) == (1, 4)
    assert layer_bands([Band("a", 4, 8), Band("b", 4, 8)]) == (0, 2)


def test_a_hole_in_a_ramp_is_filled_with_the_ramp():
    plane = np.broadcast_to(np.arange(0, 120, 10, dtype=np.int16), (12, 12))
    known = np.ones((12, 12), dtype=bool)
    known[4:8, 4:8] = False
    np.testing.assert_allclose(fill(np.where(known, plane, 999), known), plane, atol=0.5)


def test_a_hole_at_the_border_and_a_plane_of_holes_are_filled_too():
    plane = np.full((6, 6), 50, dtype=np.int16)
    known = np.zeros((6, 6), dtype=bool)
    assert not fill(plane, known).any()
    known[5, 5] = True
    np.testing.assert_allclose(fill(plane, known), 50, atol=1e-9)
