"""artifacts/trained/<cell> -> artifacts/rotated/<cell>: the PCA rotation of one network's latents.

python stages/fit_pca.py --arch cae --loss l2
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.fitting import build

PREPARED = ROOT / "artifacts/prepared"
TRAINED = ROOT / "artifacts/trained"
ROTATED = ROOT / "artifacts/rotated"


def main(params: Params, arch: str, loss: str) -> None:
    """Fit the rotation of one cell."""
    cell = f"{arch}-{loss}"
    build.fit_pca(TRAINED / cell, PREPARED, ROTATED / cell, params.pca, params.seed)


if __name__ == "__main__":
    stage.run(main, "arch", "loss", params_file=ROOT / "params.yaml")
