"""data/ -> artifacts/prepared: training crops, validation and test pictures, manifest.

python stages/prepare.py
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.data import prepare

PREPARED = ROOT / "artifacts/prepared"


def main(params: Params) -> None:
    """Prepare the pictures that the parameters name."""
    prepare.prepare(
        params.data,
        params.prepare,
        seed=params.seed,
        out=PREPARED,
        declarations=ROOT / "data",
        state=stage.state_folder(ROOT, "prepare", []),
    )


if __name__ == "__main__":
    stage.run(main, params_file=ROOT / "params.yaml")
