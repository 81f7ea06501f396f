"""Fits the integer networks and tables of `linocut.entropy.tables` on training latents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.contexts import (
    BINS,
    LARGEST_WEIGHT,
    MAGNITUDE_INPUTS,
    SIGN_INPUTS,
    ContextNetwork,
    ContextState,
)
from linocut.entropy.passes import Passes, split
from linocut.entropy.planes import (
    Band,
    Integers,
    Pass,
    Plane,
    plane_passes,
    planes_of,
    smooth_prediction,
)
from linocut.entropy.tables import (
    FREQUENCY_BITS,
    SIGN_BINS,
    SIGN_CLASSES,
    TOKENS,
    Bins,
    EntropyTables,
    tokens_of,
)
from linocut.entropy.trellis import QUANTISERS, START, Path, magnitudes_of, path_of
from linocut.lab.config.params import Stream
from linocut.lab.fitting.context_fit import Rows, fit_magnitudes, fit_signs

ROWS = 2_000_000
"""Symbols that the context networks are trained on, about."""
ALWAYS_KEPT = 40
"""Symbols kept of every pass at least, so that small planes are not forgotten."""
PRIOR_WEIGHT = 60.0
UNSEEN_ZEROS = 0.95
"""Chance of a zero in tables of steps so coarse that a plane was empty in all that was seen."""
OCTAVES = 9

Sample = tuple[Sequence[Integers], int]
"""Symbols of one training latent and the index of the step they were quantised with."""


@dataclass(frozen=True)
class ContextNetworks:
    """Both networks and the tables' first shape: what takes long to fit and serves many codecs.

    Attributes:
        magnitude: see `linocut.entropy.tables.EntropyTables`.
        sign: likewise.
        shapes: float64 (planes, 2, BINS, TOKENS): probabilities that counts are added to.
    """

    magnitude: ContextNetwork
    sign: ContextNetwork
    shapes: NDArray[np.float64]

    @classmethod
    def of(cls, tables: EntropyTables) -> "ContextNetworks":
        """Those of a codec."""
        shapes = tables.frequencies.astype(np.float64) / (1 << FREQUENCY_BITS)
        return cls(tables.magnitude, tables.sign, shapes)


def no_contexts(bands: Sequence[Band]) -> ContextNetworks:
    """A table for each plane and fifth of an octave of the step, signs that cost a bit."""
    planes = len(planes_of(bands))
    shapes = _broad_shape() * np.ones((planes, QUANTISERS, BINS, 1))
    detail = [not plane.smooth for plane in planes_of(bands)]
    shapes[detail] *= 1.0 - UNSEEN_ZEROS
    shapes[detail, ..., 0] += UNSEEN_ZEROS
    magnitude = _silent(planes, MAGNITUDE_INPUTS)
    magnitude.first[:, :, 0] = 384  # the first input is the step, 0 .. 160
    magnitude.second[:] = 256
    magnitude.last[:] = LARGEST_WEIGHT
    return ContextNetworks(magnitude, _silent(planes, SIGN_INPUTS), shapes)


def _broad_shape() -> NDArray[np.float64]:
    """Probabilities (TOKENS,) of residuals about which nothing is known."""
    shape: NDArray[np.float64] = np.exp(-np.arange(TOKENS) / 5.0)
    shape /= shape.sum()
    return shape


def _silent(planes: int, inputs: int) -> ContextNetwork:
    return ContextNetwork(
        np.zeros((planes, 1, inputs), np.int16), np.zeros((planes, 4, 1), np.int32),
        np.zeros((1, 1), np.int16), np.zeros(1, np.int32),
        np.zeros(1, np.int16), np.zeros((planes, 4), np.int32),
    )  # fmt: skip


def fit_networks(
    bands: Sequence[Band], samples: Sequence[Sample], *, iterations: int, seed: int,
    start: ContextNetworks | None = None,
) -> ContextNetworks:  # fmt: skip
    """Train the context networks.

    Args:
        bands: the latent's bands.
        samples: (symbols per band (c, h, w), step index) pairs.
        iterations: of the training, each on 8192 symbols.
        seed: of the choice of symbols and of the first weights.
        start: networks to begin with: then a sixth of the iterations does.
    """
    planes = planes_of(bands)
    total = sum(band.size for latent, _ in samples for band in latent)
    keep = min(1.0, ROWS / max(total, 1))
    rng = Stream.CONTEXT_SYMBOLS.generator(seed)
    magnitudes: list[Rows] = []
    signs: list[Rows] = []
    for latent, step in samples:
        for state, index, place, residual, path in _walk(planes, latent, step):
            if planes[index].smooth:
                continue
            share = max(keep, min(1.0, ALWAYS_KEPT / residual.size))
            chosen = np.flatnonzero(rng.random(residual.size) < share)
            flat = residual.ravel()
            levels = state.magnitude_contexts(index, place, chosen)
            tokens = tokens_of(magnitudes_of(flat[chosen]))
            magnitudes.append(_rows(levels, index, place, tokens, path[chosen], share))
            share = max(2 * keep, min(1.0, ALWAYS_KEPT / residual.size))
            chosen = np.flatnonzero((rng.random(residual.size) < share) & (flat != 0))
            levels = state.sign_contexts(index, place, chosen)
            negative = (flat[chosen] < 0).astype(np.int32)
            signs.append(_rows(levels, index, place, negative, np.abs(flat[chosen]), share))
    if not magnitudes:
        return no_contexts(bands)
    magnitude, shapes = fit_magnitudes(
        Rows.joined(magnitudes), len(planes), iterations, seed, start.magnitude if start else None
    )
    shapes[[plane.smooth for plane in planes]] = _broad_shape()
    known = start.sign if start else None
    sign = fit_signs(Rows.joined(signs), len(planes), iterations, seed, known)
    return ContextNetworks(magnitude, sign, shapes)


def _rows(
    levels: NDArray[np.float32],
    index: int,
    place: Pass,
    target: Integers,
    group: NDArray[np.integer[Any]],
    share: float,
) -> Rows:
    count = len(target)
    return Rows(
        levels.T.astype(np.int16),
        np.full(count, 4 * index + place.kind),
        target.astype(np.int64),
        group.astype(np.int64),
        np.full(count, 1.0 / share, np.float32),
    )


def _walk(
    planes: Sequence[Plane], latent: Sequence[Integers], step: int
) -> Iterator[tuple[ContextState, int, Pass, Integers, Path]]:
    """Every pass of every plane that holds a symbol, before it is known, its residuals and path."""
    symbols = [band[c] for band in latent for c in range(len(band))]
    state = ContextState(planes, [plane.shape for plane in symbols], step)
    for index, values in enumerate(symbols):
        state.open(index)
        trellis = START
        for place in plane_passes(planes[index], values.shape) if values.any() else ():
            residual = values[place.rows, place.columns]
            if planes[index].smooth:
                residual = residual - smooth_prediction(values, place)
                path = np.zeros(residual.size, np.uint8)
            else:
                path, trellis = path_of(magnitudes_of(residual).ravel(), trellis)
            yield state, index, place, residual, path
            state.put(place, residual)
        state.close(index)


def fit_tables(
    bands: Sequence[Band], samples: Sequence[Sample], networks: ContextNetworks,
    bins: Sequence[Bins | None] | None = None,
) -> EntropyTables:  # fmt: skip
    """Count tokens and signs for all tables.

    Args:
        bands: the latent's bands.
        samples: (symbols per band (c, h, w), step index) pairs.
        networks: that choose the tables.
        bins: for each sample, the table indices that these very networks gave its symbols, where
            they are known already.
    """
    planes = planes_of(bands)
    counts = PRIOR_WEIGHT * networks.shapes
    agreement = np.full((SIGN_CLASSES * SIGN_BINS, 2), 8.0)
    occupied = np.ones((len(planes), OCTAVES, 2))
    empty = EntropyTables(
        networks.magnitude,
        networks.sign,
        _frequencies(counts),
        np.full((SIGN_CLASSES, SIGN_BINS), 1 << 15, np.uint16),
        np.full((len(planes), OCTAVES), 1 << 15, np.uint16),
    )
    passes = Passes(planes, empty)
    for (latent, step), known in zip(samples, bins or [None] * len(samples), strict=True):
        shapes = [plane.shape for band in latent for plane in band]
        tables_of = None if known is None else split(known, shapes)
        flags = [bool(band[c].any()) for band in latent for c in range(len(band))]
        occupied[np.arange(len(planes)), min(step // 64, OCTAVES - 1), np.array(flags, int)] += 1
        for state, index, place, residual, path in _walk(planes, latent, step):
            flat = residual.ravel()
            if tables_of is None or planes[index].smooth:
                used = passes.table_indices(state, index, place)
            else:
                used = tables_of[index][place.rows, place.columns].ravel()
            smooth = planes[index].smooth
            tokens = tokens_of(np.abs(flat) if smooth else magnitudes_of(flat))
            rows = (path.astype(np.int64) * BINS + used) * TOKENS + tokens
            flat_counts = np.bincount(rows, minlength=counts[index].size)
            counts[index] += flat_counts.reshape(counts[index].shape)
            nonzero = np.flatnonzero(flat)
            if not smooth:
                sizes = np.abs(flat[nonzero])
                tables, likely = passes.sign_tables(state, index, place, nonzero, sizes)
                agrees = (flat[nonzero] < 0) == (likely == 1)
                np.add.at(agreement, (tables, agrees.astype(int)), 1.0)
    return EntropyTables(
        networks.magnitude,
        networks.sign,
        _frequencies(counts),
        _chances(agreement).reshape(SIGN_CLASSES, SIGN_BINS),
        _chances(occupied),
    )


def _chances(counts: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Counts (..., 2) of no and yes -> 2^16 times the chance of yes, 1 .. 65535."""
    limit = (1 << FREQUENCY_BITS) - 1
    chance = counts[..., 1] / counts.sum(-1)
    whole: NDArray[np.uint16] = np.clip(np.round(chance * limit), 1, limit).astype(np.uint16)
    return whole


def _frequencies(counts: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Positive counts (..., TOKENS) -> frequencies."""
    rows = counts.reshape(-1, counts.shape[-1])
    return np.array([whole_frequencies(row) for row in rows]).reshape(counts.shape)


def whole_frequencies(weights: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Positive weights -> integers >= 1 that sum to 2^16, by largest remainder."""
    total = 1 << FREQUENCY_BITS
    shares = weights / weights.sum() * (total - len(weights))
    whole = np.floor(shares).astype(np.int64)
    missing = total - len(weights) - int(whole.sum())
    whole[np.argsort(whole - shares, kind="stable")[:missing]] += 1
    frequencies: NDArray[np.uint16] = (whole + 1).astype(np.uint16)
    return frequencies
