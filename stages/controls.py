"""artifacts/prepared -> artifacts/controls: the codec without networks, and without contexts.

python stages/controls.py
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.evaluation import controls

PREPARED = ROOT / "artifacts/prepared"
CONTROLS = ROOT / "artifacts/controls"


def main(params: Params) -> None:
    """Build the controls, and measure them on every test picture."""
    controls.run_controls(
        PREPARED, CONTROLS, params.code, params.compare, params.train.step_range, params.seed
    )


if __name__ == "__main__":
    stage.run(main, params_file=ROOT / "params.yaml")
