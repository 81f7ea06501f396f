"""Pictures made worse on purpose: what a restoration gets to see.

    denoise   round(x + sigma * white Gaussian noise), clipped to 0..255
    dejpeg    x through a JPEG file of that quality (4:2:0)

A degraded picture is 8-bit like any picture in a file. The same function makes the training and the
test pictures.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linocut.lab.config.params import DejpegConfig, DenoiseConfig, TaskConfig

Picture = NDArray[np.uint8]
Degradation = Callable[[Picture, np.random.Generator], Picture]
"""uint8 (h, w, 3) and the source of randomness -> uint8 (h, w, 3)."""

EFFORT = 1
"""Of encoders in these studies: a dead zone; optimised symbols would cost more than training."""

DEGRADED, CLEAN = "degraded", "clean"
"""Folders of the codecs with tables for degraded and for clean pictures."""


def degradation(task: TaskConfig) -> Degradation:
    """The degradation that a task undoes."""
    if isinstance(task, DenoiseConfig):
        return lambda picture, rng: add_noise(picture, task.sigma, rng)
    return lambda picture, rng: through_jpeg(picture, task)


def add_noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Picture:
    """White Gaussian noise of `sigma` grey levels on every sample."""
    noisy = picture + sigma * rng.standard_normal(picture.shape, dtype=np.float32)
    degraded: Picture = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return degraded


def through_jpeg(picture: Picture, task: DejpegConfig) -> Picture:
    """Compressed and decompressed."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=task.quality, subsampling="4:2:0")
    return np.asarray(Image.open(file).convert("RGB"))
