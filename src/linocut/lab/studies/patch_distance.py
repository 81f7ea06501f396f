"""How far apart the textures of two pictures are: sliced Wasserstein distance of their patches.

    picture -> Laplacian pyramid -> 7x7x3 patches of each scale, normalised as the original's are
            -> projections on random directions, sorted -> mean |difference|, mean over the scales

Patches are compared as a distribution: what counts is whether the right kinds of texture are there
in the right amounts, not whether they lie in the right place, which is what PSNR and SSIM ask. It
needs no pretrained network; it is not FID, and its numbers compare with nothing but themselves.
Source: Karras et al., "Progressive growing of GANs", ICLR 2018, section 5 (there over a whole set
of pictures, here picture by picture).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from linocut.errors import DataError

PATCH_PX = 7
SCALES = 3
PATCHES = 4096
DIRECTIONS = 128
SIDE_PX = PATCH_PX * 2 ** (SCALES - 1)
"""Shortest side that a picture may have."""

Picture = NDArray[np.uint8]


def patch_distance(original: Picture, decoded: Picture, seed: int = 0) -> float:
    """Distance of (h, w, 3) uint8 in thousandths of a patch value's deviation; 0 for equal ones.

    Raises:
        DataError: the shapes differ, or a side is below `SIDE_PX`.
    """
    if original.shape != decoded.shape or min(original.shape[:2]) < SIDE_PX:
        raise DataError(
            f"pictures are {original.shape} and {decoded.shape}, "
            f"expected equal shapes with sides of at least {SIDE_PX} px"
        )
    rng = np.random.default_rng(seed)
    distances = []
    for a, b in zip(_laplacians(original), _laplacians(decoded), strict=True):
        y, x = (rng.integers(0, side - PATCH_PX + 1, PATCHES) for side in a.shape[:2])
        patches = [_patches(level, y, x) for level in (a, b)]
        mean, deviation = patches[0].mean(0), patches[0].std(0) + 1e-6
        directions = rng.standard_normal((patches[0].shape[1], DIRECTIONS))
        directions /= np.linalg.norm(directions, axis=0)
        one, two = (np.sort((p - mean) / deviation @ directions, axis=0) for p in patches)
        distances.append(float(np.abs(one - two).mean()))
    return 1000.0 * float(np.mean(distances))


def _laplacians(picture: Picture) -> list[NDArray[np.float64]]:
    """Differences to the next coarser scale (2x2 means), and the coarsest scale itself."""
    level, levels = picture.astype(np.float64) / 255.0, []
    for _ in range(SCALES - 1):
        height, width = (length // 2 * 2 for length in level.shape[:2])
        level = level[:height, :width]
        coarser = level.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
        levels.append(level - coarser.repeat(2, 0).repeat(2, 1))
        level = coarser
    return [*levels, level]


def _patches(
    level: NDArray[np.float64], y: NDArray[np.int64], x: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Patches with these top left corners, (n, 7 * 7 * 3)."""
    windows = np.lib.stride_tricks.sliding_window_view(level, (PATCH_PX, PATCH_PX), axis=(0, 1))
    return windows[y, x].reshape(len(y), -1)
