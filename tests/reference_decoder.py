"""A second decoder of .lino files, down to the symbols, written from docs/bitstream.md alone.

It shares no code with the package, computes with Python's integers only, one symbol at a time, and
takes nothing but the tables from a model's folder. Slow, and meant to be read beside the document.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import reference_resilient

TILE_PX = 1024
THRESHOLDS = (
    3, 3, 5, 7, 9, 12, 17, 23, 31, 42, 58, 79, 108, 148, 202, 276, 376, 514, 702, 960, 1311,
    1790, 2446, 3341, 4564, 6235, 8517,
)  # fmt: skip
INVERSE_STEPS = (
    262144, 259320, 256527, 253763, 251030, 248326, 245651, 243005, 240387, 237798, 235236,
    232702, 230195, 227716, 225263, 222836, 220436, 218061, 215712, 213389, 211090, 208816,
    206567, 204342, 202141, 199963, 197809, 195678, 193571, 191485, 189423, 187382, 185364,
    183367, 181392, 179438, 177505, 175593, 173701, 171830, 169979, 168148, 166337, 164545,
    162773, 161019, 159285, 157569, 155872, 154193, 152532, 150889, 149263, 147655, 146065,
    144491, 142935, 141395, 139872, 138366, 136875, 135401, 133942, 132499,
)  # fmt: skip
PASS_OFFSETS = ((0, 0), (1, 1), (0, 1), (1, 0))
NEAR = {  # neighbours (dy, dx) of the four own features of each pass, by what is already known
    0: ((), (), (), ()),
    1: ((), (), ((-1, -1), (-1, 1), (1, -1), (1, 1)), ()),
    2: (
        ((0, -1), (0, 1)), ((-1, 0), (1, 0)), (),
        ((-2, -1), (-2, 1), (2, -1), (2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2)),
    ),
    3: (
        ((0, -1), (0, 1)), ((-1, 0), (1, 0)), ((-1, -1), (-1, 1), (1, -1), (1, 1)),
        ((-2, -1), (-2, 1), (2, -1), (2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2)),
    ),
}  # fmt: skip

Grid = list[list[int]]


def tensors_of(path: Path) -> dict[str, tuple[list[int], list[int]]]:
    """Integer tensors of a safetensors file: name -> (shape, numbers)."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    result = {}
    for name, facts in json.loads(data[8 : 8 + length]).items():
        if name.startswith("tables."):
            start, end = facts["data_offsets"]
            code = {"I32": "i", "U16": "H"}[facts["dtype"]]
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
        self.facts: list[tuple[int, bool, list[int], list[int]]] = []
        first = [sum(band[0] for band in bands[:i]) for i in range(len(bands))]
        for channels, stride, parent, smooth in bands:
            for channel in range(channels):
                parents = [] if parent is None else sorted({first[parent], first[parent] + channel})
                siblings = [
                    i
                    for i, (s, smooth_, *_) in enumerate(self.facts)
                    if s == stride and not smooth_
                ]
                self.facts.append((stride, smooth, parents, siblings[-11:]))
                self.plane = [[0] * (size[1] // stride) for _ in range(size[0] // stride)]
                self.planes.append(self.plane)
                self.decode_plane(smooth, parents, siblings[-11:])

    def decode_plane(self, smooth: bool, parents: list[int], siblings: list[int]) -> None:
        index = len(self.planes) - 1
        octaves = self.tables["tables.occupied"][0][1]
        ones = self.tables["tables.occupied"][1][
            index * octaves + min(self.step // 64, octaves - 1)
        ]
        if not self.decoder.symbol(cumulative([65536 - ones, ones])):
            return
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
                bins = [3 * min(self.step // 64, 8) + min(kind, 2)] * len(places)
            else:
                bins = [self.bin(index, kind, y, x, parents, siblings) for y, x in places]
            residuals = self.residuals(index, bins)
            predictions = [
                self.prediction(kind, size // 2, y, x) if smooth else 0 for y, x in places
            ]
            for (y, x), prediction, residual in zip(places, predictions, residuals, strict=True):
                self.plane[y][x] = prediction + residual

    def residuals(self, index: int, bins: list[int]) -> list[int]:
        """Tokens table by table, then signs, then the extra bits token by token."""
        tokens = [0] * len(bins)
        _, count, size = self.tables["tables.frequencies"][0]
        for table in sorted(set(bins)):
            start = (index * count + table) * size
            sums = cumulative(self.tables["tables.frequencies"][1][start : start + size])
            for i in [i for i, b in enumerate(bins) if b == table]:
                tokens[i] = self.decoder.symbol(sums)
        negative = [token > 0 and self.decoder.bits(1) == 1 for token in tokens]
        magnitudes = tokens[:]
        for token in range(16, max(tokens) + 1):
            octave, half = divmod(token - 16, 2)
            for i in [i for i, t in enumerate(tokens) if t == token]:
                base = (16 << octave) + half * (8 << octave)
                magnitudes[i] = base + self.decoder.bits(3 + octave)
        return [-m if n else m for m, n in zip(magnitudes, negative, strict=True)]

    def prediction(self, kind: int, half: int, y: int, x: int) -> int:
        """Rounded mean of the coarser grid's nearest values inside the plane."""
        if kind == 0:
            return 0
        straight = ((-1, 0), (1, 0), (0, -1), (0, 1))
        offsets = PASS_DIAGONAL if kind == 1 else straight
        near = [
            self.plane[y + dy * half][x + dx * half]
            for dy, dx in offsets
            if 0 <= y + dy * half < len(self.plane) and 0 <= x + dx * half < len(self.plane[0])
        ]
        return (2 * sum(near) + len(near)) // (2 * len(near))

    def bin(
        self, index: int, kind: int, y: int, x: int, parents: list[int], siblings: list[int]
    ) -> int:
        """Number of thresholds that are not above the context."""
        features = [1, INVERSE_STEPS[self.step % 64] >> (self.step // 64) >> 6]
        for neighbours in NEAR[kind]:
            features.append(sum(self.magnitude(index, y + dy, x + dx) for dy, dx in neighbours))
        for parent in parents:
            features += self.seen(parent, y // 2, x // 2)
        for sibling in siblings:
            features += self.seen(sibling, y, x)
        _, passes, size = self.tables["tables.weights"][0]
        start = (index * passes + kind) * size
        weights = self.tables["tables.weights"][1][start : start + len(features)]
        context = sum(w * f for w, f in zip(weights, features, strict=True))
        return sum(threshold <= context for threshold in THRESHOLDS)

    def seen(self, plane: int, y: int, x: int) -> list[int]:
        """The magnitude there, and the sum of the nine around and at it."""
        box = [self.magnitude(plane, y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        return [self.magnitude(plane, y, x), sum(box)]

    def magnitude(self, plane: int, y: int, x: int) -> int:
        """Capped at 255; 0 outside of the plane and where nothing is decoded yet."""
        values = self.planes[plane]
        inside = 0 <= y < len(values) and 0 <= x < len(values[0])
        return min(abs(values[y][x]), 255) if inside else 0


PASS_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))


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
