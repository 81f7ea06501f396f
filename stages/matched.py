"""artifacts/{anchors,evaluated,prepared/test} -> artifacts/studies/matched: anchors of equal size.

python stages/matched.py
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.evaluation.comparison import match_sizes

ARTIFACTS = ROOT / "artifacts"


def main(params: Params) -> None:
    """Code the shown pictures with the anchors to the sizes of the leading cell's files."""
    stage.keep_only(ARTIFACTS / "evaluated", params.grid.cells)
    match_sizes(
        params.grid.cells,
        ARTIFACTS,
        ARTIFACTS / "studies/matched",
        avif_speed=params.anchors.avif_speed,
    )


if __name__ == "__main__":
    stage.run(main, params_file=ROOT / "params.yaml")
