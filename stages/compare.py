"""artifacts/{anchors,coded,evaluated,rotated,trained} -> reports/: BD-rates, curves, report.

python stages/compare.py
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut import report, stage
from linocut.config import Params

ARTIFACTS = ROOT / "artifacts"
REPORTS = ROOT / "reports"


def main(params: Params) -> None:
    """Compare exactly the cells of the grid."""
    cells = params.grid.cells
    for folder in ("coded", "evaluated", "rotated", "trained"):
        stage.keep_only(ARTIFACTS / folder, cells)  # or DVC would record what a larger grid left
    report.compare(
        cells,
        artifacts=ARTIFACTS,
        reports=REPORTS,
        config=params.compare,
        seed=params.seed,
        params=ROOT / "params.yaml",
    )


if __name__ == "__main__":
    stage.run(main, params_file=ROOT / "params.yaml")
