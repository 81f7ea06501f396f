"""Networks on disk: model.safetensors (weights) and model.json (what they are).

    save_model(folder, network, about) -> model.safetensors + model.json -> load_model(folder)

Nothing is pickled: a file from a stranger can at worst hold wrong numbers. A codec keeps its
kernels in half precision, which costs no bits (docs/log.md): `round_to_half` takes them there.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from linocut.errors import CheckpointError, ConfigError
from linocut.files import write_atomically
from linocut.lab.config.parse import config_type, find, parse
from linocut.lab.networks.networks import ARCHITECTURES, Network
from linocut.models.folders import DESCRIPTION, FORMAT, WEIGHTS, read_description

_COUNTED_PX = 256
KERNEL_NUMBERS = 512
"""Tensors with fewer numbers than this are not rounded: all of them together are some kilobytes."""


def save_model(
    folder: pathlib.Path,
    network: Network,
    description: Mapping[str, Any],
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a network, and further tensors beside its weights.

    Weights that half precision holds exactly lie there in half precision.

    Args:
        folder: made if missing.
        network: of any architecture.
        description: JSON-like facts for people; kept as `description["about"]`.
        extra: further tensors, by names that start with a dot-free prefix of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = network.state_dict().items()
    tensors = {f"network.{k}": _short(v.detach()).contiguous() for k, v in state}
    tensors |= {name: tensor.contiguous() for name, tensor in (extra or {}).items()}
    write_atomically(folder / WEIGHTS, save(tensors))
    text = description_text(
        {
            "format": FORMAT,
            "architecture": network.architecture,
            "config": dataclasses.asdict(network.config),
            "about": dict(description),
        }
    )
    write_atomically(folder / DESCRIPTION, text.encode())


def round_to_half(network: Network) -> None:
    """Take every kernel to the nearest that half precision holds, in place.

    Small tensors stay as they are: the lifting weights of a wavelet and its inverse cost 0.1 dB at
    fine steps where they are rounded. So do tensors with numbers beyond its range (65,504).
    """
    for tensor in network.state_dict().values():
        if tensor.dtype == torch.float32 and tensor.numel() >= KERNEL_NUMBERS:
            half = tensor.half()
            if torch.isfinite(half).all():
                tensor.copy_(half)


def _short(tensor: Tensor) -> Tensor:
    """The same numbers, in half precision if it holds them."""
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    return half if torch.equal(half.float(), tensor) else tensor


def description_text(content: Mapping[str, Any]) -> str:
    """The text of a model.json; lists of numbers and words stay in one line."""
    text = json.dumps(content, indent=2)
    flat = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: f"[{_one_line(found[1])}]", text)
    return flat + "\n"


def _one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text)


def load_tensors(folder: pathlib.Path) -> dict[str, Tensor]:
    """All tensors of model.safetensors by name.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / WEIGHTS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def load_model(folder: pathlib.Path) -> Network:
    """The network of a folder, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: files are missing or damaged, or do not fit together.
    """
    description = read_description(folder)
    name = description.get("architecture")
    try:
        if name not in ARCHITECTURES and ":" not in str(name):
            known = ", ".join(ARCHITECTURES)
            raise ConfigError(f"architecture is {name!r}, expected module:class or one of {known}")
        architecture = ARCHITECTURES.get(str(name)) or find(str(name), "architecture")
        config = config_type(architecture, str(name), "architecture")
        network = architecture(parse(config, description.get("config"), "config"))
        if not isinstance(network, Network):
            raise ConfigError(f"architecture is {name!r}, which is no class of networks")
    except ConfigError as error:
        raise CheckpointError(f"{folder / DESCRIPTION}: {error}") from None
    prefix = "network."
    weights = {
        key.removeprefix(prefix): value
        for key, value in load_tensors(folder).items()
        if key.startswith(prefix)
    }
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{folder / WEIGHTS} does not fit its {DESCRIPTION}: {reason}"
        ) from None
    network.eval()
    return network


def as_tensors(arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    """numpy arrays -> tensors, for `save_model`'s extra."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def decoder_kmac_per_px(network: Network) -> float:
    """Thousand multiplications with additions of the synthesis for a pixel of the picture.

    Convolutions and matrix products count; the wavelet's lifting steps, some tens of
    multiplications a pixel, and the entropy decoder do not.
    """
    device = next(network.parameters()).device
    latent = [
        torch.zeros(
            1, band.channels, _COUNTED_PX // band.stride, _COUNTED_PX // band.stride, device=device
        )
        for band in network.bands
    ]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.synthesis(latent, torch.tensor([16.0], device=device))
    return float(counter.get_total_flops() / 2 / _COUNTED_PX**2 / 1000)
