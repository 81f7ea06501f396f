"""The last layer of a decoder, which a picture may scale to suit itself.

`linocut.codec.correction` says how.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class LastLayer(nn.Conv2d):
    """Features (n, c, h, w) -> residual (n, 3, 2h, 2w): a 3x3 convolution, starting silent.

    A decoder may scale every feature to suit one picture, see `linocut.codec.correction`: for each
    colour, and for luma where the picture is quiet and where it is busy besides.
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
            places: (n, 2, 2h, 2w), quiet and busy.
        """
        if scale is None:
            return functional.pixel_shuffle(super().forward(features), 2)
        assert places is not None
        weight = self.weight.reshape(3, 4, self.in_channels, 3, 3)
        colours = (weight * scale[:3, None, :, None, None]).flatten(0, 1)
        more = (weight[0] * scale[3:, None, :, None, None]).flatten(0, 1)
        assert self.bias is not None
        bias = torch.cat([self.bias, torch.zeros_like(self.bias[:8])])
        made = self._conv_forward(features, torch.cat([colours, more]), bias)
        made = functional.pixel_shuffle(made, 2)
        luma = made[:, :1] + (places * made[:, 3:]).sum(1, keepdim=True)
        return torch.cat([luma, made[:, 1:3]], 1)

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
