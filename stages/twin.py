"""artifacts/coded/<cell> -> artifacts/studies/twin/<cell>: its files, decoded by two networks.

python stages/twin.py --arch cae --loss l2
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut import report_twin, stage, tracking, twin
from linocut.config import Params
from linocut.schema import to_mapping

CODED = ROOT / "artifacts/coded"
PREPARED = ROOT / "artifacts/prepared"
TWIN = ROOT / "artifacts/studies/twin"


def main(params: Params, arch: str, loss: str) -> None:
    """Train and compare the two decoders of one cell, watched by MLflow."""
    cell = f"{arch}-{loss}"
    out = TWIN / cell
    inputs = {"twin": to_mapping(params.twin), "cell": cell, "seed": params.seed}
    coded = CODED / cell
    state = stage.state_folder(ROOT, inputs, [coded / "codec/model.safetensors"])
    with tracking.run(
        f"{cell}-twin", arch=arch, loss=loss, params=inputs, fingerprint=state.name
    ) as log:
        rows = twin.compare_twins(params, loss, coded, PREPARED, out, log)
    if rows:
        print(report_twin.table(rows))


if __name__ == "__main__":
    stage.run(main, "arch", "loss", params_file=ROOT / "params.yaml")
