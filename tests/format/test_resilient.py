"""The resilient container: what it promises under flips, cuts and lies."""

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference_resilient
from bit_errors import flipped
from linocut.errors import BitstreamError
from linocut.format import resilient
from linocut.format.bitstream import (
    EXIF,
    ICC_PROFILE,
    ROTATION,
    LinoFile,
    Resilience,
    Segment,
    header_bytes,
    looks_like_lino,
    pack,
    unpack,
)
from linocut.format.resilient import protect, protected_length

MODEL = bytes(range(16, 24))


def noise(seed, length):
    return np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8).tobytes()


def file_of(width=600, height=300, extras=None, layer_bytes=(40, 200, 400)):
    squares = -(-width // 256) * -(-height // 256)
    segments = [
        Segment(tuple(noise(9 * n + layer, size) for layer, size in enumerate(layer_bytes)), 3)
        for n in range(squares)
    ]
    layout = Resilience(256, (7, 13), [segments])
    return LinoFile(width, height, 293, MODEL, [], extras or {}, layout)


FILE = file_of(extras={ICC_PROFILE: b"icc", EXIF: noise(1, 300)})


@st.composite
def files(draw):
    width, height = draw(st.integers(1, 1500)), draw(st.integers(1, 1500))
    side = draw(st.sampled_from([64, 128, 256, 512, 1024]))
    part = st.binary(max_size=30)
    counts = list(resilient.segment_counts(width, height, side))
    pool = draw(st.lists(st.tuples(part, part, part), min_size=1, max_size=5))
    tiles = [[Segment(pool[i % len(pool)], 3) for i in range(count)] for count in counts]
    extras = draw(st.dictionaries(st.sampled_from([1, 2, 3, 4, 8, 254]), part, max_size=3))
    return LinoFile(
        width, height, draw(st.integers(0, 640)), draw(st.binary(min_size=8, max_size=8)), [],
        extras, Resilience(side, (draw(st.integers(0, 7)), draw(st.integers(7, 255))), tiles),
    )  # fmt: skip


@given(files())
def test_fields_come_back(file):
    assert unpack(pack(file)) == file


def test_the_second_decoder_reads_the_same_fields():
    fields = reference_resilient.container(pack(FILE))
    assert (fields["width"], fields["height"], fields["step"]) == (600, 300, 293)
    assert (fields["model"], fields["blocks"], fields["side"]) == (MODEL, dict(FILE.extras), 256)
    assert fields["tiles"] == [[b"".join(s.layers) for s in FILE.resilience.segments[0]]]


def test_the_cost_is_what_the_table_of_the_format_says():
    index = 2 * 6 + 1 + 2 + 6 * (1 + 2 + 2 + 9) - 1  # the ICC profile's length takes one byte
    sizes = [(34, 40), (index, 96), (303, 64), (240, 64), (1200, 32), (2400, 24)]
    assert len(pack(FILE)) == 5 + sum(protected_length(*size) for size in sizes)
    assert header_bytes(pack(FILE)) == 5 + 74 + protected_length(index, 96)


@pytest.mark.parametrize("seed", range(10))
def test_one_bit_in_a_thousand_changes_nothing_not_even_in_the_header(seed):
    damaged = unpack(flipped(pack(FILE), 1e-3, seed))
    assert damaged.resilience.repaired > 10
    assert replace(damaged, resilience=replace(damaged.resilience, repaired=0)) == FILE


@pytest.mark.parametrize("seed", range(5))
def test_one_bit_in_a_hundred_leaves_the_first_layers(seed):
    damaged = unpack(flipped(pack(FILE), 1e-2, seed))
    good = [segment.good for segment in damaged.resilience.segments[0]]
    assert min(good) >= 1
    assert min(good) < 3
    for segment, original in zip(
        damaged.resilience.segments[0], FILE.resilience.segments[0], strict=True
    ):
        assert segment.layers[: segment.good] == original.layers[: segment.good]


def test_a_burst_takes_only_the_squares_it_hits():
    data = bytearray(pack(FILE))
    data[-300:-280] = bytes(20)
    data[-250:-200] = bytes(50)
    good = [segment.good for segment in unpack(bytes(data)).resilience.segments[0]]
    assert good == [3, 3, 3, 3, 3, 2] or good == [3, 3, 3, 3, 2, 2]


def test_a_lost_block_is_named_and_the_rest_arrives():
    data = bytearray(pack(FILE))
    start = header_bytes(bytes(data))
    data[start + 10 : start + 100] = bytes(90)
    damaged = unpack(bytes(data))
    assert EXIF in damaged.resilience.lost_blocks
    assert {segment.good for segment in damaged.resilience.segments[0]} == {3}


def test_the_beginning_of_a_file_is_read_as_far_as_it_goes():
    data = pack(FILE)
    least = header_bytes(data)
    goods = []
    for length in range(0, len(data), 7):
        if length < least - 20:
            with pytest.raises(BitstreamError):
                unpack(data[:length])
        elif length >= least:
            goods.append(sum(s.good for s in unpack(data[:length]).resilience.segments[0]))
    assert goods == sorted(goods)
    assert goods[0] == 0
    assert goods[-1] >= 16


def test_trailing_bytes_are_refused():
    with pytest.raises(BitstreamError, match="followed by trailing bytes"):
        unpack(pack(FILE) + b"\0")


def test_a_header_beyond_repair_is_refused_by_name():
    data = bytearray(pack(FILE))
    data[5:79] = noise(2, 74)
    with pytest.raises(BitstreamError, match="header of the resilient file is damaged beyond"):
        unpack(bytes(data))


def test_an_index_beyond_repair_is_refused_by_name():
    data = bytearray(pack(FILE))
    data[79:200] = noise(2, 121)
    with pytest.raises(BitstreamError, match="index of the resilient file is damaged beyond"):
        unpack(bytes(data))


def test_the_mark_is_not_needed():
    data = b"\0\1\2\3\4" + pack(FILE)[5:]
    assert unpack(data) == FILE
    plain = b"LINO\x01" + pack(FILE)[5:]
    assert unpack(plain) == FILE


def test_a_few_wrong_bits_of_the_mark_do_not_hide_the_format():
    assert looks_like_lino(b"LINO\x81....")
    assert looks_like_lino(b"LINO\x01....")
    assert looks_like_lino(b"LIOO\xc1....")
    assert not looks_like_lino(b"\x89PNG\r\n")
    assert not looks_like_lino(b"LIN")


def with_header(**change):
    """A file whose header is whole and says something else."""
    data = pack(FILE)
    names = (
        "version", "width", "height", "step", "flags", "model", "side", "first", "second",
        "a", "b", "c", "index",
    )  # fmt: skip
    fields = dict(zip(names, resilient._HEADER.unpack(data[5:35]), strict=True))
    header = resilient._HEADER.pack(*{**fields, **change}.values())
    header += zlib.crc32(header).to_bytes(4, "little")
    return data[:5] + protect(header, 40) + data[79:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "format version 2"),
        ({"flags": 1}, "flags 0x01"),
        ({"width": 0}, "outside 1"),
        ({"width": 2**32 - 1}, "outside 1"),
        ({"width": 2**20, "height": 2**20}, "the limit is"),
        ({"step": 641}, "step index 641"),
        ({"side": 5}, r"segments of 2\^5 px"),
        ({"side": 255}, r"segments of 2\^255 px"),
        ({"first": 14}, "layers of 14 and 13 bands"),
        ({"a": 0}, "parity of"),
        ({"c": 255}, "parity of"),
        ({"index": 2**32 - 1}, "index of the resilient file is damaged"),
        ({"width": 2**14, "height": 2**14}, "cannot hold the"),
        ({"width": 100}, "follow the index"),
    ],
)
def test_each_refusal_says_what_was_found(change, message):
    with pytest.raises(BitstreamError, match=message):
        unpack(with_header(**change))


def test_a_changed_header_alone_is_what_the_refusals_see():
    assert unpack(with_header()) == FILE


def test_unknown_odd_blocks_are_refused():
    with pytest.raises(BitstreamError, match="unknown block of kind 9"):
        unpack(pack(replace(FILE, extras={9: b"x"})))


def test_a_lost_rotation_is_a_lost_block():
    data = bytearray(pack(file_of(extras={ROTATION: noise(7, 60)})))
    start = header_bytes(bytes(data))
    data[start : start + 60] = bytes(60)
    assert unpack(bytes(data)).resilience.lost_blocks == (ROTATION,)


def test_payload_bytes_are_those_of_the_layers():
    assert FILE.payload_bytes == 6 * 640
