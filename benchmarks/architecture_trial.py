"""Train variants of the autoencoder with equal numbers of operations, and compare what they reach.

    python -m benchmarks.architecture_trial --prepared artifacts/prepared [--megapixels 10]
        [--seeds 2] [--variant wide ...]

Every variant starts from the untrained network, a wavelet, and is trained for as many operations as
the default synthesis spends on `--megapixels`: cheaper ones see more pixels. Only the synthesis
learns, but for `both sides` and `strong analysis`. Rates are those of the shipped codec's contexts,
tables fitted anew to each variant's latents; pictures are the middles of the validation
photographs. BD-rates are against the untrained network.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from linocut.codec.codec import Codec
from linocut.entropy.coder import EntropyCoder
from linocut.entropy.planes import dequantise, quantise, step_index, step_of
from linocut.lab.config.params import CaeConfig, Params, load_params
from linocut.lab.evaluation.rd import bd_rate
from linocut.lab.fitting.build import training_latents
from linocut.lab.fitting.entropy_fit import ContextNetworks, fit_tables
from linocut.lab.networks.layers import ResidualAnalysis, ResidualSynthesis
from linocut.lab.networks.losses import l2
from linocut.lab.networks.networks import ARCHITECTURES, Network
from linocut.lab.networks.store import decoder_kmac_per_px
from linocut.lab.networks.torch_transforms import TorchTransforms
from linocut.lab.training.machine import pick_device
from linocut.lab.training.trainer import Trainer
from linocut.models import folders
from linocut.pictures.image import RgbArray, centre, read_image
from linocut.pictures.quality import psnr_db

ROOT = Path(__file__).resolve().parents[1]
STEPS = (8.0, 16.0, 32.0, 64.0, 128.0)
ROUNDING = 0.5
"""To the nearest, as in training."""
SIZE_PX = (256, 384)
"""Of the middles of the validation pictures."""

Curve = tuple[list[float], list[float]]
"""Rates in bpp, PSNR in dB."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network, and how much of it learns.

    Attributes:
        change: of the untrained default network, in place.
        frozen: share of the training with a frozen analysis.
    """

    change: Callable[[nn.Module], None]
    frozen: float = 1.0


@dataclasses.dataclass(frozen=True)
class Result:
    """What one training reached."""

    variant: str
    seed: int
    bd_rate: float
    teraflop: float
    megapixels: float
    seconds: float
    kmac_per_px: float


class InverseGdn(nn.Module):
    """x (beta + gamma |x|), the inverse of simplified divisive normalisation (GDN1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)
        nn.init.constant_(self.mix.weight, 0.1 / channels)
        nn.init.ones_(self.mix.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Multiply every channel with what all of them say."""
        result: Tensor = x * self.mix(x.abs())
        return result


class SeparableBlock(nn.Module):
    """x + 1x1(PReLU(1x1(7x7 of each channel))), as wide inside as makes it cost a 3x3 block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = 8 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 7, 1, 3, groups=channels),
            nn.Conv2d(channels, inside, 1),
            nn.PReLU(inside),
            nn.Conv2d(inside, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual."""
        result: Tensor = x + self.body(x)
        return result


def _same(_: nn.Module) -> None:
    pass


def _synthesis(channels: int, deep: int, blocks: int) -> Callable[[nn.Module], None]:
    def change(network: nn.Module) -> None:
        network.synthesis_net = ResidualSynthesis(channels, deep, blocks)

    return change


def _activation(make: Callable[[int], nn.Module]) -> Callable[[nn.Module], None]:
    """Every PReLU of the synthesis replaced."""

    def change(network: nn.Module) -> None:
        net = network.synthesis_net
        for parent in list(net.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.PReLU):
                    setattr(parent, name, make(child.num_parameters))

    return change


def _separable(network: nn.Module) -> None:
    deep = network.synthesis_net.deep
    width = network.synthesis_net.down.out_channels
    network.synthesis_net.deep = nn.Sequential(*(SeparableBlock(width) for _ in deep))


def _strong_analysis(network: nn.Module) -> None:
    network.analysis_net = ResidualAnalysis(64, 3)


VARIANTS: dict[str, Variant] = {
    "default": Variant(_same),
    "narrow: 24 and 40 channels": Variant(_synthesis(24, 40, 2)),
    "wide: 56 and 96 channels": Variant(_synthesis(56, 96, 2)),
    "shallow: 1 block": Variant(_synthesis(40, 64, 1)),
    "deep: 4 blocks": Variant(_synthesis(40, 64, 4)),
    "ReLU": Variant(_activation(lambda _: nn.ReLU())),
    "inverse GDN": Variant(_activation(InverseGdn)),
    "separable 7x7 blocks": Variant(_separable),
    "both sides": Variant(_same, 0.0),
    "strong analysis, both sides": Variant(_strong_analysis, 0.0),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the variants, seed by seed; print a line for each, then the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prepared", type=Path, default=ROOT / "artifacts/prepared")
    parser.add_argument("--megapixels", type=float, default=10.0, help="that the default sees")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="default: all")
    options = parser.parse_args(arguments)
    params = load_params(ROOT / "params.yaml")
    names = options.variant or list(VARIANTS)
    results = []
    starts: dict[int, Curve] = {}
    for seed in range(options.seeds):
        for name in names:
            results.append(trial(params, name, seed, options.prepared, options.megapixels, starts))
            print(results[-1], flush=True)
    print(table(results))
    return 0


def trial(
    params: Params,
    name: str,
    seed: int,
    prepared: Path,
    megapixels: float,
    starts: dict[int, Curve],
) -> Result:
    """Train one variant from the beginning, and measure it.

    Args:
        params: whose `train.base` is the recipe.
        name: in `VARIANTS`.
        seed: of weights, crops and steps.
        prepared: train.npy, validation/.
        megapixels: that the default sees with as many operations.
        starts: curves of the untrained network by seed; filled.
    """
    torch.manual_seed(seed)
    variant = VARIANTS[name]
    reference = _trainer(params, build("default"), seed, prepared, VARIANTS["default"], 0.0)
    operations = megapixels * 1e6 * flop_per_pixel(reference)
    torch.manual_seed(seed)
    network = build(name)
    probe = _trainer(params, build(name), seed, prepared, variant, 0.0)
    seen = operations / flop_per_pixel(probe) / 1e6
    trainer = _trainer(params, network, seed, prepared, variant, seen)
    began = time.perf_counter()
    trainer.run()
    seconds = time.perf_counter() - began
    pictures = [
        centre(read_image(path), *SIZE_PX) for path in sorted(prepared.glob("validation/*.png"))
    ]
    crops = prepared / "train.npy"
    if seed not in starts:
        starts[seed] = curve(build("default"), pictures, crops, seed)
    gain = bd_rate(*starts[seed], *curve(network, pictures, crops, seed))
    cost = decoder_kmac_per_px(network)
    return Result(name, seed, gain, operations / 1e12, seen, seconds, cost)


def build(name: str) -> Network:
    """An untrained network of this variant."""
    network = ARCHITECTURES["cae"](CaeConfig(5, 16, 32, 2, 40, 64, 2))
    VARIANTS[name].change(network)
    return network


def flop_per_pixel(trainer: Trainer) -> float:
    """Floating-point operations of an iteration for each pixel, forward and backward.

    The trainer is used up: this trains for an iteration.
    """
    trainer.start()
    with FlopCounterMode(display=False) as counter:
        trainer.step(0, joint=trainer.frozen_iterations == 0)
    return float(counter.get_total_flops()) / trainer.pixels


def curve(network: Network, pictures: Sequence[RgbArray], crops: Path, seed: int) -> Curve:
    """Mean rate in bpp and mean PSNR at every step, with tables fitted to this network."""
    codec = Codec.load(folders.folder_of("cae-l2"))
    rng = np.random.default_rng([seed, 1])
    samples = []
    for latent in training_latents(network, crops, 24, seed):
        for _ in range(3):
            index = step_index(float(np.exp(rng.uniform(np.log(6), np.log(160)))))
            samples.append(([quantise(band, step_of(index), ROUNDING) for band in latent], index))
    contexts = ContextNetworks.of(codec.coder.tables)
    coder = EntropyCoder(network.bands, fit_tables(network.bands, samples, contexts))
    codec = codec.with_transforms(TorchTransforms(network))
    rates, qualities = [], []
    for step in STEPS:
        index = step_index(step)
        bits = error = 0.0
        for picture in pictures:
            latent = codec.analyse(picture).latents[0]
            symbols = [quantise(band, step_of(index), ROUNDING) for band in latent]
            bits += float(coder.estimate_bits(symbols, index).sum())
            bands = [dequantise(band, step_of(index)) for band in symbols]
            decoded = codec.transforms.synthesis(bands, step_of(index))
            error += psnr_db(picture, decoded[: picture.shape[0], : picture.shape[1]])
        rates.append(bits / sum(picture.size / 3 for picture in pictures))
        qualities.append(error / len(pictures))
    return rates, qualities


def table(results: Sequence[Result]) -> str:
    """A row for each variant, with the BD-rates of all seeds, in Markdown."""
    lines = [
        "| variant | BD-rate, by seed | training, TFLOP | Mpx seen | s | decoder, kMAC/px |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(result.variant for result in results):
        mine = [result for result in results if result.variant == name]
        gains = ", ".join(f"{result.bd_rate:+.1f} %" for result in mine)
        seconds = np.mean([result.seconds for result in mine])
        one = mine[0]
        lines.append(
            f"| {name} | {gains} | {one.teraflop:.2f} | {one.megapixels:.1f} | {seconds:.0f} "
            f"| {one.kmac_per_px:.1f} |"
        )
    return "\n".join(lines)


def _trainer(
    params: Params, network: Network, seed: int, prepared: Path, variant: Variant, megapixels: float
) -> Trainer:
    schedule = dataclasses.replace(
        params.train.base, megapixels=megapixels, frozen_analysis_share=variant.frozen
    )
    crops = np.load(prepared / "train.npy", mmap_mode="c")
    return Trainer(
        network=network,
        distortion=l2,
        crops=crops,
        validation=np.asarray(crops[:1]),
        config=params.train,
        schedule=schedule,
        seed=seed,
        device=pick_device(),
    )


if __name__ == "__main__":
    sys.exit(main())
