"""From symbols to pixels a second time, written from docs/bitstream.md alone, in numpy.

Shares no code with the package. Works on whole pictures: windows only bound memory.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import reference_decoder

Array = NDArray[np.float32]
GAIN = 1.230174104914001 / math.sqrt(2)
COLOUR = np.array(
    [[1 / 3**0.5] * 3, [1 / 6**0.5, 1 / 6**0.5, -2 / 6**0.5], [0.5**0.5, -(0.5**0.5), 0.0]]
)


class Synthesis:
    """The synthesis network of a model.

    Args:
        architecture: its name.
        tensors: of the model, `network.` taken off their names.
        correction: block 8 of the file, or nothing.
    """

    def __init__(self, architecture: str, tensors: dict[str, Array], correction: bytes) -> None:
        self.architecture, self.tensors = architecture, dict(tensors)
        self.by_place: list[Array] = []
        last = "synthesis_net.leave.weight"
        if correction:
            weight = tensors[last]
            s = numbers_of(correction, weight.shape[1])[..., None, None] / np.float32(4)
            self.tensors[last] = weight * (1 + np.repeat(s[:3], 4, axis=0))
            self.by_place = [weight[:4] * s[3], weight[:4] * s[4]]

    def __call__(self, bands: list[Array], step: float) -> Array:
        """Bands (c, h, w) in grey levels -> RGB (3, h, w), 0 .. 1 but not clipped."""
        if self.architecture == "cae2018":
            channels = np.concatenate([self._component(band) for band in bands])
        else:
            channels = self._wavelet(bands)
            channels = channels + step / 4 * self._repair(channels, bands, step)
        return np.einsum("ij,ihw->jhw", COLOUR, channels) / 255 + 0.5

    # --- parts of networks ------------------------------------------------------------------------

    def _conv(self, name: str, x: Array, stride: int = 1) -> Array:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        frame = weight.shape[2] // 2
        x = np.pad(x, ((0, 0), (frame, frame), (frame, frame)))
        views = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))
        views = views[:, ::stride, ::stride]
        return np.einsum("chwij,ocij->ohw", views, weight) + bias[:, None, None]

    def _grow(self, name: str, x: Array) -> Array:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        channels, height, width = weight.shape[1], *x.shape[1:]
        result = np.zeros((channels, 2 * height + 2, 2 * width + 2), np.float32)
        for i in range(4):
            for j in range(4):
                part = np.einsum("chw,co->ohw", x, weight[:, :, i, j])
                result[:, i : i + 2 * height : 2, j : j + 2 * width : 2] += part
        return result[:, 1:-1, 1:-1] + bias[:, None, None]

    def _prelu(self, name: str, x: Array) -> Array:
        return np.where(x > 0, x, x * self.tensors[f"{name}.weight"][:, None, None])

    def _block(self, name: str, x: Array) -> Array:
        inner = self._prelu(f"{name}.body.1", self._conv(f"{name}.body.0", x))
        return x + self._conv(f"{name}.body.2", inner)

    def _modulated(self, name: str, x: Array, step: float) -> Array:
        first, last = (
            (self.tensors[f"{name}.net.{i}.weight"], self.tensors[f"{name}.net.{i}.bias"])
            for i in (0, 2)
        )
        hidden = first[0][:, 0] * np.float32(math.log2(step / 32) / 2) + first[1]
        numbers = last[0] @ leaky(hidden) + last[1]
        scale, shift = np.split(numbers, 2)
        return x * (1 + scale[:, None, None]) + shift[:, None, None]

    # --- networks ---------------------------------------------------------------------------------

    def _wavelet(self, bands: list[Array]) -> Array:
        levels = (len(bands) - 1) // 3
        x, coarser = bands[0], None
        for level in range(levels, 0, -1):
            place = 1 + 3 * (levels - level)
            detail = np.concatenate(bands[place : place + 3])
            gained = detail
            if coarser is not None:
                name = f"synthesis_pyramid.gains.{level - 1}.net"
                hidden = leaky(self._conv(f"{name}.0", np.log1p(np.abs(coarser) / 8)))
                n = self._conv(f"{name}.2", hidden)
                gained = detail * np.exp(enlarged(2.08 * np.tanh(n / 4)))
            coarser = detail
            hl, lh, hh = np.split(gained, 3)
            name = f"synthesis_pyramid.levels.{level - 1}"
            columns = self.tensors[f"{name}.columns.weights"][..., 0, 0]
            low, high = joined(x, lh, columns, 1), joined(hl, hh, columns, 1)
            x = joined(low, high, self.tensors[f"{name}.rows.weights"][..., 0, 0], 2)
        return x

    def _repair(self, x: Array, _: list[Array], step: float) -> Array:
        blocks = unshuffled(x) / 64
        plane = np.full((1, *blocks.shape[1:]), math.log2(step / 32) / 2, np.float32)
        f = self._conv("synthesis_net.enter", np.concatenate([blocks, plane]))
        f = self._modulated("synthesis_net.modulate", f, step)
        f = self._prelu("synthesis_net.act", f)
        deep = self._conv("synthesis_net.down", f, stride=2)
        for number in range(100):
            if f"synthesis_net.deep.{number}.body.0.weight" in self.tensors:
                deep = self._block(f"synthesis_net.deep.{number}", deep)
        f = f + shuffled(self._conv("synthesis_net.up", deep))
        f = self._prelu("synthesis_net.merge.1", self._conv("synthesis_net.merge.0", f))
        return self._last("synthesis_net.leave", f, x, step)

    def _last(self, name: str, f: Array, linear: Array, step: float) -> Array:
        result = shuffled(self._conv(name, f))
        for weight, place in zip(self.by_place, quiet_and_busy(linear[0], step), strict=False):
            luma = Synthesis("", {"l.weight": weight, "l.bias": np.zeros(4)}, b"")._conv("l", f)
            result[0] += place * shuffled(luma)[0]
        return result

    def _component(self, band: Array) -> Array:
        x = band / 64
        for number in range(6):
            part = self._conv if number % 2 else self._grow
            x = part(f"synthesis_net.{2 * number}", x)
            if number < 5:
                x = self._prelu(f"synthesis_net.{2 * number + 1}", x)
        return 64 * x


def numbers_of(block: bytes, count: int) -> Array:
    """The five rows of a correction."""
    bits = iter([byte >> (7 - place) & 1 for byte in block for place in range(8)])

    def number() -> int:
        if not next(bits):
            return 0
        negative, digits, magnitude = next(bits), 0, 1
        while not next(bits):
            digits += 1
        for _ in range(digits):
            magnitude = 2 * magnitude + next(bits)
        return -magnitude if negative else magnitude

    rows = [[number() for _ in range(count)] if next(bits) else [0] * count for _ in range(5)]
    rest = list(bits)
    assert len(rest) < 8
    assert not any(rest)
    return np.array(rows, np.float32)


def quiet_and_busy(luma: Array, step: float) -> tuple[Array, Array]:
    """Two planes from 0 to 1."""
    height, width = luma.shape
    deviation = np.empty_like(luma)
    for y in range(height):
        for x in range(width):
            around = luma[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].astype(np.float64)
            deviation[y, x] = around.std() / step
    octaves = np.log2(deviation + 0.01)
    return np.clip(-1 - octaves, 0, 1), np.clip(octaves, 0, 1)


def leaky(x: Array) -> Array:
    return np.where(x > 0, x, np.float32(0.1) * x)


def shuffled(x: Array) -> Array:
    channels, height, width = x.shape
    blocks = x.reshape(channels // 4, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
    return blocks.reshape(channels // 4, 2 * height, 2 * width)


def unshuffled(x: Array) -> Array:
    channels, height, width = x.shape
    blocks = x.reshape(channels, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3)
    return blocks.reshape(4 * channels, height // 2, width // 2)


def enlarged(x: Array) -> Array:
    """Twice as large in both directions, bilinear."""
    for axis in (1, 2):
        moved = np.moveaxis(x, axis, -1)
        before = np.concatenate([moved[..., :1], moved[..., :-1]], -1)
        after = np.concatenate([moved[..., 1:], moved[..., -1:]], -1)
        pair = np.stack([0.75 * moved + 0.25 * before, 0.75 * moved + 0.25 * after], -1)
        x = np.moveaxis(pair.reshape(*moved.shape[:-1], -1), -1, axis)
    return x


def joined(low: Array, high: Array, weights: Array, axis: int) -> Array:
    """The lifting steps backwards along an axis; weights (4, channels)."""
    even, odd = np.moveaxis(low, axis, -1) * GAIN, np.moveaxis(high, axis, -1) / GAIN
    a, b, g, d = weights[..., None, None]

    def around_even() -> Array:
        return odd + np.concatenate([odd[..., :1], odd[..., :-1]], -1)

    def around_odd() -> Array:
        return even + np.concatenate([even[..., 1:], even[..., -1:]], -1)

    even = even - d * around_even()
    odd = odd - g * around_odd()
    even = even - b * around_even()
    odd = odd - a * around_odd()
    result = np.stack([even, odd], -1).reshape(*even.shape[:-1], -1)
    return np.moveaxis(result, -1, axis)


def floats_of(path: Path) -> dict[str, Array]:
    """Float tensors of a safetensors file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    result = {}
    for name, facts in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__" and facts["dtype"] in ("F32", "F16"):
            start, end = (8 + length + offset for offset in facts["data_offsets"])
            numbers = np.frombuffer(data[start:end], "<f4" if facts["dtype"] == "F32" else "<f2")
            result[name] = numbers.astype(np.float32).reshape(facts["shape"])
    return result


def picture(data: bytes, folder: Path) -> NDArray[np.uint8]:
    """A whole plain file -> uint8 (h, w, 3)."""
    file, tensors = reference_decoder.container(data), floats_of(folder / "model.safetensors")
    step = 2 ** (file["step"] / 64)
    bands = reference_decoder.bands_of(folder)
    tiles = reference_decoder.decode(data, folder)
    columns = -(-file["width"] // 1024)
    start, latent = 0, []
    own = np.frombuffer(file["blocks"].get(3, b""), "<i2").astype(np.float32) / 32767
    for number, (channels, _, _, smooth) in enumerate(bands):
        rows = [
            np.concatenate([np.array(t[start : start + channels]) for t in row], axis=2)
            for row in (tiles[i : i + columns] for i in range(0, len(tiles), columns))
        ]
        spacing = step if smooth else 0.632 * step
        r = spacing * np.concatenate(rows, axis=1).astype(np.float32)
        matrix, mean = own[: channels**2].reshape(-1, channels), np.zeros(channels)
        own = own[channels**2 :]
        if f"rotation.{number}.matrix" in tensors:
            matrix = tensors[f"rotation.{number}.matrix"]
            mean = tensors[f"rotation.{number}.mean"]
        latent.append(np.einsum("ji,jhw->ihw", matrix, r) + mean[:, None, None])
        start += channels
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    network = {name.removeprefix("network."): values for name, values in tensors.items()}
    x = Synthesis(about["architecture"], network, file["blocks"].get(8, b""))(latent, 0.76 * step)
    pixels = np.clip(np.rint(x * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return pixels[: file["height"], : file["width"]]
