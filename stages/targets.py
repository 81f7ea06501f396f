"""plugins/ -> artifacts/targets: which of these files each loss and architecture is made of.

A cell depends on the record of its own, so that a new plugin re-runs no other.

python stages/targets.py
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage, targets
from linocut.lab.config.params import Params

RECORDS = ROOT / "artifacts/targets"


def main(params: Params) -> None:
    """Record the files behind every target of the grid."""
    for axis, options in (("arch", params.arch), ("loss", params.loss)):
        for name, option in options.items():
            targets.record(option.target, RECORDS / axis / f"{name}.json")


if __name__ == "__main__":
    stage.run(main, params_file=ROOT / "params.yaml")
