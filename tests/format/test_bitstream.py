"""The container and its blocks: golden bytes, exact round trips, all else clearly refused."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference_decoder
from linocut.errors import BitstreamError
from linocut.format import bitstream
from linocut.format.bitstream import (
    ALPHA,
    EXIF,
    ICC_PROFILE,
    MAX_PIXELS,
    MAX_SIDE_PX,
    MAX_STEP_INDEX,
    ROTATION,
    VP8L_SIDE_PX,
    LinoFile,
    pack,
    pack_alpha,
    pack_lossless,
    tile_grid,
    unpack,
    unpack_alpha,
    unpack_lossless,
    varint,
)

MODEL = bytes(range(16, 24))
FILE = LinoFile(1300, 7, 293, MODEL, [b"abc", b""], {ICC_PROFILE: b"icc"})
GOLDEN = (
    "4c494e4f" "01" "14f1fe54" "19"  # magic, version, CRC-32, length
    "940a" "07" "a502" "00" "1011121314151617"  # width, height, step, flags, model
    "02" "03" "696363" "00"  # one block, end of blocks
    "03" "616263" "00"  # two tiles, the second one empty
)  # fmt: skip


def sealed(body, version=1, length=None):
    """A file around a body, with a right checksum."""
    checked = varint(len(body) if length is None else length) + body
    return b"LINO" + bytes([version]) + zlib.crc32(checked).to_bytes(4, "little") + checked


def body(width=8, height=8, step=100, flags=0, blocks=b"\0", tiles=b"\x01t"):
    """A body from its parts."""
    return varint(width) + varint(height) + varint(step) + bytes([flags]) + MODEL + blocks + tiles


def test_golden_bytes():
    """Written down once, never edited: version 1 is frozen."""
    assert pack(FILE).hex() == GOLDEN
    assert unpack(bytes.fromhex(GOLDEN)) == FILE


def test_the_second_decoder_reads_the_same_fields():
    fields = reference_decoder.container(bytes.fromhex(GOLDEN))
    assert fields == {
        "width": 1300, "height": 7, "step": 293, "flags": 0, "model": MODEL,
        "blocks": {2: b"icc"}, "tiles": [b"abc", b""],
    }  # fmt: skip


@st.composite
def files(draw):
    """Anything that `pack` takes, in small."""
    width, height = draw(st.integers(1, 3000)), draw(st.integers(1, 3000))
    rows, columns = tile_grid(width, height)
    count = rows * columns
    kinds = st.sampled_from([ALPHA, ICC_PROFILE, ROTATION, EXIF, 6, 8, 254])
    return LinoFile(
        width,
        height,
        draw(st.integers(0, MAX_STEP_INDEX)),
        draw(st.binary(min_size=8, max_size=8)),
        draw(st.lists(st.binary(max_size=200), min_size=count, max_size=count)),
        draw(st.dictionaries(kinds, st.binary(max_size=300), max_size=4)),
    )


@given(files())
def test_fields_come_back(file):
    assert unpack(pack(file)) == file


@given(files())
def test_overhead_is_at_most_35_bytes_and_3_a_tile(file):
    content = file.payload_bytes + sum(map(len, file.extras.values()))
    assert len(pack(file)) - content <= 35 + 3 * (len(file.tiles) + len(file.extras))


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16383, 16384, 2**24, 2**42 - 1])
def test_varints_are_shortest_and_little_endian(number):
    data = varint(number)
    assert len(data) == max(1, -(-number.bit_length() // 7))
    assert all(byte >= 128 for byte in data[:-1])
    assert data[-1] < 128
    assert sum((byte & 127) << 7 * i for i, byte in enumerate(data)) == number


def test_every_truncation_is_refused():
    data = pack(FILE)
    for length in range(len(data)):
        with pytest.raises(BitstreamError, match=r"not a \.lino file|ends after|truncated|reaches"):
            unpack(data[:length])


@pytest.mark.parametrize("more", [b"\0", b"\0" * 100, pack(FILE)])
def test_trailing_bytes_are_refused(more):
    with pytest.raises(BitstreamError, match="followed by trailing bytes"):
        unpack(pack(FILE) + more)


def test_every_flipped_bit_is_refused():
    data = pack(FILE)
    for place in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(BitstreamError):
            unpack(bytes(damaged))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"begins with b'', expected b'LINO'"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), r"not a \.lino file: it begins with b'\\x89PNG'"),
        (b"LINO\x01", "ends after 5 bytes, inside the header"),
        (sealed(body(), version=2), "has format version 2, this decoder reads 1"),
        (sealed(body(), length=3), "followed by trailing bytes: 15 bytes where .* promises 3"),
        (sealed(body(), length=999), "truncated: 15 bytes where the header promises 999"),
        (sealed(body())[:9] + b"\xff" * 12, "length is a number of more than 42 bits"),
        (sealed(body())[:5] + b"\0\0\0\0" + sealed(body())[9:], "checksum does not match"),
        (sealed(body(width=0)), r"picture of 0x8 px is outside 1\.\.16777216 px"),
        (sealed(body(height=0)), r"picture of 8x0 px is outside"),
        (sealed(body(width=MAX_SIDE_PX + 1, height=1)), r"16777217x1 px is outside"),
        (sealed(body(width=2**15, height=2**14)), f"536870912 pixels, the limit is {MAX_PIXELS}"),
        (sealed(body(step=641)), "step index 641 is above 640"),
        (sealed(body(flags=2)), "unknown flags 0x02: a newer decoder is needed"),
        (sealed(body(blocks=b"\x07\x00\x00")), "unknown block of kind 7 that must be understood"),
        (sealed(body(blocks=b"\x02\x00\x02\x00\x00")), "block of kind 2 occurs twice"),
        (sealed(body(blocks=b"\x02\x64\x00")), "block of 100 bytes reaches beyond the end"),
        (sealed(body(blocks=b"\x02\x00", tiles=b"")), "block kind of 1 bytes reaches beyond"),
        (sealed(body(tiles=b"\x03t")), "tile of 3 bytes reaches beyond the end"),
        (sealed(body(tiles=b"")), "tile length of 1 bytes reaches beyond the end"),
        (sealed(body(tiles=b"\x01tt")), "1 bytes follow the last tile"),
        (sealed(body(width=16384, height=16384)), "cannot hold the 256 tiles of 16384x16384"),
        (sealed(body()[:6]), "model id of 8 bytes reaches beyond the end"),
    ],
)
def test_each_refusal_says_what_was_found(data, message):
    with pytest.raises(BitstreamError, match=message):
        unpack(data)


@pytest.mark.parametrize("kind", [8, 10, 128, 254])
def test_unknown_even_blocks_are_kept_for_whoever_knows_them(kind):
    assert unpack(sealed(body(blocks=bytes([kind, 1, 7, 0])))).extras == {kind: b"\x07"}


@pytest.mark.parametrize("kind", [7, 9, 129, 255])
def test_unknown_odd_blocks_are_refused(kind):
    with pytest.raises(BitstreamError, match=f"unknown block of kind {kind} "):
        unpack(sealed(body(blocks=bytes([kind, 1, 7, 0]))))


def test_the_pixel_limit_is_the_callers():
    data = sealed(body(width=100, height=90))
    assert unpack(data, max_pixels=9000).width == 100
    with pytest.raises(BitstreamError, match="9000 pixels, the limit is 8999"):
        unpack(data, max_pixels=8999)


def test_the_checksum_comes_before_everything_it_covers(monkeypatch):
    """A damaged file is never parsed beyond its length."""
    data = bytearray(sealed(body(width=2**20, height=2**20)))
    data[5] ^= 1
    monkeypatch.setattr(bitstream, "require_size", lambda *_: pytest.fail("parsed first"))
    with pytest.raises(BitstreamError, match="checksum does not match"):
        unpack(bytes(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "outside 1"),
        ({"height": MAX_SIDE_PX + 1}, "outside 1"),
        ({"tiles": [b""]}, re.escape("1 tiles given, a picture of 1300x7 has 2")),
        ({"step_index": -1}, "step index -1"),
        ({"step_index": 641}, "step index 641"),
        ({"model_id": b"short"}, "model id b'short'"),
        ({"extras": {0: b""}}, "block kind 0 is outside"),
        ({"extras": {256: b""}}, "block kind 256 is outside"),
    ],
)
def test_fields_out_of_range_are_not_written(change, message):
    with pytest.raises(BitstreamError, match=message):
        pack(replace(FILE, **change))


def test_payload_bytes_are_those_of_the_tiles():
    assert FILE.payload_bytes == 3


@pytest.mark.parametrize(
    ("size", "grid"), [((1, 1), (1, 1)), ((1024, 1025), (2, 1)), ((3000, 2048), (2, 3))]
)
def test_tiles_are_counted_row_by_row(size, grid):
    assert tile_grid(*size) == grid


# --- blocks ---------------------------------------------------------------------------------------


RNG = np.random.default_rng(0)
RAMP = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
DISK = np.uint8(255) * (np.hypot(*np.ogrid[-20:20, -30:30]) < 17)
PLANES = {
    "opaque": np.full((7, 5), 255, np.uint8),
    "one pixel": np.array([[17]], np.uint8),
    "noise": RNG.integers(0, 256, (13, 11), np.uint8),
    "ramp": RAMP,
    "disk": DISK.astype(np.uint8),
    "rows": np.repeat(RNG.integers(0, 256, (1, 64), np.uint8), 50, axis=0),
}


@pytest.mark.parametrize("name", PLANES)
def test_alpha_round_trip_is_exact(name: str) -> None:
    alpha = PLANES[name]
    assert np.array_equal(unpack_alpha(pack_alpha(alpha), *alpha.shape), alpha)


@pytest.mark.parametrize("height", range(1, 10))
@pytest.mark.parametrize("width", range(1, 10))
def test_every_small_size_survives(height: int, width: int) -> None:
    for alpha in (
        RNG.integers(0, 256, (height, width), np.uint8),
        RNG.integers(0, 2, (height, width), np.uint8) * np.uint8(255),
    ):
        assert np.array_equal(unpack_alpha(pack_alpha(alpha), height, width), alpha)


@pytest.mark.parametrize(("name", "most"), [("opaque", 2), ("ramp", 60), ("disk", 120)])
def test_plain_shapes_cost_little(name: str, most: int) -> None:
    assert len(pack_alpha(PLANES[name])) <= most


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\x00", "constant alpha has 1 bytes"),
        (b"\x00\x01\x02", "constant alpha has 3 bytes"),
        (b"\x05abc", "method is 5"),
        (b"\x01abc", "damaged"),
        (b"\x01" + zlib.compress(b"123"), "exactly the 4 bytes"),
        (b"\x01" + zlib.compress(b"12345"), "exactly the 4 bytes"),
        (b"\x01" + zlib.compress(b"1234") + b"more", "exactly the 4 bytes"),
        (b"\x01" + zlib.compress(b"1234")[:-1], "exactly the 4 bytes"),
    ],
)
def test_damaged_alpha_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        unpack_alpha(data, 2, 2)


def test_a_small_block_cannot_inflate_beyond_the_picture() -> None:
    bomb = b"\x01" + zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(BitstreamError, match="exactly the 4 bytes"):
        unpack_alpha(bomb, 2, 2)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (33, 2), (40, 60)])
def test_a_lossless_block_holds_every_sample(size: tuple[int, int]) -> None:
    rgb = RNG.integers(0, 256, (*size, 3), np.uint8)
    block = pack_lossless(rgb)
    assert block is not None
    assert np.array_equal(unpack_lossless(block, *size), rgb)


def test_keeping_a_picture_exactly_starts_without_the_plugins_of_other_formats() -> None:
    """A small picture would wait for them longer than for its network."""
    code = (
        "import sys, numpy; from linocut.format.bitstream import pack_lossless as pack;"
        "assert pack(numpy.zeros((8, 8, 3), 'u1')); sys.exit('PIL.PdfImagePlugin' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pictures_beyond_the_sides_of_webp_have_no_lossless_block() -> None:
    assert pack_lossless(np.zeros((1, VP8L_SIDE_PX, 3), np.uint8)) is not None
    assert pack_lossless(np.zeros((1, VP8L_SIDE_PX + 1, 3), np.uint8)) is None


def test_a_lossless_block_of_another_size_is_refused() -> None:
    block = pack_lossless(np.zeros((8, 9, 3), np.uint8))
    assert block is not None
    for wrong in (block, b"", b"/", bytes(40)):
        with pytest.raises(BitstreamError, match="holds no picture of 8x9 px"):
            unpack_lossless(wrong, 9, 8)


def test_a_damaged_lossless_block_is_refused_or_read_to_its_size() -> None:
    block = pack_lossless(RNG.integers(0, 256, (30, 20, 3), np.uint8))
    assert block is not None
    refused = 0
    for _ in range(200):
        wrong = bytearray(block[: RNG.integers(5, len(block) + 1)])
        wrong[RNG.integers(5, 12) % len(wrong)] ^= 1 << RNG.integers(8)
        try:
            assert unpack_lossless(bytes(wrong), 30, 20).shape == (30, 20, 3)
        except BitstreamError:
            refused += 1
    assert refused > 100
