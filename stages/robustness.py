"""artifacts/coded/<cell>/codec -> artifacts/studies/robustness/<cell>: files with wrong bits.

python stages/robustness.py --arch ARCH --loss LOSS
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.studies import robustness

TEST = ROOT / "artifacts/prepared/test"


def main(params: Params, arch: str, loss: str) -> None:
    """Damage files of one cell."""
    codec = ROOT / f"artifacts/coded/{arch}-{loss}/codec"
    out = ROOT / f"artifacts/studies/robustness/{arch}-{loss}"
    robustness.run_robustness(codec, TEST, out, params.robustness, params.seed)


if __name__ == "__main__":
    stage.run(main, "arch", "loss", params_file=ROOT / "params.yaml")
