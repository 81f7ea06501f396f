"""artifacts/{trained,rotated}/<cell> -> artifacts/coded/<cell>: the codec, test pictures as files.

python stages/entropy_code.py --arch cae --loss l2
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.evaluation import encode
from linocut.lab.fitting.build import ROTATION_FILE
from linocut.lab.networks.losses import build_loss

PREPARED = ROOT / "artifacts/prepared"
TRAINED = ROOT / "artifacts/trained"
ROTATED = ROOT / "artifacts/rotated"
CODED = ROOT / "artifacts/coded"


def main(params: Params, arch: str, loss: str) -> None:
    """Fit the tables of one cell, tune its decoder, and compress the test pictures."""
    cell = f"{arch}-{loss}"
    inputs = stage.watched(ROOT, "entropy_code", params, arch=arch, loss=loss)
    trained, rotated = TRAINED / cell, ROTATED / cell
    files = [PREPARED / "train.npy", trained / "model.safetensors", rotated / ROTATION_FILE]
    encode.entropy_code(
        trained,
        rotated,
        PREPARED,
        CODED / cell,
        params.code,
        params.train.step_range,
        params.seed,
        build_loss(params.loss[loss]),
        stage.state_folder(ROOT, inputs, files),
    )


if __name__ == "__main__":
    stage.run(main, "arch", "loss", params_file=ROOT / "params.yaml")
