"""Reed-Solomon codes over GF(256), vectorised over the codewords of a whole file.

    data --cut into codewords of at most 255 - parity bytes--> [data | parity] [data | parity] ...

A codeword with p parity bytes is repaired when at most p / 2 of its bytes are wrong, whatever the
number of wrong bits in each. Codewords follow each other in place: what fails stays local.

Field: x^8 + x^4 + x^3 + x^2 + 1, generator 2, first consecutive root 2^0 (as in QR codes).
Source: Berlekamp, "Algebraic Coding Theory", 1968; Massey, "Shift-register synthesis and BCH
decoding", IEEE Trans. Inf. Theory 1969; Forney, "On decoding BCH codes", same journal 1965.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

LONGEST = 255
"""Bytes of a codeword, parity included."""

_BATCH = 256
"""Codewords that are worked on at once: at most 20 MB of products."""


def _tables() -> tuple[Bytes, NDArray[np.int64], Bytes]:
    power = np.zeros(510, dtype=np.uint8)
    logarithm = np.zeros(256, dtype=np.int64)
    value = 1
    for exponent in range(255):
        power[exponent] = power[exponent + 255] = value
        logarithm[value] = exponent
        value = value << 1 ^ (0x11D if value & 128 else 0)
    product = power[logarithm[:, None] + logarithm[None, :]]
    product[0, :] = product[:, 0] = 0
    return power, logarithm, product


POWER, _LOGARITHM, PRODUCT = _tables()
"""2^i for i < 510; products of all pairs (256, 256)."""

_PAIRS = PRODUCT.ravel()


def _times(a: Bytes, b: Bytes) -> Bytes:
    """Products in the field, with broadcasting."""
    products: Bytes = _PAIRS[a.astype(np.uint16) << 8 | b]
    return products


def protected_length(length: int, parity: int) -> int:
    """Bytes that `length` bytes take with their parity."""
    return length + parity * _codewords(length, parity)


def protect(data: bytes, parity: int) -> bytes:
    """Cut data into codewords of equal length, to within a byte, and add parity to each.

    Args:
        data: any number of bytes; none stay none.
        parity: bytes a codeword, 2 to 254.
    """
    source = np.frombuffer(data, dtype=np.uint8)
    parts = []
    start = 0
    for count, size in _shape(len(data), parity):
        words = source[start : start + count * size].reshape(count, size)
        start += count * size
        for first in range(0, count, _BATCH):
            batch = words[first : first + _BATCH]
            parts.append(np.concatenate([batch, _parity(batch, parity)], axis=1).tobytes())
    return b"".join(parts)


def recover(area: bytes, length: int, parity: int) -> tuple[bytes, NDArray[np.bool_], int]:
    """Undo `protect` on damaged bytes.

    Args:
        area: what is left of `protect`'s bytes; missing ones at the end may be just absent.
        length: of the data.
        parity: as given to `protect`.

    Returns:
        The data, shorter than `length` where `area` ends early; for each of its bytes whether its
        codeword is whole or was repaired; and the number of repaired bytes.
    """
    source = np.frombuffer(area, dtype=np.uint8)
    pieces: list[Bytes] = []
    sound: list[NDArray[np.bool_]] = []
    repaired = start = 0
    for count, size in _shape(length, parity):
        whole = min(count, (len(source) - start) // (size + parity))
        for first in range(0, whole, _BATCH):
            end = min(first + _BATCH, whole)
            at = start + first * (size + parity)
            words = source[at : at + (end - first) * (size + parity)].reshape(end - first, -1)
            fixed, good = _correct(words, parity)
            repaired += int(np.count_nonzero(fixed != words))
            pieces.append(fixed[:, :size].ravel())
            sound.append(np.repeat(good, size))
        start += whole * (size + parity)
        if whole < count:
            rest = source[start : start + size]
            pieces.append(rest)
            sound.append(np.zeros(len(rest), dtype=np.bool_))
            break
    if not pieces:
        return b"", np.zeros(0, dtype=np.bool_), 0
    return np.concatenate(pieces).tobytes(), np.concatenate(sound), repaired


def _codewords(length: int, parity: int) -> int:
    return -(-length // (LONGEST - parity))


def _shape(length: int, parity: int) -> list[tuple[int, int]]:
    """Runs of codewords as (count, data bytes of each): the longer ones, then the shorter ones."""
    count = _codewords(length, parity)
    if count == 0:
        return []
    size = -(-length // count)
    short = count * size - length
    runs = [(count - short, size), (short, size - 1)]
    return [run for run in runs if run[0]]


@cache
def _generator(parity: int) -> Bytes:
    """Coefficients of prod (x - 2^i) below the leading one, highest first: uint8 (parity,)."""
    polynomial = np.ones(1, dtype=np.uint8)
    for root in range(parity):
        longer = np.append(polynomial, np.uint8(0))
        longer[1:] ^= PRODUCT[polynomial, POWER[root]]
        polynomial = longer
    return polynomial[1:]


@cache
def _remainders(parity: int) -> Bytes:
    """x^(parity + k) modulo the generator polynomial, k from the largest to 0: (255 - p, p)."""
    generator = _generator(parity)
    rows = [generator]
    for _ in range(LONGEST - parity - 1):
        shifted = np.append(rows[-1][1:], np.uint8(0))
        rows.append(shifted ^ _times(rows[-1][:1], generator))
    return np.array(rows[::-1])


def _parity(words: Bytes, parity: int) -> Bytes:
    """Remainders (n, parity) of words (n, size) times x^parity by the generator polynomial."""
    rows = _remainders(parity)[LONGEST - parity - words.shape[1] :]
    remainder: Bytes = np.bitwise_xor.reduce(_times(words[:, :, None], rows), axis=1)
    return remainder


@cache
def _points(parity: int) -> Bytes:
    """2^(i * k) for i < parity (rows) and k from LONGEST - 1 to 0 (columns)."""
    points: Bytes = POWER[np.arange(parity)[:, None] * np.arange(LONGEST - 1, -1, -1) % 255]
    return points


def _syndromes(words: Bytes, parity: int) -> Bytes:
    """Words (n, length) as polynomials at 2^0 .. 2^(parity - 1): uint8 (n, parity)."""
    terms = _times(words[:, None, :], _points(parity)[:, LONGEST - words.shape[1] :])
    syndromes: Bytes = np.bitwise_xor.reduce(terms, axis=2)
    return syndromes


def _correct(words: Bytes, parity: int) -> tuple[Bytes, NDArray[np.bool_]]:
    """Repaired words (n, length), and which of them are right; the others stay as they are."""
    syndromes = _syndromes(words, parity)
    damaged = np.flatnonzero(syndromes.any(axis=1))
    good = np.ones(len(words), dtype=np.bool_)
    if not len(damaged):
        return words, good
    locator, errors = _berlekamp_massey(syndromes[damaged])
    patch = _error_values(locator, syndromes[damaged], words.shape[1])
    candidate = words[damaged] ^ patch
    repaired = (
        (errors <= parity // 2)
        & (np.count_nonzero(patch, axis=1) == errors)
        & ~_syndromes(candidate, parity).any(axis=1)
    )
    fixed = words.copy()
    fixed[damaged[repaired]] = candidate[repaired]
    good[damaged[~repaired]] = False
    return fixed, good


def _berlekamp_massey(syndromes: Bytes) -> tuple[Bytes, NDArray[np.int64]]:
    """Error locators (n, parity + 1), lowest coefficient first, and the numbers of errors (n,)."""
    count, parity = syndromes.shape
    locator = np.zeros((count, parity + 1), dtype=np.uint8)
    locator[:, 0] = 1
    previous = locator.copy()
    scale = np.ones(count, dtype=np.uint8)
    errors = np.zeros(count, dtype=np.int64)
    for step in range(parity):
        previous[:, 1:] = previous[:, :-1].copy()
        previous[:, 0] = 0
        terms = _times(locator[:, : step + 1], syndromes[:, step::-1])
        discrepancy = np.bitwise_xor.reduce(terms, axis=1)
        updated = locator ^ _times(_divide(discrepancy, scale)[:, None], previous)
        longer = (discrepancy != 0) & (2 * errors <= step)
        previous[longer] = locator[longer]
        scale[longer] = discrepancy[longer]
        errors[longer] = step + 1 - errors[longer]
        locator = updated
    return locator, errors


def _error_values(locator: Bytes, syndromes: Bytes, length: int) -> Bytes:
    """Forney's formula at every root of the locators: what to add to words, uint8 (n, length)."""
    parity = syndromes.shape[1]
    half = parity // 2 + 1
    evaluator = np.zeros((len(locator), half), dtype=np.uint8)
    for degree in range(half):
        terms = _times(locator[:, : degree + 1], syndromes[:, degree::-1])
        evaluator[:, degree] = np.bitwise_xor.reduce(terms, axis=1)
    exponents = np.arange(length - 1, -1, -1)
    roots = _evaluate(locator[:, :half], exponents) == 0
    slope = locator[:, 1:half].copy()
    slope[:, 1::2] = 0
    values = _divide(_evaluate(evaluator, exponents), _evaluate(slope, exponents))
    values = _times(values, POWER[exponents])
    return np.where(roots, values, 0).astype(np.uint8)


def _evaluate(polynomials: Bytes, exponents: NDArray[np.int64]) -> Bytes:
    """Polynomials (n, degrees), lowest first, at 2^-e for each exponent e: uint8 (n, e)."""
    degrees = np.arange(polynomials.shape[1])
    terms = _times(polynomials[:, :, None], POWER[-degrees[:, None] * exponents % 255])
    result: Bytes = np.bitwise_xor.reduce(terms, axis=1)
    return result


def _divide(a: Bytes, b: Bytes) -> Bytes:
    """a / b in the field; 0 where b is 0."""
    inverse = POWER[(255 - _LOGARITHM[b]) % 255]
    return np.where(b == 0, 0, _times(a, inverse)).astype(np.uint8)
