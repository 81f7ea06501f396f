"""What a codec is worth without its networks: two controls beside every table.

    release cae-l2 --without its nets--> wavelet        9/7 wavelet, colours turned, all the coding
                   --without its contexts--> no_contexts    the same nets, a table for each step

What a cell gains over `wavelet` is what training brought; what `cae-l2` gains over `no_contexts` is
what knowing the neighbours brought. Both are complete codecs, whose files are written and measured
like those of the cells.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from safetensors.numpy import save

from linocut.codec.rotation import identity, rotation_tensors
from linocut.lab.config.params import CodeConfig, CompareConfig
from linocut.lab.evaluation.decode import evaluate_cell
from linocut.lab.evaluation.encode import entropy_code
from linocut.lab.evaluation.rows import CONTROLS
from linocut.lab.fitting.build import ROTATION_FILE
from linocut.lab.networks.store import load_model, save_model
from linocut.models import folders as models

SOURCE = "cae-l2"
"""The released codec that the controls are made of."""

CROPS = 16
"""Of the tables without contexts, each at every step that has a table."""


def run_controls(
    prepared: Path,
    out: Path,
    config: CodeConfig,
    shown: CompareConfig,
    step_range: tuple[float, float],
    seed: int,
) -> None:
    """Make every control in a folder of its name: codec/, files/ and evaluation.csv, as of cells.

    Args:
        prepared: train.npy, validation/, test/.
        out: made if missing.
        config: rates, effort, crops of the tables.
        shown: which pictures are kept.
        step_range: finest and coarsest step, grey levels.
        seed: of the choice of crops and steps, and of the weights that are never used.
    """
    arch, _, loss = SOURCE.partition("-")
    released = load_model(models.folder_of(SOURCE))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # what nets begin with reaches no picture, but is in the file
        untrained = type(released)(released.config).eval()
    networks = {"wavelet": untrained, "no_contexts": released}
    for name in CONTROLS:
        network = networks[name]
        folder = out / name
        trained = folder / "network"
        save_model(trained, network, {"arch": arch, "loss": loss})
        rotation = rotation_tensors(identity(network.bands))
        (trained / ROTATION_FILE).write_bytes(save(rotation))
        own = dataclasses.replace(config, contexts="release")
        if name == "no_contexts":
            own = dataclasses.replace(config, contexts="none", crops=CROPS)
        entropy_code(trained, trained, prepared, folder, own, step_range, seed)
        evaluate_cell(folder, prepared / "test", folder, shown)
