"""Latents and tables for tests of the entropy coder, without a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.contexts import BINS, MAGNITUDE_INPUTS, SIGN_INPUTS, ContextNetwork
from linocut.entropy.planes import Band, plane_passes, planes_of
from linocut.entropy.tables import SIGN_BINS, SIGN_CLASSES, TOKENS, EntropyTables
from linocut.entropy.trellis import QUANTISERS, START, path_of
from linocut.lab.fitting.entropy_fit import whole_frequencies

Latent = list[NDArray[np.int32]]


def random_network(planes: int, inputs: int, seed: int, hidden: int = 5) -> ContextNetwork:
    """Valid, with numbers up to the limits; its outputs reach bins far apart."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> NDArray[np.int16]:
        return np.round(rng.normal(0, 150, shape)).clip(-1023, 1023).astype(np.int16)

    def biases(*shape: int) -> NDArray[np.int32]:
        return rng.integers(-20_000, 200_000, shape).astype(np.int32)

    return ContextNetwork(
        weights(planes, hidden, inputs), biases(planes, 4, hidden), weights(hidden, hidden),
        biases(hidden), weights(hidden), biases(planes, 4),
    )  # fmt: skip


def random_tables(bands: Sequence[Band], seed: int = 0) -> EntropyTables:
    """Valid tables that fit nothing: sharp and flat rows, weights of every size."""
    rng = np.random.default_rng(seed)
    planes = len(planes_of(bands))
    sharpness = rng.exponential(1.0, (planes * QUANTISERS * BINS, 1))
    raw = np.exp(-sharpness * np.arange(TOKENS)) + 1e-9 * rng.uniform(size=(1, TOKENS))
    frequencies = np.array([whole_frequencies(row) for row in raw])
    agreement = rng.integers(1, 65536, (SIGN_CLASSES, SIGN_BINS)).astype(np.uint16)
    occupied = rng.integers(1, 65536, (planes, 9)).astype(np.uint16)
    return EntropyTables(
        random_network(planes, MAGNITUDE_INPUTS, seed),
        random_network(planes, SIGN_INPUTS, seed + 1),
        frequencies.reshape(planes, QUANTISERS, BINS, TOKENS),
        agreement,
        occupied,
    )


def written_tables(bands: Sequence[Band]) -> EntropyTables:
    """Tables by integer formulas alone: the same on every machine and with every numpy."""
    planes = len(planes_of(bands))
    frequencies = np.ones((planes, QUANTISERS, BINS, TOKENS), dtype=np.int64)
    for table in range(BINS):
        for token in range(TOKENS):
            for quantiser in range(QUANTISERS):
                share = 20000 * (table + 1) // (table + 1 + token * (8 + 3 * quantiser))
                frequencies[:, quantiser, table, token] += share
    scaled = np.maximum(frequencies * 60000 // frequencies.sum(-1, keepdims=True), 1)
    scaled[..., 0] += 65536 - scaled.sum(-1)
    rising = 32768 + 2000 * np.arange(SIGN_BINS) + 500 * np.arange(SIGN_CLASSES)[:, None]
    return EntropyTables(
        _written_network(planes, MAGNITUDE_INPUTS),
        _written_network(planes, SIGN_INPUTS),
        scaled.astype(np.uint16),
        rising.astype(np.uint16),
        np.full((planes, 9), 60000, dtype=np.uint16),
    )


def _written_network(planes: int, inputs: int, hidden: int = 4) -> ContextNetwork:
    def numbers(most: int, *shape: int) -> NDArray[np.int64]:
        count = np.arange(int(np.prod(shape)), dtype=np.int64)
        return ((count * 7919 + count**2 * 31) % (2 * most + 1) - most).reshape(shape)

    return ContextNetwork(
        numbers(60, planes, hidden, inputs).astype(np.int16),
        numbers(40_000, planes, 4, hidden).astype(np.int32),
        numbers(300, hidden, hidden).astype(np.int16),
        numbers(40_000, hidden).astype(np.int32),
        numbers(400, hidden).astype(np.int16),
        (100_000 + numbers(50_000, planes, 4)).astype(np.int32),
    )


def on_the_path(bands: Sequence[Band], latent: Latent) -> Latent:
    """A latent with these magnitudes and signs, in the quantisers that they lead to."""
    result = [band.copy() for band in latent]
    views = [plane for band in result for plane in band]
    for plane, values in zip(planes_of(bands), views, strict=True):
        state = START
        for place in () if plane.smooth else plane_passes(plane, values.shape):
            magnitudes = np.abs(values[place.rows, place.columns])
            path, state = path_of(magnitudes.ravel(), state)
            levels = 2 * magnitudes - path.reshape(magnitudes.shape)
            values[place.rows, place.columns] = np.sign(values[place.rows, place.columns]) * levels
    return result


def laplace_latent(
    bands: Sequence[Band], height: int, width: int, seed: int, spread: float = 3.0
) -> Latent:
    """Symbols whose magnitude varies slowly over the picture, as in photographs; on the path."""
    rng = np.random.default_rng(seed)
    latent = []
    for band in bands:
        h, w = height // band.stride, width // band.stride
        scale = spread * np.exp(np.sin(np.arange(h) * band.stride / 9.0))[:, None]
        scale = scale * np.exp(np.cos(np.arange(w) * band.stride / 13.0))[None]
        values = rng.laplace(size=(band.channels, h, w)) * scale * band.stride / 8
        latent.append(np.round(values).astype(np.int32))
    return on_the_path(bands, latent)
