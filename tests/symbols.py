"""Latents and tables for tests of the entropy coder, without a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from linocut.contexts import BINS, planes_of
from linocut.entropy import TOKENS, EntropyTables
from linocut.entropy_fit import whole_frequencies
from linocut.latents import Band

Latent = list[NDArray[np.int32]]


def random_tables(bands: Sequence[Band], seed: int = 0) -> EntropyTables:
    """Valid tables that fit nothing: sharp and flat rows, weights of every size."""
    rng = np.random.default_rng(seed)
    planes = planes_of(bands)
    width = max(plane.features for plane in planes)
    weights = rng.integers(0, 1025, (len(planes), 4, width)).astype(np.int32)
    weights[rng.uniform(size=weights.shape) < 0.7] = 0
    sharpness = rng.exponential(1.0, (len(planes), BINS, 1))
    raw = np.exp(-sharpness * np.arange(TOKENS)) + 1e-9 * rng.uniform(size=(1, 1, TOKENS))
    frequencies = np.array([[whole_frequencies(row) for row in plane] for plane in raw])
    occupied = rng.integers(1, 65536, (len(planes), 9)).astype(np.uint16)
    return EntropyTables(weights, frequencies, occupied)


def written_tables(bands: Sequence[Band]) -> EntropyTables:
    """Tables by integer formulas alone: the same on every machine and with every numpy."""
    planes = planes_of(bands)
    width = max(plane.features for plane in planes)
    weights = np.zeros((len(planes), 4, width), dtype=np.int32)
    for index, plane in enumerate(planes):
        for kind in range(4):
            for k in range(plane.features):
                weights[index, kind, k] = (7 * index + 5 * kind + 11 * k) % 40
    frequencies = np.ones((len(planes), BINS, TOKENS), dtype=np.int64)
    for table in range(BINS):
        for token in range(TOKENS):
            frequencies[:, table, token] += 20000 * (table + 1) // (table + 1 + token * 8)
    scaled = np.maximum(frequencies * 60000 // frequencies.sum(-1, keepdims=True), 1)
    scaled[..., 0] += 65536 - scaled.sum(-1)
    occupied = np.full((len(planes), 9), 60000, dtype=np.uint16)
    return EntropyTables(weights, scaled.astype(np.uint16), occupied)


def laplace_latent(
    bands: Sequence[Band], height: int, width: int, seed: int, spread: float = 3.0
) -> Latent:
    """Symbols whose magnitude varies slowly over the picture, as in photographs."""
    rng = np.random.default_rng(seed)
    latent = []
    for band in bands:
        h, w = height // band.stride, width // band.stride
        scale = spread * np.exp(np.sin(np.arange(h) * band.stride / 9.0))[:, None]
        scale = scale * np.exp(np.cos(np.arange(w) * band.stride / 13.0))[None]
        values = rng.laplace(size=(band.channels, h, w)) * scale * band.stride / 8
        latent.append(np.round(values).astype(np.int32))
    return latent
