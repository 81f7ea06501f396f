"""Dead leaves: generated pictures with the statistics of photographs, for training without any.

Shapes with power-law sizes occlude one another; that alone gives sharp edges at every scale and an
amplitude spectrum close to 1/f. Leaves also carry texture (1/f noise, gratings, gradients), soft
edges and shadows; the picture has a palette, uneven light, a slight blur and sensor noise.

Leaves are drawn front to back: the transmittance of a pixel falls with every leaf over it, and
drawing ends when nearly all of it is gone, so each leaf costs its bounding box only.

Source: Lee, Mumford, Huang, "Occlusion models for natural images", IJCV 2001; as training data:
    Achddou, Gousseau, Ladjal, "Fully synthetic training for image restoration tasks", CVIU 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]

_SMALLEST_PX = 3.0
_LARGEST_SHARE = 0.6
"""Radius of the largest leaf, as a share of the picture's longer side."""
_SEEN_THROUGH = 0.02
"""Drawing stops when this share of the light still passes all leaves."""
_NOISE_FIELDS = 4


def dead_leaves(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Generate one picture.

    Args:
        height: rows, px.
        width: columns, px.
        seed: names the picture; the same seed gives the same picture.

    Returns:
        The picture, (height, width, 3) uint8.
    """
    rng = np.random.default_rng([seed, height, width])
    scene = _Scene.draw(rng, height, width)
    picture = np.zeros((height, width, 3), np.float32)
    light = np.ones((height, width), np.float32)
    largest = max(_LARGEST_SHARE * max(height, width), 2 * _SMALLEST_PX)
    smallest = _SMALLEST_PX * math.exp(rng.uniform(0, 1.4))
    blunt = rng.uniform(0.0, 0.8)
    leaves = 0
    while leaves % 64 or float(light.mean()) > _SEEN_THROUGH:
        radius = _power_law(rng, smallest, largest)
        _paint_leaf(rng, scene, picture, light, radius, blunt)
        leaves += 1
    picture += light[..., None] * scene.background
    picture *= np.exp(rng.uniform(0.05, 0.3) * scene.noise[0])[..., None]
    picture = _blur(picture, rng.uniform(0.0, 0.65))
    picture += rng.normal(0.0, rng.uniform(0.0, 0.008), picture.shape[:2]).astype(np.float32)[
        ..., None
    ]
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Scene:
    """What the leaves of one picture share.

    Attributes:
        noise: zero-mean unit-variance fields (n, h, w) with spectra from 1/f^0.6 to 1/f^2; the
            first is the smoothest.
        palette: base colours (k, 3).
        background: colour behind all leaves (h, w, 3).
    """

    noise: Field
    palette: Field
    background: Field

    @staticmethod
    def draw(rng: np.random.Generator, height: int, width: int) -> _Scene:
        exponents = [2.0, *rng.uniform(0.6, 1.5, _NOISE_FIELDS - 1)]
        noise = np.stack([_coloured_noise(rng, height, width, e) for e in exponents])
        saturation = rng.gamma(2.0, 0.5)
        palette = np.stack([_colour(rng, saturation) for _ in range(rng.integers(3, 9))])
        texture = 0.08 * noise[1, ..., None]
        return _Scene(noise, palette, (palette[0] + texture).astype(np.float32))


def _power_law(rng: np.random.Generator, smallest: float, largest: float) -> float:
    """A radius with density r^-3 between the two, the scale-invariant law."""
    low, high = largest**-2, smallest**-2
    return float((low + (high - low) * rng.random()) ** -0.5)


def _colour(rng: np.random.Generator, saturation: float) -> Field:
    """A colour with broad luma, and chroma that is mostly small, as in photographs."""
    luma = rng.beta(1.4, 1.8)
    # axes of the principal components of natural colours: grey, blue-yellow, green-magenta
    warm, green = rng.laplace(0.0, (0.07 * saturation, 0.03 * saturation))
    rgb: Field = luma + warm * np.array([0.7, 0.0, -0.7]) + green * np.array([-0.4, 0.8, -0.4])
    return rgb.clip(0.0, 1.0).astype(np.float32)


def _coloured_noise(rng: np.random.Generator, height: int, width: int, exponent: float) -> Field:
    """Gaussian noise (h, w) with amplitude spectrum 1/f^exponent, zero mean, unit variance."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width), np.float32))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(spectrum * frequency**-exponent, (height, width))
    unit: Field = (field / max(float(field.std()), 1e-12)).astype(np.float32)
    return unit


def _paint_leaf(
    rng: np.random.Generator,
    scene: _Scene,
    picture: Field,
    light: Field,
    radius: float,
    blunt: float,
) -> None:
    """Draw one leaf behind those already in `picture`, and its shadow behind it."""
    height, width = light.shape
    centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
    shadow = radius > 6 and rng.random() < 0.35
    reach = radius * (1.45 if shadow else 1.05) + 2
    top, bottom = max(0, int(centre_y - reach)), min(height, int(centre_y + reach) + 2)
    left, right = max(0, int(centre_x - reach)), min(width, int(centre_x + reach) + 2)
    window = (slice(top, bottom), slice(left, right))
    passing = light[window]
    if float(passing.max()) < 0.01:
        return
    y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(centre_y)
    x = np.arange(left, right, dtype=np.float32)[None] - np.float32(centre_x)
    inside = _signed_distance(rng, y, x, radius)
    softness = 1.0 + blunt * rng.exponential(1.0)
    if radius > 20 and rng.random() < 0.15:
        softness += rng.exponential(6.0)  # out of focus
    cover = np.clip(inside / np.float32(softness) + np.float32(0.5), 0, 1)
    colour = _texture(rng, scene, window, y, x, radius)
    drawn = passing * cover
    picture[window] += drawn[..., None] * colour
    passing -= drawn
    if shadow:
        spread = np.float32(radius * rng.uniform(0.1, 0.35))
        dark = np.clip(inside / spread + 1, 0, 1) * np.float32(rng.uniform(0.2, 0.6))
        passing *= 1 - dark


def _signed_distance(rng: np.random.Generator, y: Field, x: Field, radius: float) -> Field:
    """About the distance in px to the outline of a random shape, positive inside, (h, w)."""
    angle = rng.uniform(0, math.pi)
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    u, v = cosine * x + sine * y, cosine * y - sine * x
    kind = rng.random()
    aspect = rng.uniform(0.25, 1.0)
    if kind < 0.35:  # ellipse
        return (1 - np.hypot(u, v / np.float32(aspect)) / np.float32(radius)) * np.float32(
            radius * aspect
        )
    if kind < 0.65:  # rectangle
        half = np.float32(radius / math.hypot(1, aspect))
        return np.minimum(half - np.abs(u), half * np.float32(aspect) - np.abs(v))
    if kind < 0.8:  # convex polygon
        distance = np.full(u.shape, np.float32(radius))
        for turn in np.sort(rng.uniform(0, 2 * math.pi, rng.integers(3, 7))):
            across = np.float32(math.cos(turn)) * u + np.float32(math.sin(turn)) * v
            np.minimum(distance, np.float32(radius * rng.uniform(0.3, 0.9)) - across, out=distance)
        return np.minimum(distance, np.float32(radius) - np.hypot(u, v))
    if radius < 5:
        return np.float32(radius) - np.hypot(u, v)
    wave = np.arctan2(v, u)  # blob
    outline: Field = np.full(wave.shape, 0.72, np.float32)
    for harmonic in (2, 3, 5):
        size, phase = rng.uniform(0, 0.28 / harmonic**0.5), rng.uniform(0, 2 * math.pi)
        outline = outline + np.float32(size) * np.sin(harmonic * wave + np.float32(phase))
    blob: Field = np.float32(radius) * outline - np.hypot(u, v)
    return blob


def _texture(
    rng: np.random.Generator,
    scene: _Scene,
    window: tuple[slice, slice],
    y: Field,
    x: Field,
    radius: float,
) -> Field:
    """Colours of one leaf on its window, (h, w, 3) or (1, 1, 3) for a plain one."""
    base: Field = scene.palette[rng.integers(len(scene.palette))]
    base = base + rng.normal(0, 0.06) + rng.normal(0, 0.015, 3)
    kind = rng.random()
    if radius < 4 or kind < 0.2:
        return base[None, None].astype(np.float32)
    pattern: Field
    contrast = rng.exponential(0.05)
    if kind < 0.65:  # 1/f noise
        pattern = scene.noise[rng.integers(1, _NOISE_FIELDS)][window]
        contrast *= 1.2
    elif kind < 0.8:  # grating, sinusoidal or nearly square
        period = min(math.exp(rng.uniform(math.log(3), math.log(40))), radius)
        angle, phase = rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
        wave = 2 * math.pi / period
        pattern = np.sin(
            np.float32(wave * math.cos(angle)) * x
            + np.float32(wave * math.sin(angle)) * y
            + np.float32(phase)
        )
        if rng.random() < 0.4:
            pattern = np.tanh(3 * pattern)
        pattern = pattern * (1 + np.float32(0.3) * scene.noise[1][window])
    else:  # gradient
        angle = rng.uniform(0, 2 * math.pi)
        pattern = (np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y) / np.float32(
            radius
        )
        contrast *= 3
    tint = contrast * (1 + rng.normal(0, 0.15, 3))
    textured: Field = pattern[..., None] * tint.astype(np.float32) + base.astype(np.float32)
    return textured


def _blur(picture: Field, sigma_px: float) -> Field:
    """Gaussian blur (h, w, 3) with edges repeated; none below a fifth of a pixel."""
    if sigma_px < 0.2:
        return picture
    reach = math.ceil(3 * sigma_px)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        size = picture.shape[axis]
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(picture, pad, mode="edge")
        blurred = np.zeros_like(picture)
        for offset, tap in enumerate(taps):
            rows = slice(offset, offset + size)
            blurred += np.float32(tap) * (padded[rows] if axis == 0 else padded[:, rows])
        picture = blurred
    return picture
