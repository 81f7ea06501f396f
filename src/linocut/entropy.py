"""Symbols <-> bytes: integer tables chosen by integer contexts, and constriction's range coder.

    symbols --contexts--> table of each symbol --tokens, signs, extra bits--> range coder --> bytes

A magnitude is coded as a token from its table; tokens below 16 are the magnitude itself, higher
ones name an interval (two per octave) whose offset follows as plain bits. A sign is coded as
whether it agrees with the sign that its context predicts. Symbols of one pass are coded grouped by
table, so that both directions are a few thousand vectorised calls. No rounding decides a bit:
frequencies are integers that sum to 2^16, and they reach the coder as whole numbers it reproduces
exactly.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from linocut.contexts import BINS, ContextState, smooth_bin
from linocut.entropy_tables import (
    BIN_SHIFT,
    FREQUENCY_BITS,
    LITERALS,
    SIGN_BINS,
    SIGN_CLASSES,
    SIGN_SHIFT,
    TOKEN_EXTRA_BITS,
    TOKEN_START,
    EntropyTables,
    tokens_of,
)
from linocut.errors import BitstreamError
from linocut.latents import Band
from linocut.planes import Integers, Pass, Plane, plane_passes, planes_of, smooth_prediction

_BIT = constriction.stream.model.Uniform(2)


class EntropyCoder:
    """Encodes and decodes the symbols of one latent.

    Args:
        bands: the latent's bands.
        tables: fitted on training latents.
    """

    def __init__(self, bands: Sequence[Band], tables: EntropyTables) -> None:
        self.bands = tuple(bands)
        self.planes: tuple[Plane, ...] = planes_of(bands)
        self.tables = tables
        if len(tables.frequencies) != len(self.planes):
            raise ValueError(
                f"tables are for {len(tables.frequencies)} planes, "
                f"the latent has {len(self.planes)}"
            )

    def shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(h, w) of every plane for a padded picture of the given size."""
        strides = [self.bands[plane.band].stride for plane in self.planes]
        return [(height // stride, width // stride) for stride in strides]

    def encode(self, latent: Sequence[Integers], step_index: int) -> bytes:
        """Symbols of one latent -> bytes.

        Args:
            latent: int32 (c, h, w) for every band.
            step_index: index of the quantisation step; part of the context.
        """
        encoder = constriction.stream.queue.RangeEncoder()
        symbols = [band[channel] for band in latent for channel in range(len(band))]
        state = ContextState(self.planes, [plane.shape for plane in symbols], step_index)
        for index, values in enumerate(symbols):
            state.open(index)
            occupied = bool(values.any())
            flag = np.array([occupied], dtype=np.int32)
            encoder.encode(flag, self.tables.occupancy(index, step_index))
            if occupied:
                self._encode_plane(encoder, state, index, values)
            state.close(index)
        words: NDArray[np.uint32] = encoder.get_compressed()
        return words.astype("<u4").tobytes().rstrip(b"\0")

    def _encode_plane(
        self, encoder: Any, state: ContextState, index: int, values: Integers
    ) -> None:
        for place in plane_passes(self.planes[index], values.shape):
            residual = self._residual(index, values, place)
            flat = residual.ravel()
            magnitudes = np.abs(flat)
            tokens = tokens_of(magnitudes)
            bins = self.table_indices(state, index, place)
            for table, chosen in _groups(bins, BINS):
                encoder.encode(tokens[chosen], self.tables.model(index, table))
            nonzero = np.flatnonzero(magnitudes)
            signs = (flat[nonzero] < 0).astype(np.int32)
            if not self.planes[index].smooth:
                tables, likely = self.sign_tables(state, index, place, nonzero, tokens[nonzero])
                for table, chosen in _groups(tables, SIGN_CLASSES * SIGN_BINS):
                    encoder.encode((signs ^ likely)[chosen], self.tables.sign_model(table))
            elif len(signs):
                encoder.encode(signs, _BIT)
            for token in range(LITERALS, int(tokens.max()) + 1):
                offsets = magnitudes[tokens == token] - TOKEN_START[token]
                if len(offsets):
                    model = constriction.stream.model.Uniform(1 << int(TOKEN_EXTRA_BITS[token]))
                    encoder.encode(offsets.astype(np.int32), model)
            state.put(place, residual)

    def _residual(self, index: int, values: Integers, place: Pass) -> Integers:
        """What is coded of a pass: symbols, less their prediction in smooth planes."""
        actual: Integers = values[place.rows, place.columns]
        if self.planes[index].smooth:
            actual = actual - smooth_prediction(values, place)
        return actual

    def decode(
        self, data: bytes, height: int, width: int, step_index: int, bands: int | None = None
    ) -> list[Integers]:
        """Bytes -> symbols of one latent, int32 (c, h, w) for every band.

        Args:
            data: what `encode` gave.
            height: of the padded picture, px.
            width: of the padded picture, px.
            step_index: as given to `encode`.
            bands: decode only so many of the first ones; the others are zero.

        Raises:
            BitstreamError: the bytes are not a latent of this size.
        """
        words = np.frombuffer(data + b"\0" * (-len(data) % 4), dtype="<u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        shapes = self.shapes(height, width)
        state = ContextState(self.planes, shapes, step_index)
        latent = [
            np.zeros((band.channels, height // band.stride, width // band.stride), dtype=np.int32)
            for band in self.bands
        ]
        try:
            for index, plane in enumerate(self.planes):
                if bands is not None and plane.band >= bands:
                    break
                state.open(index)
                if decoder.decode(self.tables.occupancy(index, step_index)):
                    self._decode_plane(decoder, state, index, latent[plane.band][plane.channel])
                state.close(index)
        except (AssertionError, ValueError) as error:
            raise BitstreamError(f"the payload is not a valid latent: {error}") from error
        return latent

    def _decode_plane(
        self, decoder: Any, state: ContextState, index: int, values: Integers
    ) -> None:
        for place in plane_passes(self.planes[index], values.shape):
            bins = self.table_indices(state, index, place)
            tokens = np.empty(len(bins), dtype=np.int32)
            for table, chosen in _groups(bins, BINS):
                tokens[chosen] = decoder.decode(self.tables.model(index, table), len(chosen))
            nonzero = np.flatnonzero(tokens)
            flat = TOKEN_START[tokens]
            signs = np.zeros(len(nonzero), dtype=np.int32)
            if not self.planes[index].smooth:
                tables, signs = self.sign_tables(state, index, place, nonzero, tokens[nonzero])
                for table, chosen in _groups(tables, SIGN_CLASSES * SIGN_BINS):
                    signs[chosen] ^= decoder.decode(self.tables.sign_model(table), len(chosen))
            elif len(signs):
                signs = decoder.decode(_BIT, len(nonzero))
            for token in range(LITERALS, int(tokens.max()) + 1):
                where = np.flatnonzero(tokens == token)
                if len(where):
                    model = constriction.stream.model.Uniform(1 << int(TOKEN_EXTRA_BITS[token]))
                    flat[where] += decoder.decode(model, len(where))
            flat[nonzero[signs == 1]] *= -1
            residual = flat.reshape(values[place.rows, place.columns].shape)
            state.put(place, residual)
            if self.planes[index].smooth:
                residual = residual + smooth_prediction(values, place)
            values[place.rows, place.columns] = residual

    def table_indices(self, state: ContextState, index: int, place: Pass) -> NDArray[np.uint8]:
        """Table index of every symbol of a pass, flat."""
        if self.planes[index].smooth:
            table = smooth_bin(place.kind, state.step_index)
            return np.full(place.size(state.shapes[index]), table, dtype=np.uint8)
        contexts = state.magnitude_contexts(index, place)
        numbers = self.tables.magnitude(contexts, index, place.kind)
        bins: NDArray[np.uint8] = np.clip(numbers >> BIN_SHIFT, 0, BINS - 1).astype(np.uint8)
        return bins

    def sign_tables(
        self,
        state: ContextState,
        index: int,
        place: Pass,
        chosen: NDArray[np.intp],
        magnitudes: Integers,
    ) -> tuple[NDArray[np.uint8], Integers]:
        """Table and likely sign (1: negative) of some symbols of a pass that are not zero.

        Args:
            state: before the pass is put into it.
            index: of the plane.
            place: the pass.
            chosen: (n,) flat places in it.
            magnitudes: (n,) of these; 1, 2 and more are told apart.
        """
        contexts = state.sign_contexts(index, place, chosen)
        numbers = self.tables.sign.odd(contexts, index, place.kind)
        bins = np.minimum(np.abs(numbers) >> SIGN_SHIFT, SIGN_BINS - 1)
        classes = np.minimum(magnitudes, SIGN_CLASSES) - 1
        return (classes * SIGN_BINS + bins).astype(np.uint8), (numbers < 0).astype(np.int32)

    def estimate_bits(self, latent: Sequence[Integers], step_index: int) -> NDArray[np.float64]:
        """Ideal code length of every plane in bits, (planes,): what the tables promise."""
        symbols = [band[channel] for band in latent for channel in range(len(band))]
        state = ContextState(self.planes, [plane.shape for plane in symbols], step_index)
        bits = np.zeros(len(symbols))
        lengths = FREQUENCY_BITS - np.log2(self.tables.frequencies.astype(np.float64))
        for index, values in enumerate(symbols):
            state.open(index)
            octave = min(step_index // 64, self.tables.occupied.shape[1] - 1)
            ones = float(self.tables.occupied[index, octave]) / (1 << FREQUENCY_BITS)
            bits[index] = -np.log2(ones if values.any() else 1.0 - ones)
            if values.any():
                for place in plane_passes(self.planes[index], values.shape):
                    residual = self._residual(index, values, place)
                    tokens = tokens_of(np.abs(residual).ravel())
                    bins = self.table_indices(state, index, place)
                    bits[index] += lengths[index, bins, tokens].sum()
                    bits[index] += TOKEN_EXTRA_BITS[tokens].sum()
                    bits[index] += self._sign_bits(state, index, place, residual.ravel())
                    state.put(place, residual)
            state.close(index)
        return bits

    def _sign_bits(self, state: ContextState, index: int, place: Pass, residual: Integers) -> float:
        """Ideal code length of the signs of a pass."""
        nonzero = np.flatnonzero(residual)
        if self.planes[index].smooth:
            return float(len(nonzero))
        signed = residual[nonzero]
        tables, likely = self.sign_tables(state, index, place, nonzero, np.abs(signed))
        chance = self.tables.agreement.ravel()[tables] / float(1 << FREQUENCY_BITS)
        chance = np.where((signed < 0) == (likely == 1), chance, 1.0 - chance)
        return float(-np.log2(chance).sum())


def _groups(tables: NDArray[np.uint8], count: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(table, the places that use it, in order) for every table in use, in rising order."""
    order = np.argsort(tables, kind="stable")
    ends = np.cumsum(np.bincount(tables, minlength=count))
    start = 0
    for table, end in enumerate(ends.tolist()):
        if end > start:
            yield table, order[start:end]
        start = end
