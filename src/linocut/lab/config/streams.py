"""Streams of random numbers: one seed, and a name for everything that is drawn from it."""

from __future__ import annotations

from enum import Enum, unique

import numpy as np


@unique
class Stream(Enum):
    """Who draws, and the number that stands for it beside the seed.

    Within one part of the pipeline no two streams have one number. Between parts numbers repeat:
    results depend on them, and what is drawn there is of different kinds.
    """

    VALIDATION_PICTURES = ("data", 1)
    CROP_SLOTS = ("data", 2)
    CROPS = ("data", 3)
    LATENT_CROPS = ("fitting", 1)
    TABLE_STEPS = ("fitting", 2)
    CONTEXT_SYMBOLS = ("fitting", 3)
    TUNING_CROPS = ("fitting", 4)
    TUNING_BATCHES = ("fitting", 5)
    DEGRADED_TESTS = ("studies", 3)
    MATCHING_STEP = ("studies", 4)
    BASE_CROPS = ("studies", 5)
    NOISE = ("studies", 6)

    def generator(self, seed: int, *more: int) -> np.random.Generator:
        """A generator of this stream.

        Args:
            seed: of the run.
            more: tell generators of one stream apart, for example the number of a picture.
        """
        return np.random.default_rng([seed, self.value[1], *more])
