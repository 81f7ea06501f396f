"""The compiled form of `linocut.entropy.passes`, where it was built: the same bytes, much faster.

    arrays of a latent --checked, GIL released--> _kernel.c --> the same arrays as numpy's form

`LINOCUT_KERNEL=off` in the environment keeps to numpy, `portable` to what runs on any processor.
"""

import functools
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.contexts import BINS, ContextNetwork
from linocut.entropy.planes import Integers, Plane, spacing_of, step_of
from linocut.entropy.tables import BIN_SHIFT, SIGN_SHIFT, TOKENS, Bins, EntropyTables
from linocut.errors import BitstreamError

VARIABLE = "LINOCUT_KERNEL"
INTERFACE = 3
"""What this module and the compiled one agree on; one built before a change is left out."""


def description() -> str:
    """Which form codes, for people: "compiled (avx2)" or so, by its instructions, or "numpy"."""
    module = kernel_module()
    if module is None:
        return "numpy"
    return f"compiled ({'portable' if _portable() else module.instructions})"


def kernel_module() -> ModuleType | None:
    """The compiled module; None where it was not built or is switched off."""
    return None if os.environ.get(VARIABLE) == "off" else _built()


@functools.cache
def _built() -> ModuleType | None:
    try:
        from linocut.entropy import _kernel  # type: ignore[attr-defined]
    except ImportError:
        return None
    module: ModuleType = _kernel
    return module if getattr(module, "interface", None) == INTERFACE else None


def _portable() -> bool:
    return os.environ.get(VARIABLE) == "portable"


class Kernel:
    """As `linocut.entropy.passes.Passes`, by the compiled module.

    Args:
        module: the compiled module.
        planes: the layout.
        tables: fitted on training latents; copied.
    """

    def __init__(self, module: ModuleType, planes: Sequence[Plane], tables: EntropyTables) -> None:
        self.planes = tuple(planes)
        classes, sign_bins = tables.agreement.shape
        sizes = (
            len(self.planes), BINS, TOKENS, tables.occupied.shape[1], classes, sign_bins,
            BIN_SHIFT, SIGN_SHIFT,
            *reversed(tables.magnitude.first.shape[1:]), *reversed(tables.sign.first.shape[1:]),
        )  # fmt: skip
        arrays = (
            _layout(self.planes), _whole(tables.frequencies, np.uint16),
            _whole(tables.agreement, np.uint16), _whole(tables.occupied, np.uint16),
            _whole(tables.costs, np.int32), _whole(tables.sign_costs, np.int32),
            np.ascontiguousarray(tables.lengths),
            *_network(tables.magnitude), *_network(tables.sign),
        )  # fmt: skip
        self._model = module.Model(sizes, arrays, portable=_portable())

    def encode(
        self,
        symbols: Integers,
        shapes: Sequence[tuple[int, int]],
        step_index: int,
        bins: Bins | None,
        write: bool,
    ) -> tuple[bytes, NDArray[np.int64]]:
        """See `linocut.entropy.passes.Passes.encode`."""
        costs = np.zeros(len(shapes), dtype=np.int64)
        data: bytes = self._model.encode(symbols, _sides(shapes), step_index, bins, write, costs)
        return data, costs

    def decode(
        self,
        data: bytes,
        symbols: Integers,
        shapes: Sequence[tuple[int, int]],
        step_index: int,
        planes: int,
    ) -> None:
        """See `linocut.entropy.passes.Passes.decode`."""
        if not self._model.decode(bytes(data), symbols, _sides(shapes), step_index, planes):
            raise BitstreamError("the payload is not a valid latent")

    def optimise(
        self,
        latent: NDArray[np.float32],
        shapes: Sequence[tuple[int, int]],
        step_index: int,
        price: float,
    ) -> tuple[Integers, Bins]:
        """See `linocut.entropy.passes.Passes.optimise`."""
        symbols = np.empty(len(latent), dtype=np.int32)
        bins = np.zeros(len(latent), dtype=np.uint8)
        step = step_of(step_index)
        self._model.optimise(
            latent, _sides(shapes), step_index, step, spacing_of(step, False), price, symbols, bins
        )
        return symbols, bins


def _layout(planes: Sequence[Plane]) -> Integers:
    """Smooth or not, two parents and all siblings of every plane, -1 where there is none."""
    rows = [
        [
            plane.smooth,
            *(*plane.parents, -1, -1)[:2],
            *(-1 if s is None else s for s in plane.siblings),
        ]
        for plane in planes
    ]
    return np.array(rows, dtype=np.int32)


def _network(network: ContextNetwork) -> list[NDArray[Any]]:
    return [
        _whole(network.first, np.int16), _whole(network.first_bias, np.int32),
        _whole(network.second, np.int16), _whole(network.second_bias, np.int32),
        _whole(network.last, np.int16), _whole(network.last_bias, np.int32),
    ]  # fmt: skip


def _whole(array: NDArray[Any], dtype: type[np.integer]) -> NDArray[Any]:
    return np.ascontiguousarray(array, dtype=dtype)


def _sides(shapes: Sequence[tuple[int, int]]) -> Integers:
    return np.array(shapes, dtype=np.int32).reshape(-1, 2)
