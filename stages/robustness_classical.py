"""artifacts/prepared/test -> artifacts/studies/robustness/classical: classical codecs, wrong bits.

python stages/robustness_classical.py
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.evaluation.rows import CLASSICAL_CELL
from linocut.lab.studies import robustness

TEST = ROOT / "artifacts/prepared/test"
CLASSICAL = ROOT / "artifacts/studies/robustness" / CLASSICAL_CELL


def main(params: Params) -> None:
    """Damage files of the classical codecs."""
    robustness.run_robustness(None, TEST, CLASSICAL, params.robustness, params.seed)


if __name__ == "__main__":
    stage.run(main, params_file=ROOT / "params.yaml")
