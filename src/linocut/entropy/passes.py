"""Entropy coding by numpy and constriction: every pass of a plane is one vectorised step.

    symbols --contexts--> table of each symbol --tokens, signs, extra bits--> range coder --> bytes

A magnitude is coded as a token from its table; tokens below 16 are the magnitude itself, higher
ones name an interval (two per octave) whose offset follows as plain bits. The table is that of the
symbol's context and of the quantiser in force, which the magnitudes before have decided: so symbols
are coded one after the other. A sign is coded as whether it agrees with the sign that its context
predicts. No rounding decides a bit: frequencies are integers that sum to 2^16, and they reach the
coder as whole numbers that it reproduces exactly.
"""

import functools
from collections.abc import Sequence
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
    spacing_of,
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
from linocut.entropy.trellis import (
    START,
    cheapest_path,
    level_of,
    magnitudes_of,
    next_state,
    path_of,
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
        self._models: dict[tuple[int, ...], object] = {}

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
            trellis = START
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
                cost, trellis = self._code_pass(
                    encoder, state, index, place, residual, used, trellis
                )
                costs[index] += cost
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
        chosen, bins = split(result, shapes), split(met, shapes)
        for index, (plane, exact) in enumerate(
            zip(self.planes, split(latent, shapes), strict=True)
        ):
            values = chosen[index]
            exact = exact / np.float32(spacing_of(step_of(step_index), plane.smooth))
            state.open(index)
            trellis = START
            if plane.smooth:
                values[:] = np.clip(np.rint(exact), -LARGEST_SYMBOL, LARGEST_SYMBOL)
            empty = not plane.smooth and not (np.abs(exact) > 1.0).any()
            for place in () if empty else plane_passes(plane, values.shape):
                if not plane.smooth:
                    u = exact[place.rows, place.columns]
                    tables = self.table_indices(state, index, place)
                    bins[index][place.rows, place.columns] = tables.reshape(u.shape)
                    lengths = self.tables.lengths[index]
                    levels, trellis = cheapest_path(
                        np.abs(u).ravel(), tables, lengths, price, trellis
                    )
                    levels = levels.reshape(u.shape)
                    values[place.rows, place.columns] = np.where(u < 0, -levels, levels)
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
        sizes: Integers,
    ) -> tuple[NDArray[np.uint8], Integers]:
        """Table and likely sign (1: negative) of some symbols of a pass that are not zero.

        Args:
            state: before the pass is put into it.
            index: of the plane.
            place: the pass.
            chosen: (n,) flat places in it.
            sizes: (n,) of these symbols, without their signs; 1, 2, 3 and more are told apart.
        """
        contexts = state.sign_contexts(index, place, chosen)
        numbers = self.tables.sign.odd(contexts, index, place.kind)
        bins = np.minimum(np.abs(numbers) >> SIGN_SHIFT, SIGN_BINS - 1)
        classes = np.minimum(sizes, SIGN_CLASSES) - 1
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
        trellis: int,
    ) -> tuple[int, int]:
        """Code a pass, or only count where there is no encoder.

        Returns:
            Its cost in 2^-20 bit, and the state after it.
        """
        flat = residual.ravel()
        smooth = self.planes[index].smooth
        magnitudes = np.abs(flat) if smooth else magnitudes_of(flat)
        if np.abs(flat).max() >= TOKEN_LIMIT:
            raise ValueError(f"the magnitude of a symbol is not less than {TOKEN_LIMIT}")
        path = np.zeros(len(flat), np.uint8)
        if not smooth:
            path, trellis = path_of(magnitudes, trellis)
            if ((flat & 1 != path) & (flat != 0)).any():
                raise ValueError("a symbol lies beside the path of its quantisers")
        tokens = tokens_of(magnitudes)
        cost = int(self.tables.costs[index, path, bins, tokens].sum(dtype=np.int64))
        nonzero = np.flatnonzero(flat)
        bits = int(TOKEN_EXTRA_BITS[tokens[nonzero]].sum())
        signs = (flat[nonzero] < 0).astype(np.int32)
        if smooth:
            bits += len(nonzero)
            models = np.zeros(len(nonzero), np.uint8)
        else:
            models, likely = self.sign_tables(state, index, place, nonzero, np.abs(flat[nonzero]))
            signs ^= likely
            cost += int(self.tables.sign_costs[models, signs].sum(dtype=np.int64))
        if encoder:
            rows = zip(path.tolist(), bins.tolist(), tokens.tolist(), magnitudes, strict=True)
            for quantiser, table, token, magnitude in rows:
                encoder.encode(token, self._token_model(index, quantiser, table))
                if token >= LITERALS:
                    encoder.encode(int(magnitude) - int(TOKEN_START[token]), _offset_model(token))
            for sign, model in zip(signs.tolist(), models.tolist(), strict=True):
                encoder.encode(sign, _BIT if smooth else self._sign_model(model))
        return cost + bits * COST_UNIT, trellis

    def _decode_plane(
        self, decoder: Any, state: ContextState, index: int, values: Integers
    ) -> None:
        smooth = self.planes[index].smooth
        trellis = START
        for place in plane_passes(self.planes[index], values.shape):
            sizes = []
            for table in self.table_indices(state, index, place).tolist():
                quantiser = 0 if smooth else trellis & 1
                magnitude = decoder.decode(self._token_model(index, quantiser, table))
                if magnitude >= LITERALS:
                    offset = decoder.decode(_offset_model(magnitude))
                    magnitude = int(TOKEN_START[magnitude]) + offset
                sizes.append(magnitude if smooth else level_of(quantiser, magnitude))
                trellis = next_state(trellis, magnitude)
            flat = np.array(sizes, dtype=np.int32)
            nonzero = np.flatnonzero(flat)
            if smooth:
                signs = [decoder.decode(_BIT) for _ in nonzero]
            else:
                models, likely = self.sign_tables(state, index, place, nonzero, flat[nonzero])
                pairs = zip(models.tolist(), likely.tolist(), strict=True)
                signs = [sign ^ decoder.decode(self._sign_model(model)) for model, sign in pairs]
            flat[nonzero[np.array(signs, np.bool_)]] *= -1
            residual = flat.reshape(values[place.rows, place.columns].shape)
            state.put(place, residual)
            if smooth:
                residual = residual + smooth_prediction(values, place)
            values[place.rows, place.columns] = residual

    def _token_model(self, plane: int, quantiser: int, table: int) -> object:
        """Model of one table, made on first use."""
        key = (plane, quantiser, table)
        if key not in self._models:
            self._models[key] = exact_model(self.tables.frequencies[key])
        return self._models[key]

    def _sign_model(self, table: int) -> object:
        """Model of the flag "not the predicted sign" of one class and bin."""
        key = (table,)
        if key not in self._models:
            agrees = int(self.tables.agreement.ravel()[table])
            self._models[key] = flag_model((1 << FREQUENCY_BITS) - agrees)
        return self._models[key]


@functools.cache
def _offset_model(token: int) -> object:
    """Model of the offset in the interval of a token."""
    return constriction.stream.model.Uniform(1 << int(TOKEN_EXTRA_BITS[token]))


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
