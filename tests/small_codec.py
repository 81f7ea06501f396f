"""A complete, untrained codec: the wavelet path of `cae`, tables fitted on generated pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from linocut.lab.config.params import CaeConfig, CodeConfig, PcaConfig, TuningConfig
from linocut.lab.data.dead_leaves import dead_leaves
from linocut.lab.fitting.build import build_codec, fit_pca
from linocut.lab.networks.networks import ARCHITECTURES
from linocut.lab.networks.store import save_model
from linocut.pictures.image import write_png

CONFIG = CaeConfig(
    levels=3, gain_channels=2, analysis_channels=4, analysis_layers=1,
    synthesis_channels=4, synthesis_deep_channels=4, synthesis_blocks=1,
)  # fmt: skip


def make_codec(folder: Path, seed: int = 0) -> Path:
    """Build it under a folder; gives the codec's own folder."""
    prepared = folder / "prepared"
    (prepared / "validation").mkdir(parents=True)
    picture = dead_leaves(256, 256, seed)
    np.save(
        prepared / "train.npy",
        picture.reshape(2, 128, 2, 128, 3).swapaxes(1, 2).reshape(4, 128, 128, 3),
    )
    write_png(prepared / "validation" / "leaves.png", dead_leaves(64, 64, seed + 1))
    torch.manual_seed(seed)
    save_model(folder / "trained", ARCHITECTURES["cae"](CONFIG), {"arch": "cae", "loss": "l2"})
    fit_pca(
        folder / "trained", prepared, folder / "rotated", PcaConfig(mode="global", crops=4), seed
    )
    config = CodeConfig(
        rates_bpp=(0.25, 1.0),
        effort=1,
        contexts="fitted",
        context_iterations=60,
        crops=4,
        tuning=TuningConfig(0.0, 1, 1, 1e-3),
    )
    build_codec(
        folder / "trained",
        folder / "rotated",
        prepared,
        folder / "codec",
        config,
        (4.0, 160.0),
        seed,
    )
    return folder / "codec"
