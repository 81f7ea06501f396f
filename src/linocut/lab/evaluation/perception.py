"""Scores that see what an adversary does, and the controls that it has to beat.

    original, decoded --EfficientNet-Lite1--> maps --unit vectors at each place--> feature distance
    maps at stride 16 of all pictures --means and covariances--> Frechet distance over patches

The feature distance asks whether a place looks like the same place, the Frechet distance whether
all places together look like those of photographs. Neither is LPIPS nor FID: other networks, other
layers, other numbers, which compare with nothing but themselves. A decoder that has learned against
an adversary lowers the second; that alone proves little, as noise and sharpening lower some such
distances, too. So every table has `controls`, and the first distance is the guard: noise worsens
it.

Source: Heusel et al. 2017 (Frechet distance of deep features); Zhang et al. 2018 (distance of unit
vectors of deep features).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from linocut.errors import DataError
from linocut.lab.evaluation.rd import Interval, resample_pictures
from linocut.lab.networks.features import Features, distance
from linocut.lab.training.machine import picture_batch
from linocut.pictures.image import RgbArray

STRIDE_PX = 16
NOISE_SIGMA = 2.0
"""Of the noise of the control, grey levels."""
UNSHARP_PERCENT = (20, 40)
DRAWS = 300
"""Of the bootstrap over pictures."""


@dataclass(frozen=True)
class Patches:
    """Sums over the patches of one picture.

    Attributes:
        count: of the patches.
        total: float64 (c,), sum of their features.
        products: float64 (c, c), sum of their outer products.
    """

    count: int
    total: NDArray[np.float64]
    products: NDArray[np.float64]


class Judge:
    """Compares decoded pictures with one original.

    Args:
        original: uint8 (h, w, 3), sides of at least 16 px; the rest beyond multiples of 16 is cut
            off.

    Raises:
        DataError: a side is shorter, or the weights of the network are not installed.
    """

    def __init__(self, original: RgbArray) -> None:
        self.shape = original.shape
        if min(original.shape[:2]) < STRIDE_PX:
            raise DataError(
                f"the picture is {original.shape}, expected sides of at least {STRIDE_PX} px"
            )
        self._maps = _maps(original)
        self.patches = _patches(self._maps[-1])

    def score(self, decoded: RgbArray) -> tuple[float, Patches]:
        """The feature distance, 0 for equal pictures, and the patches of the decoded one.

        Raises:
            DataError: the shapes differ.
        """
        if decoded.shape != self.shape:
            raise DataError(
                f"the picture is {decoded.shape}, expected {self.shape} as the original"
            )
        maps = _maps(decoded)
        return float(distance(maps, self._maps)), _patches(maps[-1])


@functools.cache
def _network() -> Features:
    return Features("lite1")


@torch.inference_mode()
def _maps(picture: RgbArray) -> list[torch.Tensor]:
    height, width = (side // STRIDE_PX * STRIDE_PX for side in picture.shape[:2])
    found: list[torch.Tensor] = _network()(picture_batch(picture[:height, :width]))
    return found


def _patches(features: torch.Tensor) -> Patches:
    """Of a map (1, c, h, w)."""
    rows = features[0].flatten(1).T.double().numpy()
    return Patches(len(rows), rows.sum(0), rows.T @ rows)


def frechet_distances(
    original: Sequence[Patches], decoders: Mapping[str, Sequence[Patches]], draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:  # fmt: skip
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of original and decoded patches.

    Args:
        original: patches of each original.
        decoders: by name, of each picture as the decoder makes it.
        draws: of the bootstrap; in each the same pictures are drawn for all.
        seed: of the draws.

    Returns:
        By decoder, (1 + draws,): of all pictures, and of those of each draw.

    Raises:
        DataError: there are no pictures, or a decoder has others.
    """
    counts = {name: len(pictures) for name, pictures in decoders.items()}
    if not original or set(counts.values()) - {len(original)}:
        raise DataError(f"{len(original)} originals and {counts} decoded, expected equal numbers")
    base, sets = _Set(original), {name: _Set(pictures) for name, pictures in decoders.items()}
    weights = [np.ones(len(original))]
    for drawn in resample_pictures(len(original), draws, seed):
        weights.append(np.bincount(drawn, minlength=len(original)).astype(np.float64))
    found = {name: np.zeros(len(weights)) for name in sets}
    for index, weight in enumerate(weights):
        one = base.gaussian(weight)
        root = _root(one[1])
        for name, pictures in sets.items():
            found[name][index] = _frechet(one, root, pictures.gaussian(weight))
    return found


def ratio_of(candidate: NDArray[np.float64], reference: NDArray[np.float64]) -> Interval:
    """Of two of `frechet_distances`, with a 95 % interval over the pictures."""
    ratios = candidate / reference
    low, high = np.percentile(ratios[1:], (2.5, 97.5))
    return Interval(float(ratios[0]), float(low), float(high))


Gaussian = tuple[NDArray[np.float64], NDArray[np.float64]]


class _Set:
    """Patches of several pictures, each of which can count any number of times."""

    def __init__(self, pictures: Sequence[Patches]) -> None:
        self.count = np.array([one.count for one in pictures], np.float64)
        self.total = np.stack([one.total for one in pictures])
        self.products = np.stack([one.products for one in pictures])

    def gaussian(self, weights: NDArray[np.float64]) -> Gaussian:
        """Mean (c,) and covariance (c, c) of all patches."""
        count = float(weights @ self.count)
        mean = weights @ self.total / count
        return mean, np.tensordot(weights, self.products, 1) / count - np.outer(mean, mean)


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = (vectors * np.sqrt(values.clip(0.0))) @ vectors.T
    return root


def _frechet(one: Gaussian, root: NDArray[np.float64], other: Gaussian) -> float:
    """`root` is that of the covariance of `one`."""
    both = np.linalg.eigvalsh(root @ other[1] @ root)
    traces = np.trace(one[1]) + np.trace(other[1]) - 2.0 * np.sqrt(both.clip(0.0)).sum()
    return float(np.square(one[0] - other[0]).sum() + max(float(traces), 0.0))


def unsharp(picture: RgbArray, percent: int) -> RgbArray:
    """Pillow's unsharp mask of radius 1."""
    sharper = Image.fromarray(picture).filter(ImageFilter.UnsharpMask(1.0, percent, 0))
    return np.asarray(sharper)


def noisy(picture: RgbArray, sigma: float = NOISE_SIGMA, seed: int = 0) -> RgbArray:
    """White Gaussian noise on every sample."""
    noise = np.random.default_rng(seed).normal(0.0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


CONTROLS: Mapping[str, Callable[[RgbArray], RgbArray]] = {
    **{f"unsharp {p} %": functools.partial(unsharp, percent=p) for p in UNSHARP_PERCENT},
    f"noise of sigma {NOISE_SIGMA:.0f}": noisy,
}
"""What needs no training, made of the plain decoder's picture."""
