"""Biorthogonal CDF 9/7 wavelet by lifting, with lifting weights that can be trained.

    x (n, c, h, w)  --split columns, rows-->  LL (n, c, h/2, w/2)  +  HL, LH, HH (n, c, h/2, w/2
    each)

Each one-dimensional step splits a signal into even and odd samples and adds, four times, a weighted
sum of the two
neighbours of the other kind. Whatever the weights are, the inverse subtracts the same sums in the
reverse order, so
reconstruction is exact by construction: training the weights can never break it.

Source: Daubechies and Sweldens, "Factoring wavelet transforms into lifting steps", 1998; the
weights are those of
ISO/IEC 15444-1 (JPEG 2000), Annex F. The gains make the transform close to orthonormal, so that one
quantisation
step in every band costs about the same squared error in the picture.
"""

import torch
from torch import Tensor, nn

LIFTING_WEIGHTS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
LIFTING_GAIN = (
    1.230174104914001 / 2**0.5
)  # low-pass gain of an orthonormal 9/7 pair is K * sqrt(2) / 2


def _after(even: Tensor) -> Tensor:
    """The next even sample of every odd one, mirrored at the end: (..., m) -> (..., m)."""
    return torch.cat([even[..., 1:], even[..., -1:]], dim=-1)


def _before(odd: Tensor) -> Tensor:
    """The odd sample before every even one, mirrored at the start: (..., m) -> (..., m)."""
    return torch.cat([odd[..., :1], odd[..., :-1]], dim=-1)


class Lifting(nn.Module):
    """One-dimensional 9/7 lifting along the last axis, with its own weights for every channel.

    Args:
        channels: number of channels c.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        weights = torch.tensor(LIFTING_WEIGHTS).view(4, 1, 1, 1).repeat(1, channels, 1, 1)
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split x (n, c, h, w) with even w into low and high (n, c, h, w/2)."""
        a, b, g, d = self.weights
        even, odd = x[..., 0::2], x[..., 1::2]
        odd = odd + a * (even + _after(even))
        even = even + b * (odd + _before(odd))
        odd = odd + g * (even + _after(even))
        even = even + d * (odd + _before(odd))
        return even / LIFTING_GAIN, odd * LIFTING_GAIN

    def inverse(self, low: Tensor, high: Tensor) -> Tensor:
        """Join low and high (n, c, h, w/2) into x (n, c, h, w)."""
        a, b, g, d = self.weights
        even, odd = low * LIFTING_GAIN, high / LIFTING_GAIN
        even = even - d * (odd + _before(odd))
        odd = odd - g * (even + _after(even))
        even = even - b * (odd + _before(odd))
        odd = odd - a * (even + _after(even))
        return torch.stack([even, odd], dim=-1).flatten(-2)


class WaveletLevel(nn.Module):
    """One two-dimensional level: x (n, c, h, w) <-> LL, HL, LH, HH (n, c, h/2, w/2 each)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rows = Lifting(channels)
        self.columns = Lifting(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return LL, HL (detail across columns), LH (detail across rows), HH."""
        low, high = self.rows(x)
        ll, lh = (band.mT for band in self.columns(low.mT))
        hl, hh = (band.mT for band in self.columns(high.mT))
        return ll, hl, lh, hh

    def inverse(self, ll: Tensor, hl: Tensor, lh: Tensor, hh: Tensor) -> Tensor:
        """Undo `forward`."""
        low = self.columns.inverse(ll.mT, lh.mT).mT
        high = self.columns.inverse(hl.mT, hh.mT).mT
        return self.rows.inverse(low, high)
