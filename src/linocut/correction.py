"""The last layer of the decoder, fitted to each picture: a few dozen small numbers in the file.

    x_hat = linear path + sum over features c of factor[c] share[c]
    factor = 1 + s[k, c] / 4                                        for colour k = 0, 1, 2
           + quiet s[3, c] / 4 + busy s[4, c] / 4                   for luma, by place

A decoder is trained for all pictures, so for one it repairs some things too little and others too
much. How strongly each feature should speak is a least-squares problem, and the encoder solves it:
in whole numbers s, with every bit of theirs paid for like those of symbols. The decoder scales the
weights of its last layer. Quiet and busy places are those of `linocut.last_layer.quiet_and_busy`.

In a file, s is a block of its own (`linocut.bitstream`), row by row. A row is a bit 0 where all its
numbers are zero, else 1 and its numbers. A number is a bit 0 where it is zero, else 1, its sign (1:
negative) and its magnitude in Elias's gamma code. Bits fill bytes from the highest down, the last
one padded with zeros.

Related: van Rozendaal, Huijben, Cohen, "Overfitting for fun and profit: instance-adaptive data
compression", 2021, which sends updates of whole networks, found by training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from linocut.errors import BitstreamError
from linocut.last_layer import quiet_and_busy
from linocut.networks import Network, residual_gain

QUANTUM = 0.25
LARGEST = 127
ROWS = 5
"""The three colours, luma in quiet places, luma in busy ones."""
GROUPS = ((0, 3, 4), (1,), (2,))
"""Rows that make the same samples, so that they are solved for together."""
STRIP = 16
"""Rows of features that are looked at together, two rows of pixels each."""
LOOKED_AT = 2**17
"""Pixels of a tile that decide, about: of larger ones strips are left out."""
_RIDGE = 1e-4
_SWEEPS = 12

Numbers = NDArray[np.int8]


@dataclass
class NormalEquations:
    """Sums over the pixels seen so far, for the features of one network; one entry a group.

    Attributes:
        gram: (n c, n c), products of the shares of two features, for a group of n rows.
        moment: (n c), products of shares and errors.
        pixels: how many.
    """

    gram: list[NDArray[np.float64]]
    moment: list[NDArray[np.float64]]
    pixels: int = 0

    @classmethod
    def of(cls, network: Network) -> NormalEquations | None:
        """Empty ones, or None: the network has no layer that a picture could have of its own."""
        if network.last_layer is None:
            return None
        sizes = [len(rows) * network.last_layer.in_channels for rows in GROUPS]
        return cls([np.zeros((size, size)) for size in sizes], [np.zeros(size) for size in sizes])

    @torch.inference_mode()
    def add(
        self, network: Network, latent: Sequence[NDArray[np.float32]], step: float,
        picture: NDArray[np.uint8],
    ) -> None:  # fmt: skip
        """Look at a tile.

        Args:
            network: the decoder.
            latent: dequantised, bands (c, h, w) in grey levels.
            step: in grey levels.
            picture: uint8 (h, w, 3), what the tile should be; at most as large as its latent says.
        """
        layer = network.last_layer
        assert layer is not None
        height, width = (length // 2 * 2 for length in picture.shape[:2])
        if not height * width:
            return
        device = layer.weight.device
        y_hat = [torch.from_numpy(band)[None].to(device) for band in latent]
        steps = torch.tensor([step], device=device)
        linear, features = network.halves(y_hat, steps)
        gain = residual_gain(steps)
        x = torch.from_numpy(picture[:height, :width].copy()).to(device)
        wanted = network.colour(x.permute(2, 0, 1)[None].float() / 255.0)
        error = (wanted - linear[..., :height, :width]) / gain
        error = error - layer(features)[..., :height, :width]
        missing = functional.pixel_unshuffle(error, 2).view(3, 4, height // 2, width // 2)
        places = quiet_and_busy(linear, steps)[..., :height, :width]
        places = functional.pixel_unshuffle(places, 2).view(2, 4, height // 2, width // 2)
        framed = functional.pad(features, (1, 1, 1, 1))[..., : width // 2 + 2]
        weight = float(gain) ** 2
        for top in range(0, height // 2, STRIP * -(-height * width // LOOKED_AT)):
            bottom = min(top + STRIP, height // 2)
            self.pixels += 2 * (bottom - top) * width
            shares = layer.shares(framed[:, :, top : bottom + 2])
            near = places[:, None, :, top:bottom]
            seen = [
                torch.cat([shares[:, 0], *(near * shares[None, :, 0])]),
                *shares[:, 1:].unbind(1),
            ]
            for colour, share in enumerate(seen):
                flat = share.flatten(1)
                target = missing[colour, :, top:bottom].flatten()
                self.gram[colour] += weight * (flat @ flat.T).double().cpu().numpy()
                self.moment[colour] += weight * (flat @ target).double().cpu().numpy()

    def solve(self, price: float, pixels: int) -> Numbers:
        """Whole numbers (5, c) of least squared error and bits together.

        Args:
            price: squared error that a bit is worth, grey levels squared.
            pixels: of the picture, for which those seen stand.
        """
        price *= self.pixels / pixels
        numbers = np.zeros((ROWS, len(self.moment[-1])), dtype=np.int8)
        for rows, gram, moment in zip(GROUPS, self.gram, self.moment, strict=True):
            numbers[list(rows)] = _solve(gram, moment, len(rows), price)
        return numbers


def _solve(
    gram: NDArray[np.float64], moment: NDArray[np.float64], rows: int, price: float
) -> NDArray[np.int64]:
    """Numbers of a group, (rows, c); rows not worth their bits are left out, the worst first."""
    row_of = np.repeat(np.arange(rows), len(moment) // rows)
    kept = set(range(rows))

    def numbers_of(some: set[int]) -> tuple[float, NDArray[np.int64]]:
        numbers = np.zeros(len(moment), dtype=np.int64)
        chosen = np.flatnonzero(np.isin(row_of, list(some)))
        if len(chosen):
            part = gram[np.ix_(chosen, chosen)]
            numbers[chosen] = _descend(part, moment[chosen], price)
        s = QUANTUM * numbers
        bits = sum(int(code_lengths(numbers[row_of == row]).sum()) for row in some)
        return float(s @ gram @ s - 2.0 * moment @ s) + price * bits, numbers

    cost, best = numbers_of(kept)
    while kept:
        fewer = [(*numbers_of(kept - {row}), row) for row in sorted(kept)]
        least, numbers, row = min(fewer, key=lambda one: one[0])
        if least > cost:
            break
        cost, best = least, numbers
        kept.remove(row)
    return best.reshape(rows, -1)


def _descend(
    gram: NDArray[np.float64], moment: NDArray[np.float64], price: float
) -> NDArray[np.int64]:
    """Coordinate descent from the rounded least-squares solution."""
    count = len(moment)
    power = gram.diagonal().copy()
    exact = np.linalg.solve(gram + (_RIDGE * power.mean() + 1e-9) * np.eye(count), moment)
    numbers = np.clip(np.rint(exact / QUANTUM), -LARGEST, LARGEST).astype(np.int64)
    left = moment - gram @ (QUANTUM * numbers)
    for _ in range(_SWEEPS):
        changed = False
        for index in np.flatnonzero(power > 0).tolist():
            now = int(numbers[index])
            best = now + float(left[index] / power[index]) / QUANTUM
            chosen = _cheapest(best, now, float(power[index]) * QUANTUM**2 / max(price, 1e-9))
            if chosen != now:
                numbers[index], changed = chosen, True
                left -= gram[index] * (QUANTUM * (chosen - now))
        if not changed:
            break
    return numbers


def _cheapest(best: float, now: int, bits_per_square: float) -> int:
    """The whole number near `best` of least distance, weighed in bits, and code length."""
    near = max(min(round(best), LARGEST), -LARGEST)
    shorter = (1 << max(abs(near).bit_length() - 1, 0)) - 1  # the largest of the next shorter code
    tried = (now, near, shorter if near > 0 else -shorter, 0)
    costs = [
        bits_per_square * (number - best) ** 2 + max(2 * abs(number).bit_length() + 1, 1)
        for number in tried
    ]
    return tried[costs.index(min(costs))]


def code_lengths(numbers: NDArray[np.integer]) -> NDArray[np.int64]:
    """Bits of every number in a file."""
    octave = np.floor(np.log2(np.maximum(np.abs(numbers), 1))).astype(np.int64)
    return np.where(numbers == 0, 1, 3 + 2 * octave)


def pack(numbers: Numbers) -> bytes:
    """Numbers (5, c) -> a block."""
    bits = ""
    for row in numbers.tolist():
        bits += "1" if any(row) else "0"
        for number in row if any(row) else ():
            magnitude = f"{abs(number):b}"
            bits += f"1{int(number < 0)}{'0' * (len(magnitude) - 1)}{magnitude}" if number else "0"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8)


def unpack(block: bytes, network: Network) -> Numbers:
    """A block -> numbers (5, c) for the network.

    Raises:
        BitstreamError: the block is not one, or the network has no such layer.
    """
    if network.last_layer is None:
        raise BitstreamError(
            f"the file corrects a last layer, which the architecture {network.architecture} lacks"
        )
    channels = network.last_layer.in_channels
    if 8 * len(block) > ROWS * (1 + channels * (2 + 2 * LARGEST.bit_length())) + 7:
        raise BitstreamError(
            f"the correction has {len(block)} bytes, too many for {ROWS * channels} numbers"
        )
    bits = _Bits(block)
    rows = [
        [bits.number() for _ in range(channels)] if bits.take() else [0] * channels
        for _ in range(ROWS)
    ]
    bits.end()
    return np.array(rows, dtype=np.int8)


class _Bits:
    """Takes bits off the front of a block."""

    def __init__(self, block: bytes) -> None:
        self._bits, self._position = "".join(f"{byte:08b}" for byte in block), 0
        self._name = f"the correction of {len(block)} bytes"

    def take(self) -> bool:
        """The next bit."""
        self._position += 1
        if self._position > len(self._bits):
            raise BitstreamError(f"{self._name} is cut off")
        return self._bits[self._position - 1] == "1"

    def number(self) -> int:
        """The next number."""
        if not self.take():
            return 0
        negative, digits, magnitude = self.take(), 0, 1
        while not self.take():
            digits += 1
        if digits >= LARGEST.bit_length():
            raise BitstreamError(f"{self._name} holds a number beyond {LARGEST}")
        for _ in range(digits):
            magnitude = 2 * magnitude + self.take()
        return -magnitude if negative else magnitude

    def end(self) -> None:
        """Nothing but padding may be left."""
        rest = self._bits[self._position :]
        if len(rest) > 7 or "1" in rest:
            raise BitstreamError(f"{self._name} is followed by others")


def scale_of(numbers: Numbers) -> Tensor:
    """What `linocut.layers.LastLayer` takes, float32 (5, c)."""
    base = np.array([1, 1, 1, 0, 0], dtype=np.float32)[:, None]
    return torch.from_numpy(base + QUANTUM * numbers.astype(np.float32))
