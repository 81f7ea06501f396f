"""How fast networks train on this machine, and how fast its convolutions are.

The machine's rate is that of plain 3x3 convolutions of 64 channels, forward and backward, in the
layout that training uses. Operations are counted by torch; a multiplication and an addition are
two. Phases are those of `linocut.lab.training.trainer`: with the analysis frozen, and with
everything learning.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from linocut.lab.config.arch_config import GenerativeConfig
from linocut.lab.config.params import Params
from linocut.lab.networks.losses import l2
from linocut.lab.networks.networks import ARCHITECTURES
from linocut.lab.training.adversary import Adversary
from linocut.lab.training.trainer import Trainer

CONVOLUTION_CHANNELS = 64


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
    config = params.arch[architecture]
    torch.manual_seed(params.seed)
    side = schedule.crop_px
    crops = np.random.default_rng(0).integers(0, 256, (16, side, side, 3), dtype=np.uint8)
    adversary = None
    if isinstance(config, GenerativeConfig):
        adversary = Adversary(config, schedule.learning_rate)
    trainer = Trainer(
        network=ARCHITECTURES[architecture](config),
        distortion=l2,
        crops=crops,
        validation=crops[:1],
        config=params.train,
        schedule=schedule,
        seed=params.seed,
        device=device,
        adversary=adversary,
    )
    trainer.run()  # one iteration: everything is set up and warm
    layout = torch.channels_last
    trainer.network.to(device, memory_format=layout).train()  # type: ignore[call-overload]
    rows = []
    for phase, frozen in (("frozen", 2**40), ("joint", 0)):
        trainer.frozen_iterations = frozen
        with FlopCounterMode(display=False) as counter:
            trainer._step(0)
        taken = _mean_seconds(lambda: trainer._step(0), device, seconds)
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
