"""Entropy coding by numpy and constriction: every pass of a plane is one vectorised step.

    symbols --contexts--> table of each symbol --tokens, signs, extra bits--> range coder --> bytes

A magnitude is coded as a token from its table; tokens below 16 are the magnitude itself, higher
ones name an interval (two per octave) whose offset follows as plain bits. A sign is coded as
whether it agrees with the sign that its context predicts. Symbols of one pass are coded grouped by
table, so that both directions are a few thousand vectorised calls. No rounding decides a bit:
frequencies are integers that sum to 2^16, and they reach the coder as whole numbers that it
reproduces exactly.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from linocut.entropy.contexts import BINS, ContextState, smooth_bin
from linocut.entropy.planes import (
    LARGEST_SYMBOL,
    Integers,
    Pass,
    Plane,
    plane_passes,
    smooth_prediction,
    step_of,
)
from linocut.entropy.tables import (
    BIN_SHIFT,
    COST_UNIT,
    FREQUENCY_BITS,
    LITERALS,
    SIGN_BINS,
    SIGN_CLASSES,
    SIGN_SHIFT,
    TOKEN_EXTRA_BITS,
    TOKEN_LIMIT,
    TOKEN_START,
    Bins,
    EntropyTables,
    tokens_of,
)
from linocut.errors import BitstreamError

CODER_BITS = 24
"""Precision of constriction's probabilities."""


class Passes:
    """Codes the symbols of one latent, which lie flat in one array, plane by plane.

    Args:
        planes: the layout.
        tables: fitted on training latents.
    """

    def __init__(self, planes: Sequence[Plane], tables: EntropyTables) -> None:
        self.planes = tuple(planes)
        self.tables = tables
        self._models: dict[tuple[int, int], object] = {}

    def encode(
        self,
        symbols: Integers,
        shapes: Sequence[tuple[int, int]],
        step_index: int,
        bins: Bins | None,
        write: bool,
    ) -> tuple[bytes, NDArray[np.int64]]:
        """Code all planes, or only count.

        Args:
            symbols: (n,).
            shapes: (h, w) of every plane.
            step_index: index of the quantisation step.
            bins: (n,) table indices of these very symbols, where they are known already.
            write: False gives no bytes.

        Returns:
            The bytes, and the ideal cost of every plane but for its flag, in units of 2^-20 bit.
        """
        encoder = constriction.stream.queue.RangeEncoder() if write else None
        state = ContextState(self.planes, shapes, step_index)
        known = [None] * len(shapes) if bins is None else split(bins, shapes)
        costs = np.zeros(len(shapes), dtype=np.int64)
        for index, values in enumerate(split(symbols, shapes)):
            state.open(index)
            occupied = bool(values.any())
            if encoder:
                flag = np.array([occupied], dtype=np.int32)
                encoder.encode(flag, flag_model(self.tables.occupancy(index, step_index)))
            for place in plane_passes(self.planes[index], values.shape) if occupied else ():
                residual = self._residual(index, values, place)
                tables = known[index]
                if tables is None or self.planes[index].smooth:
                    used = self.table_indices(state, index, place)
                else:
                    used = tables[place.rows, place.columns].ravel()
                costs[index] += self._code_pass(encoder, state, index, place, residual, used)
                state.put(place, residual)
            state.close(index)
        if encoder is None:
            return b"", costs
        words: NDArray[np.uint32] = encoder.get_compressed()
        return words.astype("<u4").tobytes().rstrip(b"\0"), costs

    def decode(
        self,
        data: bytes,
        symbols: Integers,
        shapes: Sequence[tuple[int, int]],
        step_index: int,
        planes: int,
    ) -> None:
        """Decode the first `planes` into `symbols` (n,), which are zero.

        Raises:
            BitstreamError: the bytes are no such latent.
        """
        words = np.frombuffer(data + b"\0" * (-len(data) % 4), dtype="<u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        state = ContextState(self.planes, shapes, step_index)
        try:
            for index, values in enumerate(split(symbols, shapes)[:planes]):
                state.open(index)
                if decoder.decode(flag_model(self.tables.occupancy(index, step_index))):
                    self._decode_plane(decoder, state, index, values)
                state.close(index)
        except (AssertionError, ValueError):
            raise BitstreamError("the payload is not a valid latent") from None

    def optimise(
        self,
        latent: NDArray[np.float32],
        shapes: Sequence[tuple[int, int]],
        step_index: int,
        price: float,
    ) -> tuple[Integers, Bins]:
        """Choose the symbols of a latent (n,), see `linocut.entropy.choice`.

        Returns:
            (n,) symbols and (n,) their table indices; zero for smooth and for empty planes, where
            nobody reads them.
        """
        result = np.zeros(len(latent), dtype=np.int32)
        met = np.zeros(len(latent), dtype=np.uint8)
        state = ContextState(self.planes, shapes, step_index)
        exact = split(latent / np.float32(step_of(step_index)), shapes)
        chosen, bins = split(result, shapes), split(met, shapes)
        for index, plane in enumerate(self.planes):
            values = chosen[index]
            state.open(index)
            if plane.smooth:
                values[:] = np.clip(np.rint(exact[index]), -LARGEST_SYMBOL, LARGEST_SYMBOL)
            empty = not plane.smooth and not (np.abs(exact[index]) > 0.5).any()
            for place in () if empty else plane_passes(plane, values.shape):
                if not plane.smooth:
                    u = exact[index][place.rows, place.columns]
                    tables = self.table_indices(state, index, place)
                    bins[index][place.rows, place.columns] = tables.reshape(u.shape)
                    lengths = self.tables.lengths[index]
                    magnitudes = cheapest(np.abs(u).ravel(), tables, lengths, price)
                    magnitudes = magnitudes.reshape(u.shape)
                    values[place.rows, place.columns] = np.where(u < 0, -magnitudes, magnitudes)
                state.put(place, self._residual(index, values, place))
            state.close(index)
        return result, met

    def table_indices(self, state: ContextState, index: int, place: Pass) -> Bins:
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

    def _bins(self, contexts: NDArray[np.float32], index: int, kind: int) -> Bins:
        numbers = self.tables.magnitude(contexts, index, kind)
        whole = np.minimum(np.maximum(numbers >> BIN_SHIFT, 0), BINS - 1)
        bins: Bins = whole.astype(np.uint8)
        return bins

    def _residual(self, index: int, values: Integers, place: Pass) -> Integers:
        """What is coded of a pass: symbols, less their prediction in smooth planes."""
        actual: Integers = values[place.rows, place.columns]
        if self.planes[index].smooth:
            actual = actual - smooth_prediction(values, place)
        return actual

    def _code_pass(
        self,
        encoder: Any,
        state: ContextState,
        index: int,
        place: Pass,
        residual: Integers,
        bins: Bins,
    ) -> int:
        """Code a pass, or only count where there is no encoder; its cost in 2^-20 bit."""
        flat = residual.ravel()
        magnitudes = np.abs(flat)
        if magnitudes.max() >= TOKEN_LIMIT:
            raise ValueError(f"the magnitude of a symbol is not less than {TOKEN_LIMIT}")
        tokens = tokens_of(magnitudes)
        cost = int(self.tables.costs[index, bins, tokens].sum(dtype=np.int64))
        nonzero = np.flatnonzero(magnitudes)
        bits = int(TOKEN_EXTRA_BITS[tokens[nonzero]].sum())
        signs = (flat[nonzero] < 0).astype(np.int32)
        smooth = self.planes[index].smooth
        if smooth:
            bits += len(nonzero)
        else:
            tables, likely = self.sign_tables(state, index, place, nonzero, tokens[nonzero])
            signs ^= likely
            cost += int(self.tables.sign_costs[tables, signs].sum(dtype=np.int64))
        if encoder:
            for table, chosen in _groups(bins, BINS):
                encoder.encode(tokens[chosen], self._token_model(index, table))
            if smooth and len(signs):
                encoder.encode(signs, _BIT)
            for table, chosen in () if smooth else _groups(tables, SIGN_CLASSES * SIGN_BINS):
                encoder.encode(signs[chosen], self._sign_model(table))
            for token in range(LITERALS, int(tokens.max()) + 1):
                offsets = magnitudes[tokens == token] - TOKEN_START[token]
                if len(offsets):
                    model = constriction.stream.model.Uniform(1 << int(TOKEN_EXTRA_BITS[token]))
                    encoder.encode(offsets.astype(np.int32), model)
        return cost + bits * COST_UNIT

    def _decode_plane(
        self, decoder: Any, state: ContextState, index: int, values: Integers
    ) -> None:
        for place in plane_passes(self.planes[index], values.shape):
            bins = self.table_indices(state, index, place)
            tokens = np.empty(len(bins), dtype=np.int32)
            for table, chosen in _groups(bins, BINS):
                tokens[chosen] = decoder.decode(self._token_model(index, table), len(chosen))
            nonzero = np.flatnonzero(tokens)
            flat = TOKEN_START[tokens]
            signs = np.zeros(len(nonzero), dtype=np.int32)
            if not self.planes[index].smooth:
                tables, signs = self.sign_tables(state, index, place, nonzero, tokens[nonzero])
                for table, chosen in _groups(tables, SIGN_CLASSES * SIGN_BINS):
                    signs[chosen] ^= decoder.decode(self._sign_model(table), len(chosen))
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

    def _token_model(self, plane: int, table: int) -> object:
        """Model of one table, made on first use."""
        key = (plane, table)
        if key not in self._models:
            self._models[key] = exact_model(self.tables.frequencies[plane, table])
        return self._models[key]

    def _sign_model(self, table: int) -> object:
        """Model of the flag "not the predicted sign" of one class and bin."""
        key = (-1, table)
        if key not in self._models:
            agrees = int(self.tables.agreement.ravel()[table])
            self._models[key] = flag_model((1 << FREQUENCY_BITS) - agrees)
        return self._models[key]


_BIT = constriction.stream.model.Uniform(2)


def flag_model(ones: int) -> object:
    """A flag that is 1 with probability ones / 2^16."""
    return exact_model(np.array([(1 << FREQUENCY_BITS) - ones, ones]))


def exact_model(frequencies: NDArray[np.integer]) -> object:
    """A constriction model whose probabilities are exactly frequencies / 2^16.

    constriction gives every symbol one unit of 2^-24 and shares the rest by weight. Weights of
    256 f - 1 are whole numbers that sum to that rest, so its scale factor is exactly 1 and no
    rounding takes place.
    """
    weights = frequencies.astype(np.float64) * (1 << (CODER_BITS - FREQUENCY_BITS)) - 1.0
    return constriction.stream.model.Categorical(weights, perfect=False)


def split(flat: NDArray[Any], shapes: Sequence[tuple[int, int]]) -> list[NDArray[Any]]:
    """Views (h, w) of the planes that lie in a flat array, one after the other."""
    ends = np.cumsum([height * width for height, width in shapes]).tolist()
    parts = zip([0, *ends], ends, shapes, strict=False)
    return [flat[start:end].reshape(shape) for start, end, shape in parts]


def cheapest(
    u: NDArray[np.float32], bins: Bins, lengths: NDArray[np.float32], price: float
) -> Integers:
    """The cheapest magnitude for each u (n,), given its table and the bits (BINS, TOKENS)."""
    best = np.zeros(u.shape, dtype=np.int32)
    open_ = np.flatnonzero(u > 0.5)  # all others stay 0
    u, bins = u[open_], bins[open_]
    nearest = np.minimum(np.rint(u), LARGEST_SYMBOL).astype(np.int32)
    chosen = np.zeros_like(nearest)
    cost = u * u + np.float32(price) * lengths[bins, 0]
    for lower in (1, 0):
        m = nearest - lower
        tokens = tokens_of(m)
        bits = lengths[bins, tokens] + TOKEN_EXTRA_BITS[tokens] + (m > 0)
        candidate = (u - m) ** 2 + np.float32(price) * bits
        better = candidate < cost
        chosen[better] = m[better]
        cost[better] = candidate[better]
    best[open_] = chosen
    return best


def _groups(tables: NDArray[np.uint8], count: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(table, the places that use it, in order) for every table in use, in rising order."""
    order = np.argsort(tables, kind="stable")
    ends = np.cumsum(np.bincount(tables, minlength=count))
    start = 0
    for table, end in enumerate(ends.tolist()):
        if end > start:
            yield table, order[start:end]
        start = end
