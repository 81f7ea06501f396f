"""Symbols <-> bytes: integer tables chosen by integer contexts, and constriction's range coder.

    symbols --contexts--> table of each symbol --tokens, signs, extra bits--> range coder --> bytes

A magnitude is coded as a token from its table; tokens below 16 are the magnitude itself, higher
ones name an interval
(two per octave) whose offset follows as plain bits. Signs are plain bits. Symbols of one pass are
coded grouped by
table, so that both directions are a few thousand vectorised calls. No float decides a bit:
frequencies are integers
that sum to 2^16, and they reach the coder as whole numbers it reproduces exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import constriction
import numpy as np
from numpy.typing import NDArray

from linocut.contexts import (
    BINS,
    PASSES,
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
from linocut.errors import BitstreamError
from linocut.latents import Band

LITERALS = 16
TOKENS = LITERALS + 2 * 13
"""Tokens 0..15 are magnitudes; 16, 17 cover 16..23 and 24..31, 18, 19 cover 32..47 and 48..63, and
so on.
"""

FREQUENCY_BITS = 16
CODER_BITS = 24

TOKEN_START: Integers = np.array(
    [*range(LITERALS), *((16 << i) + half * (8 << i) for i in range(13) for half in (0, 1))],
    dtype=np.int32,
)
TOKEN_EXTRA_BITS: Integers = np.array(
    [0] * LITERALS + [3 + i for i in range(13) for _ in (0, 1)], dtype=np.int32
)
_BIT = constriction.stream.model.Uniform(2)


_TOKEN_OF: Integers = np.repeat(np.arange(TOKENS, dtype=np.int32), [*np.diff(TOKEN_START), 1])[
    : 1 << 17
]
"""Token of every magnitude below the start of the last interval; that interval is the rest."""


def tokens_of(magnitudes: Integers) -> Integers:
    """The token of every magnitude (0 .. 2^17 - 1)."""
    tokens: Integers = _TOKEN_OF[np.minimum(magnitudes, len(_TOKEN_OF) - 1)]
    return tokens


@dataclass(frozen=True)
class EntropyTables:
    """The trained, integer part of the entropy coder.

    Attributes:
        weights: int32 (planes, 4, features): context weights of each plane and pass, zero-padded.
        frequencies: uint16 (planes, BINS, TOKENS): every row sums to 2^16, no zero.
        occupied: uint16 (planes, octaves of the step): 2^16 times the chance that a plane holds a
            symbol.
    """

    weights: Integers
    frequencies: NDArray[np.uint16]
    occupied: NDArray[np.uint16]
    _models: dict[tuple[int, int], object] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        shapes = [array.shape for array in (self.weights, self.frequencies, self.occupied)]
        if [len(shape) for shape in shapes] != [3, 3, 2] or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"tables of shapes {shapes} are not of the same planes")
        if shapes[0][1] != len(PASSES) or shapes[1][1:] != (BINS, TOKENS):
            raise ValueError(
                f"weights are {shapes[0]} and frequencies {shapes[1]}, "
                f"expected (planes, {len(PASSES)}, features) and (planes, {BINS}, {TOKENS})"
            )
        sums = self.frequencies.astype(np.int64).sum(-1)
        if (sums != 1 << FREQUENCY_BITS).any() or (self.frequencies == 0).any():
            raise ValueError("every frequency table must be free of zeros and sum to 65536")

    def model(self, plane: int, table: int) -> object:
        """constriction's model of one table, made on first use."""
        key = (plane, table)
        if key not in self._models:
            self._models[key] = exact_model(self.frequencies[plane, table])
        return self._models[key]

    def occupancy(self, plane: int, step_index: int) -> object:
        """Model of the flag "this plane holds a symbol"."""
        ones = int(self.occupied[plane, min(step_index // 64, self.occupied.shape[1] - 1)])
        return exact_model(np.array([(1 << FREQUENCY_BITS) - ones, ones]))


def exact_model(frequencies: NDArray[np.integer]) -> object:
    """A constriction model whose probabilities are exactly frequencies / 2^16.

    constriction gives every symbol one unit of 2^-24 and shares the rest by weight. Weights 256 f -
    1 are whole
    numbers that sum to that rest, so its scale factor is exactly 1 and no rounding takes place.
    """
    weights = frequencies.astype(np.float64) * (1 << (CODER_BITS - FREQUENCY_BITS)) - 1.0
    return constriction.stream.model.Categorical(weights, perfect=False)


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
        if len(tables.weights) != len(self.planes):
            raise ValueError(
                f"tables are for {len(tables.weights)} planes, the latent has {len(self.planes)}"
            )
        features = max(plane.features for plane in self.planes)
        if tables.weights.shape[2] < features:
            raise ValueError(
                f"tables have {tables.weights.shape[2]} context weights, the latent {features}"
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
        self, encoder: object, state: ContextState, index: int, values: Integers
    ) -> None:
        for kind, rows, columns in plane_passes(self.planes[index], values.shape):
            actual = values[rows, columns]
            if self.planes[index].smooth:
                residual = actual - smooth_prediction(values, kind, rows, columns)
            else:
                residual = actual
            flat = residual.ravel()
            magnitudes = np.abs(flat)
            tokens = tokens_of(magnitudes)
            bins = self.table_indices(state, index, kind, rows, columns, residual.shape)
            order = np.argsort(bins, kind="stable")
            counts = np.bincount(bins, minlength=BINS)
            grouped = tokens[order]
            start = 0
            for table in np.flatnonzero(counts):
                end = start + counts[table]
                encoder.encode(grouped[start:end], self.tables.model(index, int(table)))  # type: ignore[attr-defined]
                start = end
            signs = (flat[magnitudes > 0] < 0).astype(np.int32)
            if len(signs):
                encoder.encode(signs, _BIT)  # type: ignore[attr-defined]
            for token in range(LITERALS, int(tokens.max()) + 1):
                offsets = magnitudes[tokens == token] - TOKEN_START[token]
                if len(offsets):
                    model = constriction.stream.model.Uniform(1 << int(TOKEN_EXTRA_BITS[token]))
                    encoder.encode(offsets.astype(np.int32), model)  # type: ignore[attr-defined]
            state.put(rows, columns, residual)

    def decode(self, data: bytes, height: int, width: int, step_index: int) -> list[Integers]:
        """Bytes -> symbols of one latent, int32 (c, h, w) for every band.

        Args:
            data: what `encode` gave.
            height: of the padded picture, px.
            width: of the padded picture, px.
            step_index: as given to `encode`.

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
                state.open(index)
                if decoder.decode(self.tables.occupancy(index, step_index)):
                    self._decode_plane(decoder, state, index, latent[plane.band][plane.channel])
                state.close(index)
        except (AssertionError, ValueError) as error:
            raise BitstreamError(f"the payload is not a valid latent: {error}") from error
        return latent

    def _decode_plane(
        self, decoder: object, state: ContextState, index: int, values: Integers
    ) -> None:
        for kind, rows, columns in plane_passes(self.planes[index], values.shape):
            shape = values[rows, columns].shape
            bins = self.table_indices(state, index, kind, rows, columns, shape)
            order = np.argsort(bins, kind="stable")
            counts = np.bincount(bins, minlength=BINS)
            grouped = np.empty(len(bins), dtype=np.int32)
            start = 0
            for table in np.flatnonzero(counts):
                end = start + counts[table]
                model = self.tables.model(index, int(table))
                grouped[start:end] = decoder.decode(model, int(counts[table]))  # type: ignore[attr-defined]
                start = end
            tokens = np.empty_like(grouped)
            tokens[order] = grouped
            nonzero = np.flatnonzero(tokens)
            flat = TOKEN_START[tokens]
            signs = decoder.decode(_BIT, len(nonzero)) if len(nonzero) else nonzero  # type: ignore[attr-defined]
            for token in range(LITERALS, int(tokens.max()) + 1):
                where = np.flatnonzero(tokens == token)
                if len(where):
                    model = constriction.stream.model.Uniform(1 << int(TOKEN_EXTRA_BITS[token]))
                    flat[where] += decoder.decode(model, len(where))  # type: ignore[attr-defined]
            flat[nonzero[signs == 1]] *= -1
            residual = flat.reshape(shape)
            if self.planes[index].smooth:
                values[rows, columns] = residual + smooth_prediction(values, kind, rows, columns)
            else:
                values[rows, columns] = residual
            state.put(rows, columns, residual)

    def table_indices(
        self,
        state: ContextState,
        index: int,
        kind: int,
        rows: slice,
        columns: slice,
        shape: tuple[int, ...],
    ) -> NDArray[np.uint8]:
        """Table index of every symbol of a pass, flat."""
        plane = self.planes[index]
        if plane.smooth:
            table = smooth_bin(kind, state.step_index)
            return np.full(shape[0] * shape[1], table, dtype=np.uint8)
        features = state.features(index, kind, rows, columns)
        weights = self.tables.weights[index, kind, : plane.features]
        return context_bins(context_sum(features, weights, (shape[0], shape[1]))).ravel()

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
                for kind, rows, columns in plane_passes(self.planes[index], values.shape):
                    residual = values[rows, columns]
                    if self.planes[index].smooth:
                        residual = residual - smooth_prediction(values, kind, rows, columns)
                    tokens = tokens_of(np.abs(residual).ravel())
                    bins = self.table_indices(state, index, kind, rows, columns, residual.shape)
                    bits[index] += lengths[index, bins, tokens].sum()
                    bits[index] += TOKEN_EXTRA_BITS[tokens].sum() + np.count_nonzero(tokens)
                    state.put(rows, columns, residual)
            state.close(index)
        return bits
