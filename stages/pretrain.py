"""artifacts/prepared -> artifacts/pretrained/<arch>: the base network of one architecture.

python stages/pretrain.py --arch cae
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.training import parallel, recipes

PREPARED = ROOT / "artifacts/prepared"
PRETRAINED = ROOT / "artifacts/pretrained"


def main(params: Params, arch: str) -> None:
    """Train the base network of one architecture; a killed training goes on where it was."""
    inputs = stage.watched(ROOT, "pretrain", params, arch=arch)
    state = stage.state_folder(ROOT, inputs, [PREPARED / "train.npy"])
    recipes.train_base(params, arch, recipes.TrainingPlace(PREPARED, PRETRAINED / arch, state))


if __name__ == "__main__":
    stage.run(parallel.by_processes(main), "arch", params_file=ROOT / "params.yaml")
