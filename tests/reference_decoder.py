"""A second decoder of .lino files, down to the symbols, written from docs/bitstream.md alone.

It shares no code with the package, computes with Python's integers only, one symbol at a time, and
takes nothing but the tables from a model's folder. Slow, and meant to be read beside the document.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import reference_resilient

TILE_PX = 1024
PASS_OFFSETS = ((0, 0), (1, 1), (0, 1), (1, 0))
STRAIGHT = ((0, -1), (0, 1), (-1, 0), (1, 0))
DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
FAR = ((0, -2), (0, 2), (-2, 0), (2, 0))
RING = ((-2, -1), (-2, 1), (2, -1), (2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2))

Grid = list[list[int]]


def tensors_of(path: Path) -> dict[str, tuple[list[int], list[int]]]:
    """Integer tensors of a safetensors file: name -> (shape, numbers)."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    result = {}
    for name, facts in json.loads(data[8 : 8 + length]).items():
        if name.startswith("tables."):
            start, end = facts["data_offsets"]
            code = {"I32": "i", "I16": "h", "U16": "H"}[facts["dtype"]]
            raw = data[8 + length + start : 8 + length + end]
            result[name] = (facts["shape"], [n for (n,) in struct.iter_unpack("<" + code, raw)])
    return result


class RangeDecoder:
    """Numbers of 64 bits, words of 32, probabilities of 24."""

    def __init__(self, data: bytes) -> None:
        data += bytes(-len(data) % 4)
        self.words = [n for (n,) in struct.iter_unpack("<I", data)][::-1]
        self.range = 2**64 - 1
        self.offset = self.word() << 32 | self.word()

    def word(self) -> int:
        return self.words.pop() if self.words else 0

    def symbol(self, cumulative: list[int]) -> int:
        """The symbol s with cumulative[s] <= quantile < cumulative[s + 1]."""
        scale = self.range >> 24
        quantile = self.offset // scale
        if quantile >= 1 << 24:
            raise ValueError("not a stream of this coder")
        found = next(s for s in range(len(cumulative) - 1) if quantile < cumulative[s + 1])
        self.offset -= scale * cumulative[found]
        self.range = scale * (cumulative[found + 1] - cumulative[found])
        if self.range < 1 << 32:
            self.range <<= 32
            self.offset = self.offset << 32 | self.word()
        return found

    def bits(self, count: int) -> int:
        """A number of `count` bits, all equally likely."""
        width = (1 << 24) >> count
        return self.symbol([width * s for s in range((1 << count) + 1)])


def cumulative(frequencies: list[int]) -> list[int]:
    """Frequencies that sum to 2^16 -> cumulated, out of 2^24."""
    result = [0]
    for frequency in frequencies:
        result.append(result[-1] + 256 * frequency)
    return result


def container(data: bytes) -> dict[str, Any]:
    """The fields of a file."""
    place = 9

    def varint() -> int:
        nonlocal place
        number = shift = 0
        while True:
            byte = data[place]
            place += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def take(count: int) -> bytes:
        nonlocal place
        place += count
        return data[place - count : place]

    assert data[:5] == b"LINO\x01"
    assert int.from_bytes(data[5:9], "little") == zlib.crc32(data[9:])
    length = varint()
    assert len(data) - place == length
    width, height, step = varint(), varint(), varint()
    flags, model = take(1)[0], take(8)
    blocks = {}
    while kind := take(1)[0]:
        blocks[kind] = take(varint())
    tiles = [take(varint()) for _ in range(-(-width // TILE_PX) * -(-height // TILE_PX))]
    assert place == len(data)
    return {
        "width": width, "height": height, "step": step, "flags": flags, "model": model,
        "blocks": blocks, "tiles": tiles,
    }  # fmt: skip


class Latent:
    """The symbols of one tile, decoded as the constructor runs.

    Args:
        payload: the tile's bytes.
        bands: (channels, stride, index of the parent band or None, smooth) in coding order.
        tables: of the model.
        size: height and width of the padded tile, px.
        step: the file's step index.
    """

    def __init__(
        self,
        payload: bytes,
        bands: list[tuple[int, int, int | None, bool]],
        tables: dict[str, tuple[list[int], list[int]]],
        size: tuple[int, int],
        step: int,
    ) -> None:
        self.decoder, self.tables, self.step = RangeDecoder(payload), tables, step
        self.planes: list[Grid] = []
        first = [sum(band[0] for band in bands[:i]) for i in range(len(bands))]
        for number, (channels, stride, parent, smooth) in enumerate(bands):
            peers = [i for i in range(number) if bands[i][1] == stride and not bands[i][3]]
            for channel in range(channels):
                here = first[number] + channel
                parents = [] if parent is None else sorted({first[parent], first[parent] + channel})
                near = [here - d if channel >= d else None for d in (1, 2)]
                alike = [first[i] + channel for i in reversed(peers) if channel < bands[i][0]][:2]
                earlier = [first[i] + c for i in peers for c in range(bands[i][0])]
                earlier += [first[number] + c for c in range(channel)]
                others = [p for p in reversed(earlier) if p not in near and p not in alike][:4]
                siblings = [*near, *alike, *[None] * (2 - len(alike))]
                siblings += [*others, *[None] * (4 - len(others))]
                self.plane = [[0] * (size[1] // stride) for _ in range(size[0] // stride)]
                self.planes.append(self.plane)
                self.decode_plane(smooth, parents, siblings)

    def decode_plane(self, smooth: bool, parents: list[int], siblings: list[int | None]) -> None:
        index = len(self.planes) - 1
        octaves = self.tables["tables.occupied"][0][1]
        ones = self.tables["tables.occupied"][1][
            index * octaves + min(self.step // 64, octaves - 1)
        ]
        if not self.decoder.symbol(cumulative([65536 - ones, ones])):
            return
        self.state = 0
        height, width = len(self.plane), len(self.plane[0])
        passes = [(0, 0, 0, 8)] if smooth else [(k, *PASS_OFFSETS[k], 2) for k in range(4)]
        for size in (8, 4, 2) if smooth else ():
            passes += [
                (k, PASS_OFFSETS[k][0] * size // 2, PASS_OFFSETS[k][1] * size // 2, size)
                for k in (1, 2, 3)
            ]
        for kind, top, left, size in passes:
            places = [(y, x) for y in range(top, height, size) for x in range(left, width, size)]
            if not places:
                continue
            if smooth:
                bins = [3 * min(self.step // 64, 9) + min(kind, 2)] * len(places)
                signs = [(None, False)] * len(places)
            else:
                bins = [self.bin(index, kind, y, x, parents, siblings) for y, x in places]
                signs = [self.sign(index, kind, y, x, parents, siblings) for y, x in places]
            residuals = self.residuals(index, bins, signs)
            predictions = [
                self.prediction(kind, size // 2, y, x) if smooth else 0 for y, x in places
            ]
            for (y, x), prediction, residual in zip(places, predictions, residuals, strict=True):
                self.plane[y][x] = prediction + residual

    def residuals(
        self, index: int, bins: list[int], likely: list[tuple[int | None, bool]]
    ) -> list[int]:
        """Magnitudes in their quantisers, then signs."""
        sizes = []
        _, _, count, size = self.tables["tables.frequencies"][0]
        for table, (certain, _) in zip(bins, likely, strict=True):
            quantiser = 0 if certain is None else self.state % 2
            start = ((index * 2 + quantiser) * count + table) * size
            frequencies = self.tables["tables.frequencies"][1][start : start + size]
            magnitude = self.decoder.symbol(cumulative(frequencies))
            if magnitude >= 16:
                octave, half = divmod(magnitude - 16, 2)
                base = (16 << octave) + half * (8 << octave)
                magnitude = base + self.decoder.bits(3 + octave)
            sizes.append(
                2 * magnitude - quantiser if magnitude and certain is not None else magnitude
            )
            b2, b1, b0 = self.state >> 2, self.state >> 1 & 1, self.state & 1
            self.state = 4 * b1 + 2 * b0 + (magnitude + b1 + b2) % 2
        result = []
        for size, (certain, negative) in zip(sizes, likely, strict=True):
            if size and certain is None:
                negative = self.decoder.bits(1) == 1
            elif size:
                agrees = self.tables["tables.agreement"][1][16 * (min(size, 4) - 1) + certain]
                negative ^= self.decoder.symbol(cumulative([agrees, 65536 - agrees])) == 1
            result.append(-size if negative else size)
        return result

    def prediction(self, kind: int, half: int, y: int, x: int) -> int:
        """Rounded mean of the coarser grid's nearest values inside the plane."""
        if kind == 0:
            return 0
        offsets = DIAGONAL if kind == 1 else STRAIGHT
        near = [
            self.plane[y + dy * half][x + dx * half]
            for dy, dx in offsets
            if 0 <= y + dy * half < len(self.plane) and 0 <= x + dx * half < len(self.plane[0])
        ]
        return (2 * sum(near) + len(near)) // (2 * len(near))

    def bin(
        self,
        index: int,
        kind: int,
        y: int,
        x: int,
        parents: list[int],
        siblings: list[int | None],
    ) -> int:
        """The table of the magnitude at one place."""
        own = []
        if kind in (2, 3):
            own += [STRAIGHT[:2], STRAIGHT[2:]]
        else:
            own += [(), ()]
        own.append(DIAGONAL if kind in (1, 3) else ())
        near = [[self.value(index, y + dy, x + dx) for dy, dx in offsets] for offsets in own]
        ring = [self.value(index, y + dy, x + dx) for dy, dx in (RING if kind in (2, 3) else ())]
        levels = [self.step // 4]
        levels += [level(sum(abs(v) for v in values)) for values in [*near, ring]]
        levels += [level(abs(sum(values))) for values in near]
        for slot in range(2):
            levels += self.seen(parents[slot] if slot < len(parents) else None, y // 2, x // 2)
        for sibling in siblings:
            levels += self.seen(sibling, y, x)
        return max(0, min(31, self.network("magnitude", levels, index, kind) >> 13))

    def seen(self, plane: int | None, y: int, x: int) -> list[int]:
        """Levels of the magnitude there, and of the sum of the nine around and at it."""
        if plane is None:
            return [0, 0]
        box = [abs(self.value(plane, y + dy, x + dx)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        return [level(abs(self.value(plane, y, x))), level(sum(box))]

    def sign(
        self,
        index: int,
        kind: int,
        y: int,
        x: int,
        parents: list[int],
        siblings: list[int | None],
    ) -> tuple[int, bool]:
        """How sure the sign at one place is (0 .. 15), and whether it is likely negative."""
        near = [self.value(index, y + dy, x + dx) for dy, dx in (*STRAIGHT, *DIAGONAL)]
        levels = [signed(v) for v in near]
        levels += [signed(self.value(index, y + dy, x + dx)) for dy, dx in FAR]
        for dy, dx in ((0, 0), *STRAIGHT):
            value = self.value(parents[-1], y // 2 + dy, x // 2 + dx) if parents else 0
            levels.append(signed(value))
        for sibling in siblings[:4]:
            if sibling is None:
                levels += [0, 0]
                continue
            here = self.value(sibling, y, x)
            agreement = sum(
                sign_of(mine) * sign_of(self.value(sibling, y + dy, x + dx))
                for mine, (dy, dx) in zip(near, (*STRAIGHT, *DIAGONAL), strict=True)
            )
            levels += [signed(here), signed(agreement * sign_of(here))]
        number = self.network("sign", levels, index, kind)
        number -= self.network("sign", [-n for n in levels], index, kind)
        return min(15, abs(number) >> 13), number < 0

    def network(self, name: str, x: list[int], plane: int, kind: int) -> int:
        """The output of one context network."""

        def array(part: str) -> list[int]:
            return self.tables[f"tables.{name}.{part}"][1]

        hidden = len(array("last"))

        def layer(weights: list[int], values: list[int], biases: list[int]) -> list[int]:
            rows = [weights[i * len(values) : (i + 1) * len(values)] for i in range(hidden)]
            sums = [sum(w * v for w, v in zip(row, values, strict=True)) for row in rows]
            return [
                max(0, min(255, (total + bias) >> 8))
                for total, bias in zip(sums, biases, strict=True)
            ]

        start = plane * hidden * len(x)
        place = 4 * plane + kind
        biases = array("first_bias")[place * hidden : (place + 1) * hidden]
        values = layer(array("first")[start : start + hidden * len(x)], x, biases)
        values = layer(array("second"), values, array("second_bias"))
        total = sum(w * v for w, v in zip(array("last"), values, strict=True))
        return total + array("last_bias")[place]

    def value(self, plane: int, y: int, x: int) -> int:
        """Cut to -255 .. 255; 0 outside of the plane and where nothing is decoded yet."""
        values = self.planes[plane]
        inside = 0 <= y < len(values) and 0 <= x < len(values[0])
        return max(-255, min(255, values[y][x])) if inside else 0


def level(number: int) -> int:
    """16 log2(1 + number), its fraction by the next four bits."""
    octave = (number + 1).bit_length() - 1
    return 16 * octave + ((16 * (number + 1)) >> octave) - 16


def signed(number: int) -> int:
    """The level of the magnitude with the number's sign."""
    return sign_of(number) * level(abs(number))


def sign_of(number: int) -> int:
    """-1, 0 or 1."""
    return (number > 0) - (number < 0)


def wavelet(levels: int) -> list[tuple[int, int, int | None, bool]]:
    """Bands of the architectures `cae` and `generative`."""
    bands: list[tuple[int, int, int | None, bool]] = [(3, 2**levels, None, True)]
    for level in range(levels, 0, -1):
        for _ in range(3):
            bands.append((3, 2**level, len(bands) - 3 if level < levels else None, False))
    return bands


def bands_of(folder: Path) -> list[tuple[int, int, int | None, bool]]:
    """The latent of a model's folder."""
    facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    if facts["architecture"] == "cae2018":
        return 3 * [(facts["config"]["channels"], 8, None, False)]
    return wavelet(facts["config"]["levels"])


def lossless(data: bytes) -> Any:
    """The samples (h, w, 3) of a file that holds them exactly, by any reader of WebP."""
    chunk = container(data)["blocks"][5]
    chunk = b"WEBPVP8L" + struct.pack("<I", len(chunk)) + chunk + bytes(len(chunk) % 2)
    webp = b"RIFF" + struct.pack("<I", len(chunk)) + chunk
    return np.asarray(Image.open(io.BytesIO(webp)).convert("RGB"))


def decode(data: bytes, folder: Path) -> list[list[Grid]]:
    """Symbols of every tile, plane by plane."""
    resilient = data[4] == 0x81
    file = reference_resilient.container(data) if resilient else container(data)
    bands = bands_of(folder)
    tables = tensors_of(folder / "model.safetensors")
    multiple = max(band[1] for band in bands)
    result = []
    columns = -(-file["width"] // TILE_PX)
    for number, payload in enumerate(file["tiles"]):
        top, left = (TILE_PX * n for n in divmod(number, columns))
        size = tuple(
            min(TILE_PX, -(-side // multiple) * multiple - start)
            for side, start in ((file["height"], top), (file["width"], left))
        )

        def planes(payload: bytes, size: tuple[int, ...]) -> list[Grid]:
            return Latent(payload, bands, tables, (size[0], size[1]), file["step"]).planes

        if resilient:
            strides = [band[1] for band in bands for _ in range(band[0])]
            shape = (size[0], size[1])
            result.append(reference_resilient.joined(payload, file["side"], shape, strides, planes))
        else:
            result.append(planes(payload, size))
    return result
