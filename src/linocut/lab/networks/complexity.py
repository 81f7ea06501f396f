"""What decoding costs, counted by PyTorch's own counter."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from linocut.lab.networks.networks import Network

SIDE_PX = 256


def decoder_kmac_per_px(network: Network) -> float:
    """Thousand multiplications with additions of the synthesis for a pixel of the picture.

    Convolutions and matrix products count; the wavelet's lifting steps, some tens of
    multiplications a pixel, and the entropy decoder do not.
    """
    device = next(network.parameters()).device
    latent = [
        torch.zeros(1, band.channels, SIDE_PX // band.stride, SIDE_PX // band.stride, device=device)
        for band in network.bands
    ]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.synthesis(latent, torch.tensor([16.0], device=device))
    return float(counter.get_total_flops() / 2 / SIDE_PX**2 / 1000)
