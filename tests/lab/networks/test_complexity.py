"""The counted cost of decoding is the one that the layers' shapes give."""

import pytest

from linocut.lab.config.params import CaeConfig
from linocut.lab.networks.complexity import decoder_kmac_per_px
from linocut.lab.networks.networks import ARCHITECTURES


def test_the_count_is_that_of_the_convolutions():
    c, d, g = 8, 12, 4
    network = ARCHITECTURES["cae"](
        CaeConfig(
            levels=2, gain_channels=g, analysis_channels=4, analysis_layers=1,
            synthesis_channels=c, synthesis_deep_channels=d, synthesis_blocks=1,
        )
    )  # fmt: skip
    half, quarter = 1 / 4, 1 / 16
    expected = half * 9 * (13 * c + c * c + 12 * c)  # enter, merge, leave
    expected += quarter * (9 * c * d + 2 * 9 * d * d + d * 4 * c)  # down, a block, up
    expected += quarter * 9 * (9 * g + g * 9)  # gains of the finest level, predicted from stride 4
    expected += 9  # the colour rotation
    assert 1000 * decoder_kmac_per_px(network) == pytest.approx(expected, rel=0.001)
