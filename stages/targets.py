"""plugins/ -> artifacts/targets: which of these files each loss, architecture and cell is made of.

A cell depends on the record of its own, so that a new plugin re-runs no other.

python stages/targets.py
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.config.parse import record

RECORDS = ROOT / "artifacts/targets"


def main(params: Params) -> None:
    """Record the files behind every target of the grid."""
    for loss, distortion in params.loss.items():
        record([distortion.target], RECORDS / "loss" / f"{loss}.json")
    for arch, network in params.arch.items():
        record([network.target], RECORDS / "arch" / f"{arch}.json")
        for loss, distortion in params.loss.items():
            both = [network.target, distortion.target]
            record(both, RECORDS / "cell" / f"{arch}-{loss}.json")


if __name__ == "__main__":
    stage.run(main, params_file=ROOT / "params.yaml")
