"""The networks: pictures <-> latents. A latent is a list of bands, coarse to fine.

    x (n, 3, h, w) --colour, residual net--> --wavelet, contrast gain--> y
    y_hat --contrast gain, wavelet--> x0 --residual net(step)--> --colour--> x_hat (n, 3, h, w)

y is a list of bands (n, c, h / stride, w / stride). Every network keeps a linear path (an
orthonormal luma/chroma rotation and a 9/7 wavelet) beside its convolutions, and the convolutions
start at zero: an untrained network is already a wavelet codec, training only has to improve it.
Latents are in grey levels (1/255 of the picture's range), so that `step`, the quantisation step,
reads like one.

`ARCHITECTURES` names them all: `cae` (the codec), `generative` (the same, to learn by a game),
`cae2018` (Cheng 2018) and `ncode` (Santurkar 2018). The last two are as published: no linear path.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from linocut.entropy.fixed_codes import HALF_RANGE
from linocut.entropy.planes import Band, wavelet_bands
from linocut.errors import ConfigError
from linocut.lab.config.params import (
    ArchOption,
    Cae2018Config,
    CaeConfig,
    GenerativeConfig,
    NcodeConfig,
)
from linocut.lab.config.parse import find
from linocut.lab.networks.layers import (
    BLOCK_PX,
    RESIDUAL_GAIN,
    BlockEncoder,
    BlockGenerator,
    ColourRotation,
    LastLayer,
    PReLU,
    ResidualAnalysis,
    ResidualSynthesis,
    WaveletPyramid,
    convolution,
    in_full,
    quiet_and_busy,
)

KEPT_GAIN = 1.3
"""Of orthogonal weights: what PReLU takes away, so that all layers see numbers of one size."""
LATENT_GAIN = 2.0
"""With it the untrained latents of `cae2018` are about as large as the coarsest steps."""


class Network(nn.Module):
    """What every architecture offers.

    Attributes:
        architecture: its name in `ARCHITECTURES`, or `module:class` of one that is not there.
        config: its dataclass of numbers.
        bands: the shape of its latent, in coding order.
        multiple: sides of the pictures it takes are multiples of this, px.
        reach: how far a pixel's influence goes through analysis and synthesis together, px;
            pictures cut into tiles need this much around each tile to show no seam.
        colour: RGB <-> the three channels that most of the network works on.
        fixed_bits: where samples of the latent have codes of fixed length, the numbers of bits
            that make the rate points; empty where symbols are entropy-coded.
        codes_untrained: whether it is a codec before it has learned anything.
        frame: px around a part of the linear path that let the part's features come out as in the
            whole, all but exactly; None where features are not made of the linear path alone.
    """

    architecture: str
    config: Any
    bands: tuple[Band, ...]
    multiple: int
    reach: int
    colour: ColourRotation
    fixed_bits: tuple[int, ...] = ()
    codes_untrained: bool = True
    frame: int | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "architecture" not in vars(cls):
            cls.architecture = f"{cls.__module__}:{cls.__name__}"

    def analysis(self, x: Tensor) -> list[Tensor]:
        """g_a: x (n, 3, h, w) in [0, 1], sides multiples of `multiple` -> bands in grey levels."""
        raise TypeError(f"{type(self).__name__} has no analysis")

    def synthesis(
        self, y_hat: Sequence[Tensor], step: Tensor, *, linear_gradient: bool = True,
        scale: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """g_s: bands in grey levels and step (n,) -> x_hat (n, 3, h, w), not clipped.

        Without `linear_gradient` the linear path keeps no graph: half the cost when only the rest
        learns. `scale` suits the last layer to one picture, where `last_layer` is not None.
        """
        raise TypeError(f"{type(self).__name__} has no synthesis")

    @property
    def last_layer(self) -> LastLayer | None:
        """The layer that a picture may have of its own, see `linocut.codec.correction`."""
        return None

    def linear(self, y_hat: Sequence[Tensor]) -> Tensor:
        """The linear path's rotated grey levels (n, 3, h, w), where `last_layer` is not None."""
        raise TypeError(f"{type(self).__name__} has no linear path")

    def features(self, linear: Tensor, y_hat: Sequence[Tensor], step: Tensor) -> Tensor:
        """What enters `last_layer`; with a `frame`, also of a part of `linear`, without y_hat."""
        raise TypeError(f"{type(self).__name__} has no linear path")

    def linear_parameters(self) -> Iterator[nn.Parameter]:
        """The lifting weights: few, each acting on the whole picture, so they learn slowly."""
        for name, parameter in self.named_parameters():
            if "pyramid.levels" in name:
                yield parameter

    def analysis_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the encoder's side."""
        for name, parameter in self.named_parameters():
            if name.startswith("analysis"):
                yield parameter


class Cae(Network):
    """Convolutional autoencoder codec: a wavelet as linear path, residual nets on both sides."""

    architecture = "cae"
    frame = 8

    def __init__(self, config: CaeConfig) -> None:
        super().__init__()
        self.config = config
        self.bands = wavelet_bands(config.levels)
        self.multiple = 2**config.levels
        self.reach = 8 * self.multiple
        self.colour = ColourRotation()
        self.analysis_net = ResidualAnalysis(config.analysis_channels, config.analysis_layers)
        self.analysis_pyramid = WaveletPyramid(config.levels, config.gain_channels)
        self.synthesis_pyramid = WaveletPyramid(config.levels, config.gain_channels)
        self.synthesis_net = ResidualSynthesis(
            config.synthesis_channels, config.synthesis_deep_channels, config.synthesis_blocks
        )

    def analysis(self, x: Tensor) -> list[Tensor]:
        """Colour rotation, residual net, wavelet, contrast gains."""
        bands: list[Tensor] = self.analysis_pyramid(self.analysis_net(self.colour(x)))
        return bands

    @property
    def last_layer(self) -> LastLayer | None:
        """See `Network`."""
        return self.synthesis_net.leave

    def synthesis(
        self, y_hat: Sequence[Tensor], step: Tensor, *, linear_gradient: bool = True,
        scale: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The mirror image of the analysis, then a residual net that knows the step."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and linear_gradient):
            x0 = self.synthesis_pyramid.inverse(y_hat)
        return self.finish(x0, step, scale)

    def finish(self, x0: Tensor, step: Tensor, scale: Tensor | None = None) -> Tensor:
        """What of the synthesis comes after its linear path x0 (n, 3, h, w)."""
        places = None
        if scale is not None:
            places = functional.pixel_unshuffle(quiet_and_busy(x0, step), 2)
        residual = self.synthesis_net.leave(self.synthesis_net(x0, step), scale, places)
        blocks = functional.pixel_unshuffle(x0, 2) + residual_gain(step) * residual
        return functional.pixel_shuffle(self.colour.inverse(blocks), 2)

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """Those of `finish`."""
        return self.synthesis_net.parameters()

    def linear(self, y_hat: Sequence[Tensor]) -> Tensor:
        """See `Network`."""
        return self.synthesis_pyramid.inverse(y_hat)

    def features(self, linear: Tensor, y_hat: Sequence[Tensor], step: Tensor) -> Tensor:
        """See `Network`."""
        found: Tensor = self.synthesis_net(linear, step)
        return found


class Generative(Cae):
    """The same autoencoder, its decoder a generator: trained against a discriminator."""

    architecture = "generative"

    def __init__(self, config: GenerativeConfig) -> None:
        super().__init__(config)

    @property
    def last_layer(self) -> None:
        """None: suited to one picture by squared error, it would take back what the game taught."""
        return None


class Cae2018(Network):
    """The autoencoder of Cheng et al. 2018, for one component at a time.

    YCbCr components as pictures of their own; six 3x3 convolutions {32, 32, 64, 64, 64, 32}, in
    pairs of stride 1 and stride 2, to (h/8, w/8) x 32; PReLU; mirrored decoder. Widths scale with
    `channels` (32 in the paper). No linear path: it starts from random weights, as published, but
    orthogonal ones, for six layers of PyTorch's usual ones hand on a thousandth of a picture.
    """

    architecture = "cae2018"
    codes_untrained = False

    def __init__(self, config: Cae2018Config) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.bands = tuple(Band(name, c, 8) for name in ("Y", "Cb", "Cr"))
        self.multiple = 8
        self.reach = 64
        self.colour = ColourRotation()
        widths = (1, c, c, 2 * c, 2 * c, 2 * c, c)
        layers: list[nn.Module] = []
        for index in range(6):
            layers.append(convolution(widths[index], widths[index + 1], stride=1 + index % 2))
            if index < 5:
                layers.append(PReLU(widths[index + 1]))
        self.analysis_net = nn.Sequential(*layers)
        layers = []
        for index in reversed(range(6)):
            inputs, outputs = widths[index + 1], widths[index]
            if index % 2:
                layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1))
            else:
                layers.append(convolution(inputs, outputs))
            if index:
                layers.append(PReLU(outputs))
        self.synthesis_net = nn.Sequential(*layers)
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.orthogonal_(layer.weight, KEPT_GAIN)
                    assert layer.bias is not None
                    nn.init.zeros_(layer.bias)
            last, first = self.analysis_net[-1], self.synthesis_net[0]
            assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d)
            assert isinstance(first, nn.Conv2d | nn.ConvTranspose2d)
            last.weight.mul_(LATENT_GAIN)
            first.weight.div_(LATENT_GAIN)

    def analysis(self, x: Tensor) -> list[Tensor]:
        """Every component on its own."""
        components = self.colour(x) / 64.0
        hidden = [self.analysis_net[:-1](components[:, i : i + 1]) for i in range(3)]
        return [64.0 * in_full(self.analysis_net[-1], one) for one in hidden]

    def synthesis(
        self, y_hat: Sequence[Tensor], step: Tensor, *, linear_gradient: bool = True,
        scale: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Every component on its own; the published decoder does not know the step."""
        hidden = [self.synthesis_net[:-1](band / 64.0) for band in y_hat]
        components = torch.cat([in_full(self.synthesis_net[-1], one) for one in hidden], 1)
        return self.colour.inverse(64.0 * components)


class Ncode(Network):
    """Generative compression as published: blocks of 64 x 64 px, each from a latent of d numbers.

    A latent is uniform in [-1, 1] while the generator learns to make blocks, so it needs no entropy
    coder: see `linocut.entropy.fixed_codes`. In grey levels it is 128 times that, and a
    quantised one is the lower end of its cell, which the synthesis takes for the cell's middle.
    """

    architecture = "ncode"

    def __init__(self, config: NcodeConfig) -> None:
        super().__init__()
        self.config = config
        self.bands = (Band("z", config.latent, BLOCK_PX),)
        self.multiple = BLOCK_PX
        self.reach = 0
        self.fixed_bits = config.bits
        self.generator = BlockGenerator(config.latent, config.channels)
        self.analysis_net = BlockEncoder(config.latent, config.channels)

    def analysis(self, x: Tensor) -> list[Tensor]:
        """Every block on its own."""
        return [HALF_RANGE * self.analysis_net(x)]

    def synthesis(
        self, y_hat: Sequence[Tensor], step: Tensor, *, linear_gradient: bool = True,
        scale: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Every block on its own."""
        middle = y_hat[0] + step[:, None, None, None] / 2.0
        x_hat: Tensor = self.generator(middle / HALF_RANGE)
        return x_hat


def residual_gain(step: Tensor) -> Tensor:
    """What residuals are multiplied with, (n, 1, 1, 1): the error to repair grows with the step."""
    return RESIDUAL_GAIN * step[:, None, None, None]


def build_network(option: ArchOption) -> Network:
    """An untrained network of an option of conf/arch/.

    Raises:
        ConfigError: its target is no class of networks.
    """
    network = find(option.target)(option.config)
    if not isinstance(network, Network):
        raise ConfigError(f"{option.target} is no subclass of {Network.__module__}:Network")
    return network


ARCHITECTURES: dict[str, Callable[..., Network]] = {
    "cae": Cae,
    "generative": Generative,
    "cae2018": Cae2018,
    "ncode": Ncode,
}
