"""Alpha is kept bit for bit, in few bytes, and damaged alpha is refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from linocut.errors import BitstreamError
from linocut.format.blocks import pack_alpha, unpack_alpha

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
