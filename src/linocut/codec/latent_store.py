"""Latents of a large picture in a file without a name, for searches that need them often.

A megapixel's latent takes 12 MB; that of a picture of 100 megapixels, which a search for a size
looks at a dozen times, is neither kept in memory nor computed again each time.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from linocut.errors import DataError

CACHED_PIXELS = 2**24
"""Pictures up to this size keep their latents in memory instead."""

FITTED_TILES = 16
"""So many tiles of a larger picture take part in fitting its own rotation."""

Latent = list[NDArray[np.float32]]


class LatentStore(Sequence[Latent]):
    """A list of latents, each a list of bands (c, h, w), that lies in a temporary file.

    Args:
        latents: written one by one.

    Raises:
        DataError: the folder for temporary files has no room.
    """

    def __init__(self, latents: Iterable[Latent]) -> None:
        self._places: list[list[tuple[int, tuple[int, ...]]]] = []
        self._file = tempfile.TemporaryFile(prefix="linocut-")  # noqa: SIM115 (closed by __del__)
        try:
            for latent in latents:
                self._places.append([self._write(band) for band in latent])
            self._file.flush()
        except OSError as error:
            raise DataError(
                f"{tempfile.gettempdir()} has no room for the latent of a picture this large "
                f"({error.strerror}); the environment variable TMPDIR names another folder"
            ) from None

    def _write(self, band: NDArray[np.float32]) -> tuple[int, tuple[int, ...]]:
        start = self._file.tell()
        self._file.write(np.ascontiguousarray(band, dtype=np.float32).data)
        return start, band.shape

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> Latent: ...
    @overload
    def __getitem__(self, number: slice) -> list[Latent]: ...
    def __getitem__(self, number: int | slice) -> Latent | list[Latent]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        return list(self._read(self._places[number]))

    def _read(self, places: list[tuple[int, tuple[int, ...]]]) -> Iterator[NDArray[np.float32]]:
        for start, shape in places:
            self._file.seek(start)
            band = np.frombuffer(self._file.read(4 * math.prod(shape)), dtype=np.float32)
            yield band.reshape(shape)

    def __del__(self) -> None:
        self._file.close()
