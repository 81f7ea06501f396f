"""artifacts/coded/<cell> -> artifacts/evaluated/<cell>: decode the files, measure rate and quality.

python stages/evaluate.py --arch cae --loss l2
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.evaluation import decode

CODED = ROOT / "artifacts/coded"
TEST = ROOT / "artifacts/prepared/test"
EVALUATED = ROOT / "artifacts/evaluated"


def main(params: Params, arch: str, loss: str) -> None:
    """Evaluate one cell."""
    cell = f"{arch}-{loss}"
    inputs = stage.watched(ROOT, "evaluate", params, arch=arch, loss=loss)
    codec = sorted(path for path in (CODED / cell / "codec").rglob("*") if path.is_file())
    decode.evaluate_cell(
        CODED / cell,
        TEST,
        EVALUATED / cell,
        params.compare,
        state=stage.state_folder(ROOT, inputs, codec),
    )


if __name__ == "__main__":
    stage.run(main, "arch", "loss", params_file=ROOT / "params.yaml")
