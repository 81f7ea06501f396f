"""PCA rotation of the channels of every band: r = R (y - mean), y = R^T r + mean.

Fitted in float64, components in order of falling variance. The entry of largest magnitude of each
is positive, as in scikit-learn's PCA, so the same latents always give the same rotation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linocut.entropy.planes import Band
from linocut.errors import BitstreamError

Latent = Sequence[NDArray[np.float32]]
"""Bands (c, h, w) of one picture."""

_UNIT = 32767


@dataclass(frozen=True)
class Rotation:
    """One orthogonal matrix and one mean for every band.

    Attributes:
        matrices: float32 (c, c) for each band; rows are components.
        means: float32 (c,) for each band, grey levels.
        variances: float64 (c,) for each band: variance of each rotated channel, grey levels
            squared.
    """

    matrices: tuple[NDArray[np.float32], ...]
    means: tuple[NDArray[np.float32], ...]
    variances: tuple[NDArray[np.float64], ...]

    def transform(self, latent: Latent) -> list[NDArray[np.float32]]:
        """y -> r, band by band, (c, h, w)."""
        return [
            np.einsum("ij,jhw->ihw", matrix, band - mean[:, None, None])
            for band, matrix, mean in zip(latent, self.matrices, self.means, strict=True)
        ]

    def inverse_transform(self, rotated: Latent) -> list[NDArray[np.float32]]:
        """r -> y, band by band, (c, h, w)."""
        return [
            np.einsum("ji,jhw->ihw", matrix, band) + mean[:, None, None]
            for band, matrix, mean in zip(rotated, self.matrices, self.means, strict=True)
        ]

    def pack(self) -> bytes:
        """16-bit side information for a file: every matrix row by row; means are zero."""
        entries = [np.round(matrix * _UNIT).astype("<i2").tobytes() for matrix in self.matrices]
        return b"".join(entries)

    @classmethod
    def unpack(cls, data: bytes, bands: Sequence[Band]) -> "Rotation":
        """Undo `pack`.

        Raises:
            BitstreamError: the size is not that of these bands.
        """
        expected = 2 * sum(band.channels**2 for band in bands)
        if len(data) != expected:
            raise BitstreamError(f"the rotation has {len(data)} bytes, this model's has {expected}")
        flat = np.frombuffer(data, dtype="<i2").astype(np.float32) / _UNIT
        matrices: list[NDArray[np.float32]] = []
        start = 0
        for band in bands:
            square = flat[start : start + band.channels**2].reshape(band.channels, -1)
            matrices.append(square.astype(np.float32))
            start += band.channels**2
        means = tuple(np.zeros(band.channels, dtype=np.float32) for band in bands)
        return cls(tuple(matrices), means, tuple(np.zeros(band.channels) for band in bands))


def identity(bands: Sequence[Band]) -> Rotation:
    """The rotation that changes nothing."""
    return Rotation(
        tuple(np.eye(band.channels, dtype=np.float32) for band in bands),
        tuple(np.zeros(band.channels, dtype=np.float32) for band in bands),
        tuple(np.ones(band.channels) for band in bands),
    )


def fit(bands: Sequence[Band], latents: Sequence[Latent], *, centre: bool = True) -> Rotation:
    """Fit every band's PCA on latents.

    Args:
        bands: their shapes.
        latents: bands (c, h, w) of one or more pictures.
        centre: subtract the mean; False keeps it at zero, as files with their own rotation need.
    """
    matrices, means, variances = [], [], []
    for index, band in enumerate(bands):
        rows = np.concatenate([latent[index].reshape(band.channels, -1) for latent in latents], 1)
        samples = rows.T.astype(np.float64)
        if not centre or band.smooth:
            samples = np.concatenate([samples, -samples])
        if (samples == samples[0]).all():
            matrices.append(np.eye(band.channels, dtype=np.float32))
            means.append(np.zeros(band.channels, dtype=np.float32))
            variances.append(np.zeros(band.channels))
            continue
        components, mean, variance = _pca(samples)
        matrices.append(components.astype(np.float32))
        means.append(mean.astype(np.float32))
        variances.append(variance)
    return Rotation(tuple(matrices), tuple(means), tuple(variances))


def _pca(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Samples (n, c) -> components (c, c), row by row, their mean (c,) and variances (c,)."""
    mean = samples.mean(0)
    centred = samples - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / (len(samples) - 1))
    components = np.ascontiguousarray(vectors.T[::-1])
    largest = components[np.arange(len(components)), np.abs(components).argmax(1)]
    return components * np.sign(largest)[:, None], mean, np.maximum(values[::-1], 0.0)


def energy(bands: Sequence[Band], rotation: Rotation) -> list[dict[str, str | int | float]]:
    """Rows (band, channel, variance, share, cumulative) of the energy-compaction curve."""
    rows: list[dict[str, str | int | float]] = []
    for band, variance in zip(bands, rotation.variances, strict=True):
        share = variance / max(float(variance.sum()), 1e-12)
        for channel, (v, s, c) in enumerate(zip(variance, share, np.cumsum(share), strict=True)):
            rows.append(
                {
                    "band": band.name,
                    "channel": channel,
                    "variance": float(v),
                    "share": float(s),
                    "cumulative": float(c),
                }
            )
    return rows


def rotation_from(tensors: Mapping[str, NDArray[Any]], bands: Sequence[Band]) -> Rotation | None:
    """The rotation among a model's tensors; None where every file carries its own.

    Raises:
        KeyError: some bands have a rotation, others none.
        ValueError: it is for other bands.
    """
    if "rotation.0.matrix" not in tensors:
        return None
    count = range(len(bands))
    for i, band in enumerate(bands):
        found = tensors[f"rotation.{i}.matrix"].shape, tensors[f"rotation.{i}.mean"].shape
        if found != ((band.channels, band.channels), (band.channels,)):
            raise ValueError(f"rotation {i} is {found} for a band of {band.channels} channels")
    return Rotation(
        tuple(tensors[f"rotation.{i}.matrix"] for i in count),
        tuple(tensors[f"rotation.{i}.mean"] for i in count),
        tuple(np.zeros(len(tensors[f"rotation.{i}.mean"])) for i in count),
    )


def of_file(own: bytes | None, model: Rotation | None, bands: Sequence[Band]) -> Rotation:
    """The rotation of a file's latents: the model's, or else the file's own.

    Raises:
        BitstreamError: both have one, or neither.
    """
    if model is not None:
        if own is not None:
            raise BitstreamError("the file carries a rotation, this model has its own")
        return model
    if own is None:
        raise BitstreamError("the file lacks the rotation that this model expects in it")
    return Rotation.unpack(own, bands)


def rotation_tensors(used: Rotation) -> dict[str, NDArray[np.float32]]:
    """A rotation as named arrays; undone by `rotation_from`."""
    result: dict[str, NDArray[np.float32]] = {}
    for i, (matrix, mean) in enumerate(zip(used.matrices, used.means, strict=True)):
        result |= {f"rotation.{i}.matrix": matrix, f"rotation.{i}.mean": mean}
    return result
