"""Symbols <-> bytes: what codecs ask of a coder, and the coder with trained tables.

symbols (c, h, w) per band --flat, plane by plane--> passes, or the kernel --> bytes
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.kernel import Kernel, kernel_module
from linocut.entropy.planes import (
    FINENESS,
    SPACING,
    Band,
    Integers,
    Plane,
    dequantise,
    planes_of,
    step_of,
)
from linocut.entropy.tables import COST_UNIT, FREQUENCY_BITS, Bins, EntropyTables

if TYPE_CHECKING:
    from linocut.entropy.passes import Passes


class Coder(Protocol):
    """What turns the symbols of one latent into bytes and back.

    Attributes:
        bands: the latent's bands.
        planes: the latent's planes in coding order.
        layered: the beginning of a payload decodes to the first bands, as the resilient layout
            needs it.
        priced: symbols cost what they say, so that choosing them saves bits.
    """

    bands: tuple[Band, ...]
    planes: tuple[Plane, ...]
    layered: bool
    priced: bool

    def nearest_index(self, step_index: int) -> int:
        """The index, of those that this coder knows, that is nearest to another."""

    def dequantise(
        self, symbols: Sequence[NDArray[np.integer[Any]]], step_index: int
    ) -> list[NDArray[np.float32]]:
        """Symbols of every band, or of parts of it -> latent values, grey levels."""

    def told_step(self, step_index: int) -> float:
        """What networks are told as the step, grey levels."""

    def optimise(
        self, latent: Sequence[NDArray[np.float32]], step_index: int, price: float
    ) -> tuple[list[Integers], Bins | None]:
        """Latent -> symbols that weigh bits against error, and what was learned on the way."""

    def encode_counted(
        self, latent: Sequence[Integers], step_index: int, bins: Bins | None = None
    ) -> tuple[bytes, NDArray[np.float64]]:
        """Symbols -> bytes, and the ideal bits of every plane, (planes,)."""

    def estimate_bits(
        self, latent: Sequence[Integers], step_index: int, bins: Bins | None = None
    ) -> NDArray[np.float64]:
        """The ideal bits of every plane, (planes,)."""

    def decode(
        self, data: bytes, height: int, width: int, step_index: int, bands: int | None = None
    ) -> list[Integers]:
        """Bytes -> symbols of a padded picture of this size, px.

        Raises:
            BitstreamError: the bytes are not a latent of this size.
        """


class EntropyCoder:
    """Encodes and decodes the symbols of one latent with trained tables.

    Args:
        bands: the latent's bands.
        tables: fitted on training latents.
    """

    layered = True
    priced = True

    def __init__(self, bands: Sequence[Band], tables: EntropyTables) -> None:
        self.bands = tuple(bands)
        self.planes: tuple[Plane, ...] = planes_of(bands)
        self.tables = tables
        if len(tables.frequencies) != len(self.planes):
            raise ValueError(
                f"tables are for {len(tables.frequencies)} planes, "
                f"the latent has {len(self.planes)}"
            )
        self._form = _form(self.planes, tables)

    def __reduce__(self) -> tuple[type["EntropyCoder"], tuple[object, ...]]:
        """Pickled as what it is made of: its form belongs to one process."""
        return EntropyCoder, (self.bands, self.tables)

    def nearest_index(self, step_index: int) -> int:
        """The index itself: tables are for all steps."""
        return step_index

    def dequantise(
        self, symbols: Sequence[NDArray[np.integer[Any]]], step_index: int
    ) -> list[NDArray[np.float32]]:
        """See `linocut.entropy.planes.dequantise`."""
        return dequantise(self.bands, symbols, step_of(step_index))

    def told_step(self, step_index: int) -> float:
        """See `linocut.entropy.planes.FINENESS`."""
        return FINENESS * step_of(step_index)

    def optimise(
        self, latent: Sequence[NDArray[np.float32]], step_index: int, price: float
    ) -> tuple[list[Integers], Bins]:
        """Choose symbols by their price; see `linocut.entropy.choice.optimise`."""
        shapes = [band.shape for band in latent]
        symbols, bins = self._form.optimise(
            _flat(latent, np.float32), _plane_shapes(shapes), step_index, price / SPACING**2
        )
        return _in_bands(symbols, shapes), bins

    def encode(self, latent: Sequence[Integers], step_index: int) -> bytes:
        """Symbols of one latent -> bytes.

        Args:
            latent: int32 (c, h, w) for every band.
            step_index: index of the quantisation step; part of the context.

        Raises:
            ValueError: a symbol is larger than the coder knows.
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
        return self._code(latent, step_index, bins, write=True)

    def estimate_bits(
        self, latent: Sequence[Integers], step_index: int, bins: Bins | None = None
    ) -> NDArray[np.float64]:
        """Ideal code length of every plane in bits, (planes,): what the tables promise."""
        return self._code(latent, step_index, bins, write=False)[1]

    def _code(
        self, latent: Sequence[Integers], step_index: int, bins: Bins | None, write: bool
    ) -> tuple[bytes, NDArray[np.float64]]:
        shapes = _plane_shapes([band.shape for band in latent])
        flat = _flat(latent, np.int32)
        data, costs = self._form.encode(flat, shapes, step_index, bins, write)
        bits = costs / COST_UNIT
        occupied = [bool(plane.any()) for band in latent for plane in band]
        for index, full in enumerate(occupied):
            chance = self.tables.occupancy(index, step_index) / (1 << FREQUENCY_BITS)
            bits[index] -= np.log2(chance if full else 1.0 - chance)
        return data, bits

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
        shapes = [(b.channels, height // b.stride, width // b.stride) for b in self.bands]
        flat = np.zeros(sum(c * h * w for c, h, w in shapes), dtype=np.int32)
        planes = sum(band.channels for band in self.bands[:bands])
        self._form.decode(data, flat, _plane_shapes(shapes), step_index, planes)
        return _in_bands(flat, shapes)


def _form(planes: Sequence[Plane], tables: EntropyTables) -> "Kernel | Passes":
    """What does the work: the kernel where it was built, otherwise numpy."""
    module = kernel_module()
    if module is not None:
        return Kernel(module, planes, tables)
    from linocut.entropy.passes import Passes  # brings constriction, which the kernel replaces

    return Passes(planes, tables)


def _plane_shapes(bands: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """(h, w) of every plane of bands (c, h, w)."""
    return [(height, width) for channels, height, width in bands for _ in range(channels)]


def _flat(latent: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    """All bands one after the other, (n,)."""
    return np.concatenate([band.ravel() for band in latent], dtype=dtype, casting="same_kind")


def _in_bands(flat: NDArray[Any], shapes: Sequence[tuple[int, ...]]) -> list[NDArray[Any]]:
    """What `_flat` joined, as views."""
    ends = np.cumsum([np.prod(shape, dtype=np.int64) for shape in shapes]).tolist()
    parts = zip([0, *ends], ends, shapes, strict=False)
    return [flat[start:end].reshape(shape) for start, end, shape in parts]
