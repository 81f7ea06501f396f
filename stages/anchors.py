"""artifacts/prepared/test -> artifacts/anchors: classical codecs on the test pictures.

python stages/anchors.py
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.evaluation import anchors

TEST = ROOT / "artifacts/prepared/test"
ANCHORS = ROOT / "artifacts/anchors"


def main(params: Params) -> None:
    """Compress, decompress and measure every test picture with every anchor."""
    anchors.run_anchors(TEST, ANCHORS, params.anchors)


if __name__ == "__main__":
    stage.run(main, params_file=ROOT / "params.yaml")
