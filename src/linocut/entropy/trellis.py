"""The quantiser of detail planes: two interleaved ones, and a trellis that says which is in force.

    level:        -4  -3  -2  -1   0   1   2   3   4     times the spacing
    quantiser 0:   *       *       *       *       *     magnitude k is level 2 k
    quantiser 1:       *       *   *   *       *         magnitude k is level 2 k - 1; 0 is 0

A symbol is a level. What is coded is its magnitude k in the quantiser in force, which follows from
the parities of all magnitudes before, along a pass and from one pass of a plane to the next: eight
states, three bits of memory b, with

    b(t) = parity(t) ^ b(t - 2) ^ b(t - 3)        quantiser(t) = b(t - 1)

So the levels that an encoder may choose from lie half as far apart as those that a decoder tells
apart at any one place: about a decibel less error for the same bits. The encoder finds the cheapest
path with the Viterbi algorithm.

Sources: Marcellin, Fischer, "Trellis coded quantization", IEEE Trans. Communications 1990; Joshi,
Crump, Fischer, "Image subband coding using arithmetic coded trellis coded quantization", IEEE
Trans. CSVT 1995, whose union quantisers these are.
"""

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.planes import Integers
from linocut.entropy.tables import TOKEN_EXTRA_BITS, tokens_of

QUANTISERS = 2
STATES = 8
START = 0
"""State before the first symbol of a plane."""

LARGEST_MAGNITUDE = 16_382
"""An encoder's; the level is then at most 32764."""

LARGEST_SIZE = np.float32(65_536.0)
"""Sizes beyond it, which have no level near them anyway, count as this one."""

SETTLE = 64
"""Symbols after which the costs of all paths are made small again, so that digits suffice."""

Path = NDArray[np.uint8]
"""Quantisers in force, 0 or 1, (n,)."""


def magnitudes_of(levels: Integers) -> Integers:
    """k of every level: the same in both quantisers."""
    magnitudes: Integers = (np.abs(levels) + 1) >> 1
    return magnitudes


def level_of(quantiser: int, magnitude: int) -> int:
    """The level, not negative, of a magnitude."""
    return 2 * magnitude - quantiser if magnitude else 0


def next_state(state: int, magnitude: int) -> int:
    """The state after a symbol."""
    return (2 * state & 6) | ((magnitude ^ state >> 1 ^ state >> 2) & 1)


def path_of(magnitudes: Integers, state: int) -> tuple[Path, int]:
    """The quantiser in force at every magnitude (n,), and the state after them.

    The recursion of the module times 1 + D^2 + D^3 + D^4 is b(t) ^ b(t - 7) = a sum of parities:
    seven interleaved running sums.
    """
    before = [state >> 2 & 1, state >> 1 & 1, state & 1]
    head = [before[0], before[1], before[2] ^ before[0]]
    parities = np.concatenate([np.array(head, np.uint8), (magnitudes & 1).astype(np.uint8)])
    sums = parities.copy()
    for delay in (2, 3, 4):
        sums[delay:] ^= parities[:-delay]
    filled = np.concatenate([sums, np.zeros(-len(sums) % 7, np.uint8)]).reshape(-1, 7)
    bits = np.bitwise_xor.accumulate(filled, axis=0).ravel()[: len(sums)]
    end = int(bits[-1]) | int(bits[-2]) << 1 | int(bits[-3]) << 2
    return bits[2:-1], end


def cheapest_path(
    sizes: NDArray[np.float32],
    bins: NDArray[np.uint8],
    lengths: NDArray[np.float32],
    price: float,
    state: int,
) -> tuple[Integers, int]:
    """The levels, not negative, of the path of least squared error plus price times bits.

    Args:
        sizes: (n,) what is to be coded, without its sign, in spacings.
        bins: (n,) table of each.
        lengths: (2, BINS, TOKENS) bits of every token, by quantiser.
        price: squared error, in spacings^2, that a bit is worth.
        state: before the first one.

    Returns:
        Levels (n,), and the state after them.
    """
    sizes = np.where(sizes < LARGEST_SIZE, sizes, LARGEST_SIZE)
    prices = np.empty((len(sizes), QUANTISERS, 2), np.float32)
    choices = np.empty((len(sizes), QUANTISERS, 2), np.int32)
    for quantiser in range(QUANTISERS):
        for parity in range(2):
            prices[:, quantiser, parity], choices[:, quantiser, parity] = _cheapest(
                sizes, bins, lengths[quantiser], price, quantiser, parity
            )
    states = np.arange(STATES)
    low, first_parity = states >> 1, (states ^ states >> 2) & 1
    costs = np.full(STATES, np.inf, np.float32)
    costs[state] = 0.0
    decisions = np.empty((len(sizes), STATES), np.bool_)
    branches = prices[:, low & 1, first_parity], prices[:, low & 1, 1 - first_parity]
    for i, (first, second) in enumerate(zip(*branches, strict=True)):
        first, second = costs[low] + first, costs[low + 4] + second
        np.less(second, first, out=decisions[i])
        costs = np.where(decisions[i], second, first)
        if i % SETTLE == SETTLE - 1:
            costs -= costs.min()
    end = state = int(np.argmin(costs))
    levels = np.empty(len(sizes), np.int32)
    for i in range(len(sizes) - 1, -1, -1):
        before = state >> 1 | int(decisions[i, state]) << 2
        quantiser, odd = before & 1, (state ^ before >> 1 ^ before >> 2) & 1
        levels[i] = level_of(quantiser, int(choices[i, quantiser, odd]))
        state = before
    return levels, end


def _cheapest(
    sizes: NDArray[np.float32],
    bins: NDArray[np.uint8],
    lengths: NDArray[np.float32],
    price: float,
    quantiser: int,
    parity: int,
) -> tuple[NDArray[np.float32], Integers]:
    """Cost and magnitude of one parity: the nearest, the next smaller, or zero."""
    rounded = np.rint(np.float32(0.25) * (sizes + np.float32(quantiser - 2 * parity)))
    half = np.clip(rounded, 0, LARGEST_MAGNITUDE // 2).astype(np.int32)
    nearest = 2 * half + parity

    def cost(magnitudes: Integers) -> NDArray[np.float32]:
        tokens = tokens_of(magnitudes)
        whole = (TOKEN_EXTRA_BITS[tokens] + (magnitudes > 0)).astype(np.float32)
        levels = np.where(magnitudes > 0, 2 * magnitudes - quantiser, 0).astype(np.float32)
        error = sizes - levels
        found: NDArray[np.float32] = error * error + np.float32(price) * (
            lengths[bins, tokens] + whole
        )
        return found

    chosen, lowest = nearest.copy(), cost(nearest)
    candidates = [(nearest - 2, nearest >= 2)]
    if parity == 0:
        candidates.append((np.zeros_like(nearest), nearest >= 4))
    for magnitudes, allowed in candidates:
        found = cost(np.maximum(magnitudes, 0))
        better = allowed & (found < lowest)
        chosen[better], lowest[better] = magnitudes[better], found[better]
    return lowest, chosen
