"""The resilient layout for the second decoder, written from docs/bitstream.md alone.

It reads whole files: that the code words are code words is checked, one root at a time; repairing
what is not whole is left to decoders that need it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

TILE_PX = 1024


def times(a: int, b: int) -> int:
    """Product in GF(256), polynomial 0x11d."""
    result = 0
    while b:
        result ^= a if b & 1 else 0
        a = a << 1 ^ (0x11D if a & 128 else 0)
        b >>= 1
    return result


def is_codeword(word: bytes, parity: int) -> bool:
    """Whether 1, 2, 4 .. 2^(parity - 1) are roots of the word as a polynomial."""
    root = 1
    for _ in range(parity):
        value = 0
        for byte in word:
            value = times(value, root) ^ byte
        if value:
            return False
        root = times(root, 2)
    return True


def container(data: bytes) -> dict[str, Any]:
    """The fields of a file."""
    place = 5

    def area(length: int, parity: int) -> bytes:
        nonlocal place
        count = -(-length // (255 - parity))
        result = b""
        for number in range(count):
            size = length // count + (number < length % count)
            word = data[place : place + size + parity]
            assert len(word) == size + parity
            assert number or is_codeword(word, parity)  # one for each part: this is slow
            result += word[:size]
            place += size + parity
        return result

    def numbers(source: bytes) -> Iterator[tuple[Callable[[], int], Callable[[int], bytes]]]:
        at = 0

        def take(count: int) -> bytes:
            nonlocal at
            at += count
            return source[at - count : at]

        def varint() -> int:
            number = shift = 0
            while True:
                byte = take(1)[0]
                number |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    return number

        yield varint, take
        assert at == len(source)

    assert data[:5] == b"LINO\x81"
    header = area(34, 40)
    assert zlib.crc32(header[:30]) == int.from_bytes(header[30:], "little")
    assert header[0] == 1
    width, height = (int.from_bytes(header[i : i + 4], "little") for i in (1, 5))
    side = 1 << header[20]
    squares = []
    for top in range(0, height, TILE_PX):
        for left in range(0, width, TILE_PX):
            tall = -(-min(TILE_PX, height - top) // side)
            squares.append(tall * -(-min(TILE_PX, width - left) // side))
    blocks, lengths = [], []
    for varint, take in numbers(area(int.from_bytes(header[26:30], "little"), 96)):
        while kind := take(1)[0]:
            blocks.append((kind, varint(), int.from_bytes(take(4), "little")))
        for _ in range(3 * sum(squares)):
            length = varint()
            lengths.append((length, int.from_bytes(take(3), "little") if length else 0))
    content = area(sum(length for _, length, _ in blocks), 64)
    found = {}
    for kind, length, checksum in blocks:
        found[kind], content = content[:length], content[length:]
        assert zlib.crc32(found[kind]) == checksum
    payloads = [b""] * sum(squares)
    for layer in range(3):
        content = area(sum(length for length, _ in lengths[layer::3]), header[23 + layer])
        for number, (length, checksum) in enumerate(lengths[layer::3]):
            part, content = content[:length], content[length:]
            assert not length or zlib.crc32(part) % 2**24 == checksum
            payloads[number] += part
    assert place == len(data)
    queue = iter(payloads)
    return {
        "width": width, "height": height, "step": int.from_bytes(header[9:11], "little"),
        "flags": header[11], "model": header[12:20], "blocks": found, "side": side,
        "tiles": [[next(queue) for _ in range(count)] for count in squares],
    }  # fmt: skip


def joined(
    payloads: list[bytes],
    side: int,
    size: tuple[int, int],
    strides: list[int],
    planes_of: Callable[[bytes, tuple[int, int]], list[list[list[int]]]],
) -> list[list[list[int]]]:
    """Planes of a tile from those of its squares."""
    planes = [[[0] * (size[1] // s) for _ in range(size[0] // s)] for s in strides]
    queue = iter(payloads)
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            square = (min(side, size[0] - top), min(side, size[1] - left))
            for plane, part, s in zip(planes, planes_of(next(queue), square), strides, strict=True):
                for y, row in enumerate(part):
                    plane[top // s + y][left // s : left // s + len(row)] = row
    return planes
