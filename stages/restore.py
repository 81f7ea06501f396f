"""artifacts/pretrained/<arch> -> artifacts/restored/<task>/<cell>: trained to undo it.

python stages/restore.py --task denoise --arch cae --loss l1
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.studies import restoration

PREPARED = ROOT / "artifacts/prepared"
PRETRAINED = ROOT / "artifacts/pretrained"
RESTORED = ROOT / "artifacts/restored"


def main(params: Params, task: str, arch: str, loss: str) -> None:
    """Train one cell to undo one degradation; what a killed run completed is not trained again."""
    base = PRETRAINED / arch
    inputs = stage.watched(ROOT, "restore", params, task=task, arch=arch, loss=loss)
    files = [PREPARED / "train.npy", base / "model.json", base / "model.safetensors"]
    state = stage.state_folder(ROOT, inputs, files)
    out = RESTORED / task / f"{arch}-{loss}"
    restoration.restore_cell(params, task, loss, base, PREPARED, out, state)


if __name__ == "__main__":
    stage.run(main, "task", "arch", "loss", params_file=ROOT / "params.yaml")
