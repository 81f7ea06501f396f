"""Symbols <-> bytes: integer tables chosen by integer contexts, and constriction's range coder.

    symbols --contexts--> table of each symbol --tokens, signs, extra bits--> range coder --> bytes

A magnitude is coded as a token from its table; tokens below 16 are the magnitude itself, higher
ones name an interval (two per octave) whose offset follows as plain bits. A sign is coded as
whether it agrees with the sign that its context predicts. Symbols of one pass are coded grouped by
table, so that both directions are a few thousand vectorised calls. No rounding decides a bit:
frequencies are integers that sum to 2^16, and they reach the coder as whole numbers it reproduces
exactly.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from linocut.entropy.contexts import BINS, ContextState, smooth_bin
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
    BIN_SHIFT,
    FREQUENCY_BITS,
    LITERALS,
    SIGN_BINS,
    SIGN_CLASSES,
    SIGN_SHIFT,
    TOKEN_EXTRA_BITS,
    TOKEN_START,
    EntropyTables,
    flag_model,
    tokens_of,
)
from linocut.errors import BitstreamError

_BIT = constriction.stream.model.Uniform(2)

Bins = Mapping[tuple[int, int], NDArray[np.uint8]]
"""Table indices by plane and kind of pass."""


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
        return self.encode_counted(latent, step_index)[0]

    def encode_counted(
        self, latent: Sequence[Integers], step_index: int, bins: Bins | None = None
    ) -> tuple[bytes, NDArray[np.float64]]:
        """The bytes, and what `estimate_bits` gives: both from the same contexts.

        Args:
            latent: int32 (c, h, w) for every band.
            step_index: index of the quantisation step.
            bins: table indices of these very symbols, where they are known already.
        """
        encoder = constriction.stream.queue.RangeEncoder()
        bits = self._code(encoder, latent, step_index, bins)
        words: NDArray[np.uint32] = encoder.get_compressed()
        return words.astype("<u4").tobytes().rstrip(b"\0"), bits

    def estimate_bits(
        self, latent: Sequence[Integers], step_index: int, bins: Bins | None = None
    ) -> NDArray[np.float64]:
        """Ideal code length of every plane in bits, (planes,): what the tables promise."""
        return self._code(None, latent, step_index, bins)

    def _code(
        self, encoder: Any, latent: Sequence[Integers], step_index: int, bins: Bins | None
    ) -> NDArray[np.float64]:
        """Code all planes, or only count where there is no encoder; bits of every plane."""
        symbols = [band[channel] for band in latent for channel in range(len(band))]
        state = ContextState(self.planes, [plane.shape for plane in symbols], step_index)
        bits = np.zeros(len(symbols))
        for index, values in enumerate(symbols):
            state.open(index)
            occupied = bool(values.any())
            ones = self.tables.occupancy(index, step_index)
            if encoder:
                encoder.encode(np.array([occupied], dtype=np.int32), flag_model(ones))
            chance = ones / (1 << FREQUENCY_BITS)
            bits[index] = -np.log2(chance if occupied else 1.0 - chance)
            for place in plane_passes(self.planes[index], values.shape) if occupied else ():
                residual = self._residual(index, values, place)
                known = None if bins is None else bins.get((index, place.kind))
                bits[index] += self._code_pass(encoder, state, index, place, residual, known)
                state.put(place, residual)
            state.close(index)
        return bits

    def _code_pass(
        self,
        encoder: Any,
        state: ContextState,
        index: int,
        place: Pass,
        residual: Integers,
        bins: NDArray[np.uint8] | None,
    ) -> float:
        flat = residual.ravel()
        magnitudes = np.abs(flat)
        tokens = tokens_of(magnitudes)
        if bins is None:
            bins = self.table_indices(state, index, place)
        nonzero = np.flatnonzero(magnitudes)
        signs = (flat[nonzero] < 0).astype(np.int32)
        total = float(self.tables.lengths[index, bins, tokens].sum())
        extra = TOKEN_EXTRA_BITS[tokens[nonzero]].sum()
        smooth = self.planes[index].smooth
        if smooth:
            total += len(nonzero)
        else:
            tables, likely = self.sign_tables(state, index, place, nonzero, tokens[nonzero])
            signs ^= likely
            total += float(self.tables.sign_lengths[tables, signs].sum())
        if encoder:
            for table, chosen in _groups(bins, BINS):
                encoder.encode(tokens[chosen], self.tables.model(index, table))
            if smooth and len(signs):
                encoder.encode(signs, _BIT)
            for table, chosen in () if smooth else _groups(tables, SIGN_CLASSES * SIGN_BINS):
                encoder.encode(signs[chosen], self.tables.sign_model(table))
            for token in range(LITERALS, int(tokens.max()) + 1):
                offsets = magnitudes[tokens == token] - TOKEN_START[token]
                if len(offsets):
                    model = constriction.stream.model.Uniform(1 << int(TOKEN_EXTRA_BITS[token]))
                    encoder.encode(offsets.astype(np.int32), model)
        return total + float(extra)

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
                if decoder.decode(flag_model(self.tables.occupancy(index, step_index))):
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
        busy = state.busy(index, place)
        bins = np.full(
            place.size(state.shapes[index]),
            self._bins(state.quiet_context(), index, place.kind)[0],
        )
        bins[busy] = self._bins(state.magnitude_contexts(index, place, busy), index, place.kind)
        return bins

    def _bins(self, contexts: NDArray[np.float32], index: int, kind: int) -> NDArray[np.uint8]:
        numbers = self.tables.magnitude(contexts, index, kind)
        whole = np.minimum(np.maximum(numbers >> BIN_SHIFT, 0), BINS - 1)
        bins: NDArray[np.uint8] = whole.astype(np.uint8)
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


def _groups(tables: NDArray[np.uint8], count: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(table, the places that use it, in order) for every table in use, in rising order."""
    order = np.argsort(tables, kind="stable")
    ends = np.cumsum(np.bincount(tables, minlength=count))
    start = 0
    for table, end in enumerate(ends.tolist()):
        if end > start:
            yield table, order[start:end]
        start = end
