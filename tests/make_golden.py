"""Write tests/golden/: two tiny models, files that they made, and what those decode to.

    python tests/make_golden.py

Golden files are written once and never again: they are what "version 1 is frozen" means. What is
there stays as it is; only what is new in `SIZES` is added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from linocut.codec import rotation
from linocut.codec.codec import Codec
from linocut.entropy.choice import optimise
from linocut.entropy.coder import EntropyCoder
from linocut.format.bitstream import (
    ALPHA,
    CORRECTION,
    EXIF,
    HINTS,
    ICC_PROFILE,
    ROWS,
    pack_alpha,
    pack_correction,
)
from linocut.lab.config.params import Cae2018Config, CaeConfig
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.fitting.entropy_fit import fit_networks, fit_tables, no_contexts
from linocut.lab.networks.export import write_graphs
from linocut.lab.networks.networks import ARCHITECTURES, Network
from linocut.lab.networks.store import as_tensors, save_model
from linocut.pictures.image import write_png
from tiny import tensor

GOLDEN = Path(__file__).parent / "golden"
MODELS: dict[str, CaeConfig | Cae2018Config] = {
    "wavelet": CaeConfig(
        levels=2, gain_channels=2, analysis_channels=3, analysis_layers=1,
        synthesis_channels=4, synthesis_deep_channels=4, synthesis_blocks=1,
    ),
    "personal": Cae2018Config(channels=4),
}  # fmt: skip
ARCHITECTURE = {"wavelet": "cae", "personal": "cae2018"}
SIZES = {  # height, width, step
    "wavelet-odd": (29, 37, 10.0),
    "wavelet-tiles": (4, 1043, 20.0),
    "wavelet-fine": (12, 9, 1.0),
    "wavelet-pixel": (1, 1, 6.0),
    "wavelet-empty": (40, 40, 1024.0),
    "wavelet-blocks": (16, 18, 30.0),
    "personal-odd": (33, 26, 1.0),
    "personal-small": (3, 5, 40.0),
    "wavelet-resilient": (9, 262, 30.0),
    "personal-resilient": (3, 5, 20.0),
    "wavelet-corrected": (30, 44, 24.0),
}


def main() -> None:
    """Write what is missing."""
    GOLDEN.mkdir(exist_ok=True)
    written = GOLDEN / "symbols.json"
    digests = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
    codecs = {
        name: Codec.load(GOLDEN / name) if (GOLDEN / name).exists() else _model(GOLDEN / name, name)
        for name in MODELS
    }
    for seed, (name, (height, width, step)) in enumerate(SIZES.items()):
        if name in digests:
            continue
        codec = codecs[name.split("-")[0]]
        picture = dead_leaves(height, width, 100 + seed)
        blocks = _blocks(height, width) if name.endswith("blocks") else {}
        if name.endswith("corrected"):
            blocks = {CORRECTION: _correction(codec.geometry.features)}
        resilient = name.endswith("resilient")
        data = codec.compress(picture, step=step, effort=0, extras=blocks, resilient=resilient)
        (GOLDEN / f"{name}.lino").write_bytes(data)
        write_png(GOLDEN / f"{name}.png", codec.decompress(data))
        digests[name] = symbols_digest(codec.decode_symbols(data))
    written.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def symbols_digest(tiles: list[list[NDArray[np.int16]]]) -> str:
    """SHA-256 of all symbols as 16-bit little-endian numbers, tile by tile, plane by plane."""
    digest = hashlib.sha256()
    for tile in tiles:
        for band in tile:
            digest.update(np.ascontiguousarray(band).astype("<i2").tobytes())
    return digest.hexdigest()


def _model(folder: Path, name: str) -> Codec:
    network = _network(name)
    latents = [
        [band[0].detach().numpy() for band in network.analysis(tensor(dead_leaves(64, 64, seed)))]
        for seed in range(3)
    ]
    tensors = {}
    used = rotation.fit(network.bands, latents, centre=name == "wavelet")
    if name == "wavelet":
        tensors |= rotation.rotation_tensors(used)
    rotated = [used.transform(latent) for latent in latents]
    guessed = fit_tables(network.bands, [], no_contexts(network.bands))
    samples = [
        (optimise(EntropyCoder(network.bands, guessed), latent, index)[0], index)
        for latent in rotated
        for index in (60, 220, 400)
    ]
    networks = fit_networks(network.bands, samples, iterations=300, seed=0)
    tensors |= fit_tables(network.bands, samples, networks).tensors()
    save_model(folder, network, {"name": name}, as_tensors(tensors))
    write_graphs(folder, network)
    return Codec.load(folder)


def _network(name: str) -> Network:
    """As a training might leave it: every part speaks, and pictures can be recognised or not."""
    torch.manual_seed(7)
    network = ARCHITECTURES[ARCHITECTURE[name]](MODELS[name]).eval()
    with torch.no_grad():
        for key, value in network.named_parameters():
            if name == "personal" and value.ndim > 1:
                value.mul_(2.0)
            elif not value.any() or "bias" in key:
                value.normal_(0.0, 0.05)
    return network


def _correction(features: int) -> bytes:
    """Numbers of every length, and a row of zeros."""
    shape = (ROWS, features)
    numbers = np.random.default_rng(3).integers(-40, 41, shape).astype(np.int8)
    numbers[0, 0], numbers[1, 0], numbers[2] = 127, -127, 0
    return pack_correction(numbers)


def _blocks(height: int, width: int) -> Mapping[int, bytes]:
    import zlib

    alpha = (np.arange(height)[:, None] * 10 + np.arange(width)[None] * 3).astype(np.uint8)

    def packed(content: bytes) -> bytes:
        return len(content).to_bytes(4, "little") + zlib.compress(content, 9)

    return {
        ALPHA: pack_alpha(alpha), ICC_PROFILE: packed(b"not a profile"), EXIF: packed(b"Exif"),
        HINTS: b"\x01", 200: b"a block of the future",
    }  # fmt: skip


if __name__ == "__main__":
    main()
