"""Batches are a function of the seed and the iteration, and show every place and turn."""

import numpy as np
import torch

from linocut.lab.training.trainer import CropSampler

CPU = torch.device("cpu")
CROPS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)


def test_the_same_seed_and_iteration_give_the_same_batch_and_draws():
    first, second = (CropSampler(CROPS, 4, 5, 7, CPU) for _ in range(2))
    for iteration in (0, 3, 2**31):
        (a, rng_a), (b, rng_b) = first(iteration), second(iteration)
        torch.testing.assert_close(a, b, atol=0, rtol=0)
        assert rng_a.uniform() == rng_b.uniform()
    assert not torch.equal(first(0)[0], first(1)[0])
    assert not torch.equal(first(0)[0], CropSampler(CROPS, 4, 5, 8, CPU)(0)[0])


def test_batches_are_channels_last_pictures_between_0_and_1():
    batch, _ = CropSampler(CROPS, 6, 2, 0, CPU)(0)
    assert batch.shape == (2, 3, 6, 6)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= float(batch.min()) < float(batch.max()) <= 1


def test_sides_longer_than_the_crops_are_the_crops_side():
    assert CropSampler(CROPS, 999, 2, 0, CPU)(0)[0].shape == (2, 3, 8, 8)


def test_all_eight_turns_of_the_square_occur_and_nothing_else():
    square = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    sampler = CropSampler(square, 2, 1, 0, CPU)
    seen = {
        (255 * sampler(i)[0][0]).round().to(torch.uint8).permute(1, 2, 0).numpy().tobytes()
        for i in range(200)
    }
    turns = {
        np.rot90(flipped, quarter).tobytes()
        for flipped in (square[0], square[0][:, ::-1])
        for quarter in range(4)
    }
    assert seen == turns
