"""artifacts/coded/<cell>/codec -> artifacts/robustness/<cell>: files of equal size with wrong bits.

python stages/robustness.py
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut import robustness, stage
from linocut.config import Params

CODED = ROOT / "artifacts/coded"
TEST = ROOT / "artifacts/prepared/test"
ROBUSTNESS = ROOT / "artifacts/robustness"


def main(params: Params) -> None:
    """Damage files of the chosen cells, and of the classical codecs."""
    stage.keep_only(CODED, params.grid.cells)  # or DVC would record what a larger grid left
    cells = robustness.cells_of(params.grid.cells, params.robustness.losses)
    codecs = {cell: CODED / cell / "codec" for cell in cells}
    robustness.run_robustness(codecs, TEST, ROBUSTNESS, params.robustness, params.seed)
    stage.keep_only(ROBUSTNESS, [*cells, robustness.CLASSICAL_CELL])


if __name__ == "__main__":
    stage.run(main, params_file=ROOT / "params.yaml")
