"""Measure how fast networks train here, and what share of the machine's convolutions that is.

    python -m benchmarks.throughput [--arch cae] [--seconds 10] [--threads N]

The machine's rate is that of plain 3x3 convolutions of 64 channels, forward and backward, in the
layout that training uses. Operations are counted by torch; a multiplication and an addition are
two. Phases are those of `linocut.lab.training.trainer`: with the analysis frozen, and with
everything learning.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from linocut.lab.config.params import GenerativeConfig, Params, load_params
from linocut.lab.networks.losses import l2
from linocut.lab.networks.networks import build_network
from linocut.lab.training.game import JointAdversary
from linocut.lab.training.machine import pick_device
from linocut.lab.training.recipes import generator_of
from linocut.lab.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
CONVOLUTION_CHANNELS = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arch", action="append", help="one of params.yaml's; default: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each line of the table")
    parser.add_argument("--threads", type=int, help="default: torch's choice")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    params = load_params(ROOT / "params.yaml")
    device = pick_device()
    rate = convolution_rate(device, options.seconds)
    rows = [
        row
        for architecture in options.arch or params.arch
        for row in measure(params, architecture, device, options.seconds)
    ]
    threads = torch.get_num_threads()
    print(f"training on {device}, {threads} threads; convolutions {rate / 1e9:.1f} GFLOP/s\n")
    heads = ("Mpx/s", "kFLOP/px", "GFLOP/s", "share")
    print(f"{'architecture':12} {'phase':8} " + " ".join(f"{head:>8}" for head in heads))
    for row in rows:
        flops = row.pixels_per_s * row.flop_per_pixel
        cells = row.pixels_per_s / 1e6, row.flop_per_pixel / 1e3, flops / 1e9
        numbers = f"{cells[0]:8.3f} {cells[1]:8.1f} {cells[2]:8.1f} {flops / rate:8.0%}"
        print(f"{row.architecture:12} {row.phase:8} {numbers}")
    return 0


@dataclasses.dataclass(frozen=True)
class Row:
    """One architecture in one phase."""

    architecture: str
    phase: str
    pixels_per_s: float
    flop_per_pixel: float


def convolution_rate(device: torch.device, seconds: float) -> float:
    """Floating-point operations a second of convolutions, forward and backward."""
    c, side = CONVOLUTION_CHANNELS, 96
    layer = nn.Conv2d(c, c, 3, 1, 1)
    layer.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(4, c, side, side, device=device).to(memory_format=torch.channels_last)
    x.requires_grad_()

    def once() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            layer(x).sum().backward()

    return 3 * 2 * 9 * c * c * x.shape[0] * side**2 / _mean_seconds(once, device, seconds)


def measure(params: Params, architecture: str, device: torch.device, seconds: float) -> list[Row]:
    """Both phases of the base network's schedule."""
    schedule = dataclasses.replace(params.train.base, megapixels=0.0)
    option = params.arch[architecture]
    torch.manual_seed(params.seed)
    side = schedule.crop_px
    crops = np.random.default_rng(0).integers(0, 256, (16, side, side, 3), dtype=np.uint8)
    adversary, network = None, build_network(option)
    if isinstance(option.config, GenerativeConfig):
        adversary = JointAdversary(option.config.game, generator_of(network))
    trainer = Trainer(
        network=network,
        distortion=l2,
        crops=crops,
        validation=crops[:1],
        config=params.train,
        schedule=schedule,
        seed=params.seed,
        device=device,
        adversary=adversary,
    )
    trainer.start()
    rows = []
    for phase, joint in (("frozen", False), ("joint", True)):
        with FlopCounterMode(display=False) as counter:
            trainer.step(0, joint=joint)
        taken = _mean_seconds(functools.partial(trainer.step, 0, joint=joint), device, seconds)
        flop = counter.get_total_flops() / trainer.pixels
        rows.append(Row(architecture, phase, trainer.pixels / taken, flop))
    return rows


def _mean_seconds(function: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Mean time of a call, after one to warm up, over about this long."""
    function()
    _wait(device)
    started = time.perf_counter()
    count = 0
    while count < 3 or time.perf_counter() - started < seconds:
        function()
        _wait(device)
        count += 1
    return (time.perf_counter() - started) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
