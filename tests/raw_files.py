"""PNG and TIFF files written byte by byte, so that what is in them is known without a decoder."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.integer]


def chunk(name: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def packed_rows(samples: Samples, depth: int, *, big_endian: bool = True) -> list[bytes]:
    """Rows of samples (h, w, c) of `depth` bits, each row padded to whole bytes."""
    flat = samples.reshape(len(samples), -1)
    if depth == 16:
        return [row.astype(">u2" if big_endian else "<u2").tobytes() for row in flat]
    bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bits]


def png(
    samples: Samples,
    depth: int,
    colour_type: int,
    chunks: Sequence[tuple[bytes, bytes]] = (),
    palette: bytes = b"",
) -> bytes:
    """A PNG of samples (h, w, c) as they are; `chunks` stand before the pixels."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row for row in packed_rows(samples, depth))
    parts = [chunk(b"IHDR", header)]
    early = [chunk(name, body) for name, body in chunks if name != b"tRNS"]
    late = [chunk(name, body) for name, body in chunks if name == b"tRNS"]
    parts += [*early, chunk(b"PLTE", palette) if palette else b"", *late]
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(
    samples: Samples,
    depth: int,
    photometric: int,
    colours: Samples | None = None,
    tags: Sequence[tuple[int, int, Sequence[int]]] = (),
) -> bytes:
    """A little-endian TIFF of one strip; `tags` are further (number, type, values) of shorts."""
    height, width, channels = samples.shape
    strip = b"".join(packed_rows(samples, depth, big_endian=False))
    entries: list[tuple[int, int, Sequence[int]]] = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [depth] * channels), (259, 3, [1]),
        (262, 3, [photometric]), (273, 4, [8]), (277, 3, [channels]), (278, 4, [height]),
        (279, 4, [len(strip)]), *tags,
    ]  # fmt: skip
    if colours is not None:
        entries.append((320, 3, [int(value) for value in colours.T.ravel()]))
    strip += bytes(len(strip) % 2)
    start = 8 + len(strip)
    extra_start = start + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack("<H", len(entries)), b""
    for tag, kind, values in sorted(entries):
        body = struct.pack(f"<{len(values)}{'HI'[kind == 4]}", *values)
        if len(body) > 4:
            place, extra = extra_start + len(extra), extra + body
            body = struct.pack("<I", place)
        directory += struct.pack("<HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
    return struct.pack("<2sHI", b"II", 42, start) + strip + directory + bytes(4) + extra


def icc(space: bytes = b"RGB ", length: int = 200) -> bytes:
    """Bytes with the header of an ICC profile for a colour space."""
    header = struct.pack(">I4sI4s4s4s12s4s", length, b"none", 0x04000000, b"mntr", space, b"XYZ ",
                         bytes(12), b"acsp")  # fmt: skip
    return header.ljust(length, b"\7")


def exif(entries: Sequence[tuple[int, int, int, bytes]], thumbnail: bytes = b"") -> bytes:
    """A little-endian EXIF block of (tag, type, count, bytes of the value), and a thumbnail."""
    first = 8 + 2 + 12 * len(entries) + 4
    second = 2 + 12 * 2 + 4 if thumbnail else 0
    extra_start, extra = first + second, b""
    directory = struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        body = value
        if len(value) > 4:
            body = struct.pack("<I", extra_start + len(extra))
            extra += value + bytes(len(value) % 2)
        directory += struct.pack("<HHI", tag, kind, count) + body.ljust(4, b"\0")
    directory += struct.pack("<I", first if thumbnail else 0)
    if thumbnail:
        place = extra_start + len(extra)
        directory += struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, place, 0x0202, 4, 1,
                                 len(thumbnail), 0)  # fmt: skip
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + extra + thumbnail
