"""artifacts/ of all stages before -> reports/: BD-rates, report.

python stages/compare.py
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.evaluation.rows import CLASSICAL_CELL
from linocut.lab.report import build

ARTIFACTS = ROOT / "artifacts"
REPORTS = ROOT / "reports"


def main(params: Params) -> None:
    """Compare exactly the cells of the grid."""
    cells = params.grid.cells
    for folder in ("coded", "evaluated", "rotated", "trained"):
        stage.keep_only(ARTIFACTS / folder, cells)  # or DVC would record what a larger grid left
    studied = [f"{arch}-{loss}" for arch in params.grid.arch for loss in params.grid.bit_errors]
    stage.keep_only(ARTIFACTS / "studies/robustness", [*studied, CLASSICAL_CELL])
    stage.keep_only(ARTIFACTS / "studies/twin", params.grid.twins)
    build.compare(
        cells,
        artifacts=ARTIFACTS,
        reports=REPORTS,
        config=params.compare,
        seed=params.seed,
        params=ROOT / "params.yaml",
    )


if __name__ == "__main__":
    stage.run(main, params_file=ROOT / "params.yaml")
