"""Alpha is kept bit for bit, in few bytes, and damaged alpha is refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from linocut.errors import BitstreamError
from linocut.format.blocks import (
    VP8L_SIDE_PX,
    pack_alpha,
    pack_lossless,
    unpack_alpha,
    unpack_lossless,
)

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
