"""artifacts/pretrained/<arch> -> artifacts/trained/<cell>: one architecture trained for one loss.

python stages/train.py --arch cae --loss l2
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.tracking import live
from linocut.lab.training import parallel, recipes

PREPARED = ROOT / "artifacts/prepared"
PRETRAINED = ROOT / "artifacts/pretrained"
TRAINED = ROOT / "artifacts/trained"


def main(params: Params, arch: str, loss: str) -> None:
    """Train one cell; MLflow watches the first process. A killed training goes on where it was."""
    cell = f"{arch}-{loss}"
    inputs = stage.watched(ROOT, "train", params, arch=arch, loss=loss)
    base = PRETRAINED / arch
    files = [PREPARED / "train.npy", base / "model.json", base / "model.safetensors"]
    state = stage.state_folder(ROOT, inputs, files)
    place = recipes.TrainingPlace(PREPARED, TRAINED / cell, state)
    if not parallel.is_first():
        recipes.train_cell(params, arch, loss, base, place)
        return
    with live.run(
        cell,
        arch=arch,
        loss=loss,
        params=inputs,
        fingerprint=state.name,
        weights=TRAINED / cell / "model.safetensors",
    ) as log:
        recipes.train_cell(params, arch, loss, base, place, log)


if __name__ == "__main__":
    stage.run(parallel.by_processes(main), "arch", "loss", params_file=ROOT / "params.yaml")
