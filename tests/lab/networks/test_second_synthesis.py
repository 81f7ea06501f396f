"""The decoder written a second time, in NumPy alone, gives what every architecture gives."""

import numpy as np
import pytest
import torch

import reference_synthesis
from linocut.codec import correction
from linocut.format.bitstream import pack_correction
from tiny import awake


@pytest.mark.parametrize("architecture", ["cae", "generative", "cae2018"])
def test_the_second_synthesis_is_that_of_every_architecture(architecture):
    network = awake(architecture)
    rng = np.random.default_rng(0)
    bands = [
        rng.normal(0, 30, (band.channels, 32 // band.stride, 48 // band.stride)).astype(np.float32)
        for band in network.bands
    ]
    tensors = {name: values.numpy() for name, values in network.state_dict().items()}
    batch = [torch.from_numpy(band)[None] for band in bands]
    blocks: list[tuple[bytes, torch.Tensor | None]] = [(b"", None)]
    if network.last_layer is not None:
        numbers = rng.integers(-9, 10, (5, network.last_layer.in_channels)).astype(np.int8)
        blocks.append((pack_correction(numbers), torch.from_numpy(correction.scale_of(numbers))))
    for block, scale in blocks:
        found = reference_synthesis.Synthesis(architecture, tensors, block)(bands, 11.0)
        with torch.inference_mode():
            expected = network.synthesis(batch, torch.tensor([11.0]), scale=scale)[0].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)
