"""The parts of networks: linear paths that are exact, residual branches that start silent.

    x --ColourRotation--> luma, two chroma --ResidualAnalysis, WaveletPyramid--> bands
    bands --WaveletPyramid's inverse--> x0 --ResidualSynthesis, LastLayer--> residual

The wavelet is the biorthogonal CDF 9/7 pair by lifting, with weights that can be trained. Each
one-dimensional step splits a signal into even and odd samples and adds, four times, a weighted sum
of the two neighbours of the other kind. Whatever the weights are, the inverse subtracts the same
sums in the reverse order, so training can never break reconstruction.

Source: Daubechies and Sweldens, "Factoring wavelet transforms into lifting steps", 1998; the
weights are those of ISO/IEC 15444-1 (JPEG 2000), Annex F. The gains make the transform close to
orthonormal, so that one quantisation step in every band costs about the same squared error.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function

GREY_LEVELS = 255.0
REFERENCE_STEP = 32.0  # grey levels; where the step embedding is zero
RESIDUAL_GAIN = 0.25  # keeps the first updates of residual branches small beside the linear path
# Rows: luma, blue-yellow, red-green. Orthonormal, so one step in every channel costs the same
# squared error.
COLOUR_ROTATION = (
    (0.5774, 0.5774, 0.5774),
    (0.4082, 0.4082, -0.8165),
    (0.7071, -0.7071, 0.0),
)
LIFTING_WEIGHTS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
LIFTING_GAIN = 1.230174104914001 / 2**0.5
"""Low-pass gain of an orthonormal 9/7 pair: K sqrt(2) / 2."""


def convolution(inputs: int, outputs: int, *, stride: int = 1, zero: bool = False) -> nn.Conv2d:
    """A 3x3 convolution; `zero` starts it at zero, so that a residual branch starts silent."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1)
    if zero:
        nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class PReLU(nn.PReLU):
    """max(x, 0) + w min(x, 0), w of each channel; a third of the time of PyTorch's to train."""

    def forward(self, x: Tensor) -> Tensor:
        """x (n, c, h, w) -> the same shape."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        result: Tensor = _Prelu.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return result


class _Prelu(torch.autograd.Function):
    """Without masks: a selection by condition costs PyTorch ten times what a product does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x.clamp(max=0.0).mul_((weight - 1.0).to(x.dtype).view(-1, 1, 1)).add_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(gradient, x, 0)
        below = gradient - above
        of_weight = (below * x).sum((0, 2, 3), dtype=torch.float32).to(weight.dtype)
        return below.mul_(weight.to(gradient.dtype).view(-1, 1, 1)).add_(above), of_weight


def in_full(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer at an end of a network: in float32, whatever the mixed precision around it is."""
    with torch.autocast(x.device.type, enabled=False):
        result: Tensor = layer(x.float())
    return result


class ColourRotation(nn.Module):
    """RGB (n, 3, h, w) in [0, 1] <-> three orthonormal channels around zero, in grey levels."""

    matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        exact = torch.linalg.qr(torch.tensor(COLOUR_ROTATION, dtype=torch.float64).mT)[0].mT
        signs = torch.sign((exact * torch.tensor(COLOUR_ROTATION)).sum(1, keepdim=True))
        self.register_buffer("matrix", (exact * signs).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """RGB in [0, 1] -> rotated grey levels."""
        with torch.autocast(x.device.type, enabled=False):  # 8 bits of mantissa are too few here
            return torch.einsum("ij,njhw->nihw", self.matrix, (x.float() - 0.5) * GREY_LEVELS)

    def inverse(self, y: Tensor) -> Tensor:
        """Rotated grey levels (n, 3 k, h, w), k pixels of a colour together -> RGB, not clipped."""
        matrix = self.matrix
        if y.shape[1] > 3:
            matrix = torch.kron(matrix, torch.eye(y.shape[1] // 3, device=y.device))
        with torch.autocast(y.device.type, enabled=False):
            return torch.einsum("ij,nihw->njhw", matrix, y.float()) / GREY_LEVELS + 0.5


def _along(x: Tensor, axis: int, start: int | None, stop: int | None, step: int = 1) -> Tensor:
    """Samples of x (..., h, w) along its last axis, -1, or the one before it, -2."""
    cut = slice(start, stop, step)
    return x[..., cut] if axis == -1 else x[..., cut, :]


class Lifting(nn.Module):
    """One-dimensional 9/7 lifting along an axis, with its own weights for every channel.

    Args:
        channels: number of channels c.
        axis: -1 along rows, -2 along columns.
    """

    def __init__(self, channels: int, axis: int = -1) -> None:
        super().__init__()
        weights = torch.tensor(LIFTING_WEIGHTS).view(4, 1, 1, 1).repeat(1, channels, 1, 1)
        self.weights = nn.Parameter(weights)
        self.axis = axis

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split x (n, c, h, w) with even w (or h) into low and high (n, c, h, w/2)."""
        a, b, g, d = self.weights
        even, odd = (_along(x, self.axis, first, None, 2) for first in (0, 1))
        odd = odd + a * (even + self._after(even))
        even = even + b * (odd + self._before(odd))
        odd = odd + g * (even + self._after(even))
        even = even + d * (odd + self._before(odd))
        return even / LIFTING_GAIN, odd * LIFTING_GAIN

    def inverse(self, low: Tensor, high: Tensor) -> Tensor:
        """Join low and high (n, c, h, w/2) into x (n, c, h, w)."""
        a, b, g, d = self.weights
        even, odd = low * LIFTING_GAIN, high / LIFTING_GAIN
        even = even - d * (odd + self._before(odd))
        odd = odd - g * (even + self._after(even))
        even = even - b * (odd + self._before(odd))
        odd = odd - a * (even + self._after(even))
        return torch.stack([even, odd], dim=self.axis).flatten(self.axis - 1, self.axis)

    def _after(self, even: Tensor) -> Tensor:
        """The next even sample of every odd one, mirrored at the end: m samples -> m."""
        ends = _along(even, self.axis, 1, None), _along(even, self.axis, -1, None)
        return torch.cat(ends, dim=self.axis)

    def _before(self, odd: Tensor) -> Tensor:
        """The odd sample before every even one, mirrored at the start: m samples -> m."""
        ends = _along(odd, self.axis, None, 1), _along(odd, self.axis, None, -1)
        return torch.cat(ends, dim=self.axis)


class WaveletLevel(nn.Module):
    """One two-dimensional level: x (n, c, h, w) <-> LL, HL, LH, HH (n, c, h/2, w/2 each)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rows = Lifting(channels)
        self.columns = Lifting(channels, axis=-2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return LL, HL (detail across columns), LH (detail across rows), HH."""
        low, high = self.columns(torch.cat(self.rows(x)))
        (ll, hl), (lh, hh) = low.chunk(2), high.chunk(2)
        return ll, hl, lh, hh

    def inverse(self, ll: Tensor, hl: Tensor, lh: Tensor, hh: Tensor) -> Tensor:
        """Undo `forward`."""
        both = self.columns.inverse(torch.cat([ll, hl]), torch.cat([lh, hh]))
        return self.rows.inverse(*both.chunk(2))


class ContrastGain(nn.Module):
    """Predicts from the next coarser level how strongly its surroundings mask each detail.

    The encoder divides by the gain and the decoder multiplies with it: noise then follows local
    contrast, which is what SSIM-like distortions ask for. Starts at 1 everywhere. All but exactly
    invertible: the decoder sees the quantised coarser level where the encoder saw the original.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            convolution(channels, hidden),
            nn.LeakyReLU(0.1),
            convolution(hidden, channels, zero=True),
        )

    def forward(self, coarser: Tensor) -> Tensor:
        """coarser (n, c, h, w) in grey levels -> gain (n, c, 2h, 2w) between 1/8 and 8."""
        with torch.autocast(coarser.device.type, enabled=False):  # as it will be used
            log_gain = self.net(torch.log1p(coarser.float().abs() / 8.0))
            log_gain = 2.08 * torch.tanh(RESIDUAL_GAIN * log_gain)
            return torch.exp(functional.interpolate(log_gain, scale_factor=2.0, mode="bilinear"))


class WaveletPyramid(nn.Module):
    """Colour channels (n, 3, h, w) <-> bands, with trained lifting weights and contrast gains."""

    def __init__(self, levels: int, hidden: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(WaveletLevel(3) for _ in range(levels))
        self.gains = nn.ModuleList(ContrastGain(9, hidden) for _ in range(levels - 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Analysis: h and w multiples of 2^levels."""
        details = []
        for level in self.levels:
            x, *detail = level(x)
            details.append(torch.cat(detail, 1))
        bands = [x]
        coarser: Tensor | None = None
        for index in reversed(range(len(details))):
            detail = details[index]
            if coarser is not None:
                detail = detail / self.gains[index](coarser)
            coarser = detail
            bands += torch.split(detail, 3, dim=1)
        return bands

    def inverse(self, bands: Sequence[Tensor]) -> Tensor:
        """Synthesis."""
        x, coarser = bands[0], None
        for position, index in enumerate(reversed(range(len(self.levels)))):
            detail = torch.cat(list(bands[1 + 3 * position : 4 + 3 * position]), 1)
            gain = self.gains[index](coarser) if coarser is not None else 1.0
            coarser = detail
            level = self.levels[index]
            assert isinstance(level, WaveletLevel)
            x = level.inverse(x, *torch.split(detail * gain, 3, dim=1))
        return x


class ResidualAnalysis(nn.Module):
    """Convolutions at half resolution before the wavelet: (n, 3, h, w) plus a residual."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        body: list[nn.Module] = [convolution(12, channels), PReLU(channels)]
        for _ in range(layers):
            body += [convolution(channels, channels), PReLU(channels)]
        self.body = nn.Sequential(*body, convolution(channels, 12, zero=True))

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual."""
        blocks = functional.pixel_unshuffle(x, 2) / 64.0
        return x + RESIDUAL_GAIN * 64.0 * functional.pixel_shuffle(self.body(blocks), 2)


class StepModulation(nn.Module):
    """Scales and shifts each channel by what the quantisation step asks for."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        last = nn.Linear(16, 2 * channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.Linear(1, 16), nn.LeakyReLU(0.1), last)

    def forward(self, features: Tensor, step: Tensor) -> Tensor:
        """features (n, c, h, w), step (n,) in grey levels."""
        scale, shift = self.net(step_embedding(step)).chunk(2, dim=1)
        modulated: Tensor = features * (1.0 + scale[..., None, None]) + shift[..., None, None]
        return modulated


def step_embedding(step: Tensor) -> Tensor:
    """step (n,) -> its logarithm around the reference step, (n, 1)."""
    return torch.log2(step / REFERENCE_STEP)[:, None] / 2.0


class ResidualBlock(nn.Module):
    """x + conv(PReLU(conv(x))), 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(channels, channels), PReLU(channels), convolution(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual."""
        result: Tensor = x + self.body(x)
        return result


class ResidualSynthesis(nn.Module):
    """Sees what is wrong with the decoded picture, with most of the work at quarter resolution.

    Knows the step. `leave`, the last layer, makes a residual of its features.
    """

    def __init__(self, channels: int, deep_channels: int, blocks: int) -> None:
        super().__init__()
        self.enter = convolution(13, channels)
        self.modulate = StepModulation(channels)
        self.act = PReLU(channels)
        self.down = convolution(channels, deep_channels, stride=2)
        self.deep = nn.Sequential(*(ResidualBlock(deep_channels) for _ in range(blocks)))
        self.up = nn.Conv2d(deep_channels, 4 * channels, 1)
        self.merge = nn.Sequential(convolution(channels, channels), PReLU(channels))
        self.leave = LastLayer(channels)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """x (n, 3, h, w) grey levels, step (n,) -> features (n, c, h/2, w/2) for the last layer."""
        blocks = functional.pixel_unshuffle(x, 2) / 64.0
        plane = step_embedding(step)[..., None, None].expand_as(blocks[:, :1])
        features = self.act(self.modulate(self.enter(torch.cat([blocks, plane], 1)), step))
        deep = self.deep(self.down(features))
        merged: Tensor = self.merge(features + functional.pixel_shuffle(self.up(deep), 2))
        return merged


class LastLayer(nn.Conv2d):
    """Features (n, c, h, w) -> residual (n, 12, h, w): a 3x3 convolution, starting silent.

    Four pixels of a colour are four channels, as `functional.pixel_unshuffle` has them. A decoder
    may scale every feature to suit one picture, see `linocut.codec.correction`: for each colour,
    and for luma where the picture is quiet and where it is busy besides.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 12, 3, 1, 1)
        nn.init.zeros_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(
        self, features: Tensor, scale: Tensor | None = None, places: Tensor | None = None
    ) -> Tensor:
        """Make the residual.

        Args:
            features: (n, c, h, w).
            scale: (5, c), factors of the three colours, then what luma's become more in quiet and
                in busy places; None for 1, 1, 1, 0, 0.
            places: (n, 8, h, w), quiet and busy, four pixels each.
        """
        if scale is None:
            return super().forward(features)
        assert places is not None
        weight = self.weight.reshape(3, 4, self.in_channels, 3, 3)
        colours = (weight * scale[:3, None, :, None, None]).flatten(0, 1)
        more = (weight[0] * scale[3:, None, :, None, None]).flatten(0, 1)
        assert self.bias is not None
        bias = torch.cat([self.bias, torch.zeros_like(self.bias[:8])])
        made = self._conv_forward(features, torch.cat([colours, more]), bias)
        luma, others, quiet, busy = made.split([4, 8, 4, 4], dim=1)
        luma = luma + (places[:, :4] * quiet + places[:, 4:] * busy)
        return torch.cat([luma, others], 1)

    def shares(self, features: Tensor) -> list[Tensor]:
        """What each feature adds to the residual of each colour, without the bias.

        features (1, c, h + 2, w + 2) -> three (c, 4 h w), four pixels of one colour after another
        """
        channels = self.in_channels
        weight = self.weight.reshape(3, 4, channels, 3, 3).transpose(1, 2)
        features = features.contiguous()
        return [
            functional.conv2d(
                features, weight[colour].reshape(4 * channels, 1, 3, 3), groups=channels
            ).reshape(channels, -1)
            for colour in range(3)
        ]


def quiet_and_busy(linear: Tensor, step: Tensor) -> Tensor:
    """Where luma varies less and more than quantisation does: (n, 2, h, w) from 0 to 1.

    linear (n, 3, h, w) and step (n,) in grey levels. With v the standard deviation of luma within 5
    x 5 px in steps: quiet falls from 1 to 0 between 1/4 and 1/2, busy rises between 1 and 2. Has
    no gradient.
    """
    luma = linear[:, :1].detach()  # a square root has no slope at 0
    mean = functional.avg_pool2d(luma, 5, 1, 2, count_include_pad=False)
    around = functional.avg_pool2d(luma.square(), 5, 1, 2, count_include_pad=False)
    deviation = (around - mean.square()).clamp(min=0.0).sqrt() / step[:, None, None, None]
    octaves = torch.log2(deviation + 0.01)
    return torch.cat([(-1.0 - octaves).clamp(0.0, 1.0), octaves.clamp(0.0, 1.0)], 1)


# --- NCode: a DCGAN generator of blocks of 64 x 64 px, and an encoder that mirrors it -------------
#
#     z (n, d, h, w) in [-1, 1] --a block for each place--> x_hat (n, 3, 64 h, 64 w) in [0, 1]
#     x (n, 3, 64 h, 64 w) in [0, 1] --> z (n, d, h, w)
#
# Blocks never see each other. Source: Radford et al., "Unsupervised representation learning with
# DCGANs", 2016; Santurkar, Budden, Shavit, "Generative compression", PCS 2018.

BLOCK_PX = 64
_MOMENTUM = 0.1
_DEVIATION = 0.02  # of first weights, as in DCGAN


class BatchNorm(nn.Module):
    """Batch normalisation whose buffers are floats only, so that they can be averaged."""

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (n, c, h, w), of the same shape."""
        return functional.batch_norm(
            x, self.mean, self.variance, self.weight, self.bias, self.training, _MOMENTUM
        )


class BlockGenerator(nn.Module):
    """Four doublings from 4 x 4: transposed 4x4 convolutions of stride 2, ReLU, tanh at the end."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        widths = (8 * channels, 4 * channels, 2 * channels, channels)
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False)]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [BatchNorm(inputs), nn.ReLU()]
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False))
        layers += [BatchNorm(channels), nn.ReLU(), nn.ConvTranspose2d(channels, 3, 4, 2, 1)]
        self.body = nn.Sequential(*layers)
        _first_weights(self)

    def forward(self, z: Tensor) -> Tensor:
        """z (n, d, h, w) -> blocks side by side, (n, 3, 64 h, 64 w)."""
        hidden = self.body[:-1](z.permute(0, 2, 3, 1).flatten(0, 2)[..., None, None])
        blocks = in_full(self.body[-1], hidden)
        return joined(torch.tanh(blocks) / 2.0 + 0.5, z)


class BlockEncoder(nn.Module):
    """The generator's mirror image: 4x4 convolutions of stride 2, leaky ReLU, tanh at the end."""

    def __init__(self, latent: int, channels: int) -> None:
        super().__init__()
        widths = (3, channels, 2 * channels, 4 * channels, 8 * channels)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), BatchNorm(outputs)]
            layers.append(nn.LeakyReLU(0.2))
        self.body = nn.Sequential(*layers, nn.Conv2d(widths[-1], latent, 4))
        _first_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """x (n, 3, 64 h, 64 w) -> z (n, d, h, w)."""
        z = torch.tanh(in_full(self.body[-1], self.body[:-1](blocks_of(2.0 * x - 1.0))))
        return grid_of(z.flatten(1), x[..., ::BLOCK_PX, ::BLOCK_PX]).permute(0, 3, 1, 2)


def blocks_of(x: Tensor) -> Tensor:
    """x (n, c, 64 h, 64 w) -> its blocks, picture by picture and row by row, (n h w, c, 64, 64)."""
    columns = torch.unflatten(x, 3, (-1, BLOCK_PX)).permute(0, 1, 3, 4, 2)
    cut = torch.unflatten(columns, 4, (-1, BLOCK_PX))
    return cut.permute(0, 4, 2, 1, 5, 3).flatten(0, 2)


def joined(blocks: Tensor, like: Tensor) -> Tensor:
    """Undo `blocks_of` for pictures of h x w blocks; `like` is (n, any, h, w)."""
    grid = grid_of(blocks, like).permute(0, 3, 1, 4, 2, 5)
    return grid.flatten(4, 5).flatten(2, 3)


def grid_of(rows: Tensor, like: Tensor) -> Tensor:
    """(n h w, ...) -> (n, h, w, ...), where `like` is (n, any, h, w).

    One operation for those that trace a network: they cannot see where h and w come from.
    """
    if has_torch_function((rows, like)):
        found: Tensor = handle_torch_function(grid_of, (rows, like), rows, like)
        return found
    return rows.reshape(like.shape[0], *like.shape[2:], *rows.shape[1:])


def _first_weights(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, _DEVIATION)
