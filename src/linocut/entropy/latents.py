"""The shape of a latent: an ordered list of bands, coarse to fine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Band:
    """One tensor of a latent, (n, channels, h / stride, w / stride).

    Attributes:
        name: for people and tables.
        channels: c.
        stride: picture pixels per latent sample along each side.
        parent: index of the next coarser band of the same kind, or None.
        smooth: True when neighbouring values predict each other (the low-pass band of a wavelet).
    """

    name: str
    channels: int
    stride: int
    parent: int | None = None
    smooth: bool = False


def wavelet_bands(levels: int, channels: int = 3) -> tuple[Band, ...]:
    """Bands of a wavelet latent in coding order: LL, then HL, LH, HH from coarse to fine."""
    bands = [Band(f"LL{levels}", channels, 2**levels, smooth=True)]
    for level in range(levels, 0, -1):
        for orientation in ("HL", "LH", "HH"):
            parent = len(bands) - 3 if level < levels else None
            bands.append(Band(f"{orientation}{level}", channels, 2**level, parent))
    return tuple(bands)
