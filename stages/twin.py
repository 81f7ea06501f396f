"""artifacts/coded/<cell> -> artifacts/studies/twin/<cell>: its files, decoded by two networks.

python stages/twin.py --arch cae --loss l2
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.studies import twin
from linocut.lab.tracking import live

CODED = ROOT / "artifacts/coded"
PREPARED = ROOT / "artifacts/prepared"
TWIN = ROOT / "artifacts/studies/twin"


def main(params: Params, arch: str, loss: str) -> None:
    """Train and compare the two decoders of one cell, watched by MLflow."""
    cell = f"{arch}-{loss}"
    out = TWIN / cell
    inputs = stage.watched(ROOT, "twin", params, arch=arch, loss=loss)
    coded = CODED / cell
    state = stage.state_folder(ROOT, inputs, [coded / "codec/model.safetensors"])
    with live.run(
        f"{cell}-twin", arch=arch, loss=loss, params=inputs, fingerprint=state.name
    ) as log:
        twin.compare_twins(params, loss, coded, PREPARED, out, log)


if __name__ == "__main__":
    stage.run(main, "arch", "loss", params_file=ROOT / "params.yaml")
