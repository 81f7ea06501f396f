"""Fits the integer weights and tables of `linocut.entropy` on training latents."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from linocut.contexts import (
    BINS,
    WEIGHT_UNIT,
    ContextState,
    Integers,
    Plane,
    context_bins,
    context_sum,
    plane_passes,
    planes_of,
    smooth_bin,
    smooth_prediction,
)
from linocut.entropy import FREQUENCY_BITS, TOKENS, EntropyTables, tokens_of
from linocut.latents import Band

LARGEST_WEIGHT = 1024
KEPT_FEATURES = 12
ROWS_PER_PASS = 6_000
POOLED_WEIGHT = 60.0
OCTAVES = 9

Seen = tuple[Integers, Sequence[Integers | int]]
"""Symbols of one pass and their context features."""

Sample = tuple[Sequence[Integers], int]
"""Symbols of one training latent and the index of the step they were quantised with."""


def fit_tables(
    bands: Sequence[Band],
    samples: Sequence[Sample],
    *,
    contexts: bool = True,
    weights: Integers | None = None,
) -> EntropyTables:
    """Fit all tables on training latents quantised at many steps.

    Args:
        bands: the latent's bands.
        samples: (symbols per band (c, h, w), step index) pairs.
        contexts: False gives one table per plane, for the ablation.
        weights: of an earlier fit; only the probability tables are fitted anew.
    """
    planes = planes_of(bands)
    symbols = [[band[c] for band in latent for c in range(len(band))] for latent, _ in samples]
    states = [
        ContextState(planes, [plane.shape for plane in values], step)
        for values, (_, step) in zip(symbols, samples, strict=True)
    ]
    width = max(plane.features for plane in planes)
    fitted = np.zeros((len(planes), 4, width), dtype=np.int32) if weights is None else weights
    counts = np.zeros((len(planes), BINS, TOKENS))
    occupied = np.ones((len(planes), OCTAVES, 2))
    for index, plane in enumerate(planes):
        for values, state, (_, step) in zip(symbols, states, samples, strict=True):
            state.open(index)
            occupied[index, min(step // 64, OCTAVES - 1), int(values[index].any())] += 1
        if plane.smooth:
            for values, (_, step) in zip(symbols, samples, strict=True):
                _count_smooth(counts[index], plane, values[index], step)
        else:
            for kind in range(4):
                seen = _see_pass(plane, index, kind, symbols, states)
                if weights is None and contexts:
                    fitted[index, kind, : plane.features] = _fit_weights(
                        plane, seen, len(symbols), seed=index * 4 + kind
                    )
                elif weights is None:
                    fitted[index, kind, 0] = WEIGHT_UNIT
                _count_details(counts[index], seen, fitted[index, kind, : plane.features])
        for state in states:
            state.close(index)
    ones = occupied[..., 1] / occupied.sum(-1)
    limit = (1 << FREQUENCY_BITS) - 1
    return EntropyTables(
        fitted,
        _frequencies(counts, planes),
        np.clip(np.round(ones * limit), 1, limit).astype(np.uint16),
    )


def _pass(plane: Plane, shape: tuple[int, int], kind: int) -> tuple[slice, slice] | None:
    for found, rows, columns in plane_passes(plane, shape):
        if found == kind:
            return rows, columns
    return None


def _see_pass(
    plane: Plane,
    index: int,
    kind: int,
    symbols: Sequence[Sequence[Integers]],
    states: Sequence[ContextState],
) -> list[Seen]:
    """Symbols of one pass of one plane with their features, in all samples where it is coded."""
    seen: list[Seen] = []
    for values, state in zip(symbols, states, strict=True):
        grid = _pass(plane, values[index].shape, kind)
        if grid is not None and values[index].any():
            seen.append((values[index][grid], state.features(index, kind, *grid)))
            state.put(*grid, values[index][grid])
    return seen


def _fit_weights(plane: Plane, seen: Sequence[Seen], samples: int, *, seed: int) -> Integers:
    """Non-negative weights, in 1/256, that predict |symbol|; relative errors weigh equally."""
    share = max(1, ROWS_PER_PASS // samples)
    tables: list[NDArray[np.float64]] = []
    targets: list[NDArray[np.float64]] = []
    rng = np.random.default_rng(seed)
    for actual, features in seen:
        target = np.abs(actual).ravel()
        chosen = rng.choice(target.size, min(share, target.size), replace=False)
        columns = [
            np.full(len(chosen), f) if isinstance(f, int) else f.ravel()[chosen] for f in features
        ]
        tables.append(np.stack(columns, 1).astype(np.float64))
        targets.append(target[chosen].astype(np.float64))
    weights = np.zeros(plane.features, dtype=np.int32)
    if not tables:
        weights[0] = 1
        return weights
    a, b = np.concatenate(tables), np.concatenate(targets)
    scale = np.maximum(a.mean(0), 1e-6)
    importance = np.full(len(b), 1.0)
    keep = np.flatnonzero(a.any(0))
    solution = np.zeros(plane.features)
    for round_ in range(3):
        solution[:] = 0.0
        solution[keep] = _small_nnls(a[:, keep] / scale[keep] * importance[:, None], b * importance)
        if round_ == 1 and len(keep) > KEPT_FEATURES:
            keep = np.sort(np.argsort(-solution)[:KEPT_FEATURES])
        importance = 1.0 / (a[:, keep] / scale[keep] @ solution[keep] + 0.05)
    solution[keep] /= scale[keep]
    weights[:] = np.minimum(np.round(solution * WEIGHT_UNIT), LARGEST_WEIGHT)
    weights[0] = max(weights[0], 1)
    return weights


def _small_nnls(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """argmin |a x - b| over x >= 0 for many rows: solved on the triangle of a^T a."""
    gram = a.T @ a
    gram[np.diag_indices_from(gram)] += 1e-9 * max(float(np.trace(gram)), 1e-9)
    lower = np.linalg.cholesky(gram)
    solution: NDArray[np.float64] = nnls(lower.T, np.linalg.solve(lower, a.T @ b))[0]
    return solution


def _count_details(counts: NDArray[np.float64], seen: Sequence[Seen], weights: Integers) -> None:
    for actual, features in seen:
        shape = (actual.shape[0], actual.shape[1])
        bins = context_bins(context_sum(features, weights, shape))
        _add(counts, bins.ravel(), tokens_of(np.abs(actual).ravel()))


def _count_smooth(counts: NDArray[np.float64], plane: Plane, values: Integers, step: int) -> None:
    for kind, rows, columns in plane_passes(plane, values.shape):
        residual = values[rows, columns] - smooth_prediction(values, kind, rows, columns)
        tokens = tokens_of(np.abs(residual).ravel())
        _add(counts, np.full(tokens.size, smooth_bin(kind, step)), tokens)


def _add(counts: NDArray[np.float64], bins: NDArray[np.integer], tokens: Integers) -> None:
    flat = np.bincount(bins.astype(np.int64) * TOKENS + tokens, minlength=BINS * TOKENS)
    counts += flat.reshape(BINS, TOKENS)


def _frequencies(counts: NDArray[np.float64], planes: Sequence[Plane]) -> NDArray[np.uint16]:
    """Counts (planes, BINS, TOKENS) -> frequencies; rows with few counts lean on the pooled row."""
    smooth = np.array([plane.smooth for plane in planes])
    result = np.empty(counts.shape, dtype=np.uint16)
    for group in (smooth, ~smooth):
        if not group.any():
            continue
        pooled = counts[group].sum(0) + 0.02 * np.exp(-np.arange(TOKENS) / 3.0)
        prior = pooled / pooled.sum(-1, keepdims=True)
        for index in np.flatnonzero(group):
            row = counts[index] + POOLED_WEIGHT * prior
            for table in range(BINS):
                result[index, table] = whole_frequencies(row[table])
    return result


def whole_frequencies(weights: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Positive weights -> integers >= 1 that sum to 2^16, by largest remainder."""
    total = 1 << FREQUENCY_BITS
    shares = weights / weights.sum() * (total - len(weights))
    whole = np.floor(shares).astype(np.int64)
    missing = total - len(weights) - int(whole.sum())
    whole[np.argsort(whole - shares, kind="stable")[:missing]] += 1
    frequencies: NDArray[np.uint16] = (whole + 1).astype(np.uint16)
    return frequencies
