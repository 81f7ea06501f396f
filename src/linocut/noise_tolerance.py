"""How noise in its input reaches the decoded picture: learned codecs beside JPEG 2000.

    x + noise --codec, at a fixed rate--> decoded, compared with the clean x

Coding at a rate that cannot hold the noise removes a part of it; the question is which codec spends
more of its bits on the noise.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from linocut.anchors import decode, encode_near
from linocut.codec import Codec
from linocut.codec_values import Analysed
from linocut.degradation import EFFORT, Picture, add_noise
from linocut.metrics import psnr_db
from linocut.rate_control import fit_bytes

COARSEST_STEP = 1024.0
"""Strong noise needs steps coarser than those of the training, up to the largest of the format."""


@dataclass(frozen=True)
class NoiseRow:
    """One picture with noise of `sigma` grey levels through one codec.

    Attributes:
        input_psnr_db: of the noisy picture.
        psnr_db: of the decoded picture, against the clean one.
    """

    codec: str
    picture: str
    sigma: float
    bpp: float
    input_psnr_db: float
    psnr_db: float


def noise_tolerance(
    codecs: Mapping[str, Codec],
    pictures: Mapping[str, Picture],
    sigmas: Sequence[float],
    bpp: float,
    seed: int,
) -> Iterator[NoiseRow]:
    """Code every picture with every noise to files of `bpp`, JPEG 2000 to the same sizes."""
    for index, (name, clean) in enumerate(pictures.items()):
        pixels = clean.shape[0] * clean.shape[1]
        for sigma in sigmas:
            noisy = add_noise(clean, sigma, np.random.default_rng([seed, 6, index]))
            before = psnr_db(clean, noisy)
            most = round(bpp * pixels / 8)
            files = {"JPEG 2000": (encode_near("jpeg2000", noisy, most), decode)}
            for title, codec in codecs.items():
                encode = functools.partial(_encode, codec, codec.analyse(noisy))
                data = fit_bytes(encode, most, (codec.step_range[0], COARSEST_STEP))
                files[title] = (data, codec.decompress)
            for title, (data, decoder) in files.items():
                after = psnr_db(clean, decoder(data))
                yield NoiseRow(title, name, sigma, 8 * len(data) / pixels, before, after)


def _encode(codec: Codec, analysed: Analysed, step: float) -> bytes:
    return codec.encode(analysed, step=step, effort=EFFORT)
