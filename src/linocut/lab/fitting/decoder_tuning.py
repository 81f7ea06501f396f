"""Trains a decoder further on the symbols that its own encoder really writes.

    training crops --analysis, rotation, optimised symbols--> latents --synthesis--> x_hat, loss

The training of a network rounds every latent to the nearest step. Files hold symbols chosen for
their bits, which are smaller, so a decoder gains by seeing those. The encoder, the tables and all
files stay as they are. Symbols are chosen on the CPU, once; what learns is on the training device.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from linocut.codec.rotation import Latent, Rotation, fit
from linocut.codec.transforms import numpy_on_one_thread
from linocut.entropy.choice import choose_symbols
from linocut.entropy.coder import EntropyCoder
from linocut.entropy.planes import step_index
from linocut.lab.config.params import Stream, TuningConfig
from linocut.lab.networks.losses import Distortion
from linocut.lab.networks.networks import Network
from linocut.lab.training.guards import ResumeState, largest, on_host, require_finite
from linocut.lab.training.machine import (
    keep_freed_memory,
    pick_device,
    picture_batch,
    return_freed_memory,
    to_device,
)

OWN_SHARE = 0.7
"""Every crop's loss is divided by this share of its own distortion and the rest of its step's."""
CHECKPOINT_EVERY_S = 10.0


@dataclass(frozen=True)
class Seen:
    """One training crop as the decoder sees it.

    Attributes:
        symbols: int16 (c, h, w) for each band.
        rotation: that its symbols were rotated with.
        index: of the step.
        crop: which training crop it is.
    """

    symbols: list[NDArray[np.int16]]
    rotation: Rotation
    index: int
    crop: int


def tune_decoder(
    network: Network,
    used: Rotation | None,
    coder: EntropyCoder,
    crops: NDArray[np.uint8],
    distortion: Distortion,
    config: TuningConfig,
    *,
    effort: int,
    step_range: tuple[float, float],
    seed: int,
    resume: ResumeState | None = None,
) -> None:
    """Train the decoder's nets in place; the linear path and the encoder do not learn.

    Args:
        network: left with the moving average of its weights.
        used: rotation of all files, or None where every file has its own.
        coder: whose tables choose the symbols.
        crops: uint8 (n, s, s, 3), s a multiple of `network.multiple`.
        distortion: what the decoder minimises.
        config: how many crops, how long.
        effort: of the encoder.
        step_range: finest and coarsest step, grey levels.
        seed: of the choice of crops, steps and batches.
        resume: where checkpoints go; None for nowhere. What it holds is left there.

    Raises:
        DivergedError: a loss, a gradient or a weight is not finite.
    """
    seen = _seen(network, used, coder, crops, config.crops, effort, step_range, seed)
    keep_freed_memory()
    network.to(pick_device())
    encoder = {id(parameter) for parameter in network.analysis_parameters()}
    learning = [p for p in network.parameters() if id(p) not in encoder]
    optimiser = torch.optim.Adam(learning, lr=config.learning_rate)
    pixels = config.batch_size * crops.shape[1] * crops.shape[2]
    iterations = max(1, round(config.megapixels * 1e6 / pixels))
    exponent, offset = _typical(network, coder, seen, crops, distortion)
    average = copy.deepcopy(network.state_dict())
    state = resume.load() if resume else None
    if state:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        average = {name: value.to(average[name]) for name, value in state["average"].items()}
    averaged, live = list(average.values()), list(network.state_dict().values())
    start = int(state["done"]) if state else 0
    rng = Stream.TUNING_BATCHES.generator(seed)
    batches = [rng.integers(0, len(seen), config.batch_size) for _ in range(iterations)]
    bar = tqdm(total=iterations * pixels, initial=start * pixels, unit="px", unit_scale=True)
    saved = time.monotonic()
    for iteration in range(start, iterations):
        share = (iteration + 1) / iterations
        pace = min(1.0, share / 0.03) * (0.02 + 0.98 * (1.0 + math.cos(math.pi * share)) / 2.0)
        optimiser.param_groups[0]["lr"] = config.learning_rate * pace
        chosen = [seen[i] for i in batches[iteration]]
        loss, step = _distortions(network, coder, chosen, crops, distortion)
        expected = torch.exp(exponent * torch.log(step) + offset)
        cost = (loss / (OWN_SHARE * loss.detach() + (1.0 - OWN_SHARE) * expected)).mean()
        optimiser.zero_grad(set_to_none=True)
        cost.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(learning, 1.0)
        found = on_host({"loss": cost, "gradient norm": norm})
        rate = optimiser.param_groups[0]["lr"]
        require_finite(found, iteration, iterations, rate, step)
        optimiser.step()
        decay = min(0.999, (iteration + 1) / (iteration + 10))
        torch._foreach_lerp_(averaged, live, 1.0 - decay)
        bar.update(pixels)
        if resume and time.monotonic() - saved > CHECKPOINT_EVERY_S:
            weight = largest(learning)
            require_finite({"largest weight": weight}, iteration, iterations, rate, step)
            weights = {"network": network.state_dict(), "average": average}
            resume.save(weights | {"optimiser": optimiser.state_dict(), "done": iteration + 1})
            saved = time.monotonic()
    bar.close()
    last = {"largest weight": largest(average.values())}
    require_finite(last, iterations - 1, iterations, config.learning_rate)
    network.load_state_dict(average)
    network.to("cpu")


@torch.inference_mode()
@numpy_on_one_thread()
def _seen(
    network: Network,
    used: Rotation | None,
    coder: EntropyCoder,
    crops: NDArray[np.uint8],
    count: int,
    effort: int,
    step_range: tuple[float, float],
    seed: int,
) -> list[Seen]:
    rng = Stream.TUNING_CROPS.generator(seed)
    found = []
    for crop in rng.permutation(len(crops))[:count]:
        latent: Latent = [band[0].numpy() for band in network.analysis(_pictures(crops, [crop]))]
        own = used or fit(network.bands, [latent], centre=False)
        index = step_index(float(np.exp(rng.uniform(*np.log(step_range)))))
        symbols, _ = choose_symbols(coder, own.transform(latent), index, min(effort, 2))
        found.append(Seen([band.astype(np.int16) for band in symbols], own, index, int(crop)))
        if len(found) % 64 == 0:
            return_freed_memory()
    return found


@torch.no_grad()
def _typical(
    network: Network, coder: EntropyCoder, seen: Sequence[Seen], crops: NDArray[np.uint8],
    distortion: Distortion,
) -> tuple[float, float]:  # fmt: skip
    """Slope and offset of the logarithm of the distortion over that of the step, at the start."""
    found = [_distortions(network, coder, [one], crops, distortion) for one in seen[:256]]
    logs = np.log([(float(step), float(loss) + 1e-9) for loss, step in found])
    slope, offset = np.polyfit(logs[:, 0], logs[:, 1], 1) if len(found) > 1 else (0.0, logs[0, 1])
    return float(slope), float(offset)


def _distortions(
    network: Network, coder: EntropyCoder, seen: Sequence[Seen], crops: NDArray[np.uint8],
    distortion: Distortion,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Distortion and step of each, (n,), where the network is."""
    device = next(network.parameters()).device
    latents = [
        one.rotation.inverse_transform(coder.dequantise(one.symbols, one.index)) for one in seen
    ]
    bands = [
        to_device(torch.from_numpy(np.stack(band)), device) for band in zip(*latents, strict=True)
    ]
    step = to_device(torch.tensor([coder.told_step(one.index) for one in seen]), device)
    x_hat = network.synthesis(bands, step, linear_gradient=False)
    return distortion(x_hat, _pictures(crops, [one.crop for one in seen], device)), step


def _pictures(
    crops: NDArray[np.uint8], chosen: Sequence[int], device: torch.device | None = None
) -> Tensor:
    """Training crops as (n, 3, s, s) in [0, 1]."""
    return picture_batch(np.stack([crops[index] for index in chosen]), device)
