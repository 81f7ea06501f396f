"""Batches of training pictures, cut and turned on the device that trains."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class CropSampler:
    """Training crops with random place, flips and transposition: a function of (seed, iteration).

    They lie on the training device, and are cut and turned there: a GPU never waits for the host.

    Args:
        crops: uint8 (n, s, s, 3).
        side_px: of the pictures to sample.
        batch: how many at once.
        seed: of the sampling.
        device: where the crops are kept.
    """

    def __init__(
        self, crops: NDArray[np.uint8], side_px: int, batch: int, seed: int, device: torch.device
    ) -> None:
        self.crops = torch.from_numpy(crops).to(device)
        self.batch, self.seed = batch, seed
        self.side_px = min(side_px, crops.shape[1])

    def __call__(self, iteration: int) -> tuple[Tensor, np.random.Generator]:
        """Pictures (batch, 3, side, side) in [0, 1], and the generator to go on drawing from."""
        rng = np.random.default_rng([self.seed, iteration])
        chosen = rng.integers(0, len(self.crops), self.batch).tolist()
        side, most = self.side_px, self.crops.shape[1] - self.side_px
        pictures = []
        for index in chosen:
            y, x = rng.integers(0, most + 1, 2).tolist()
            picture = self.crops[index, y : y + side, x : x + side]
            flips = rng.integers(0, 2, 3).tolist()
            picture = torch.flip(picture, [axis for axis in (0, 1) if flips[axis]])
            pictures.append(picture.transpose(0, 1) if flips[2] else picture)
        batch = torch.stack(pictures).permute(0, 3, 1, 2)  # already channels-last in memory
        return batch.float() / 255.0, rng
