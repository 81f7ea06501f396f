"""artifacts/restore_base/<task>/<arch> -> artifacts/restored/<task>/<cell>: trained to undo it.

python stages/restore.py --task denoise --arch cae --loss l1
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.studies import restoration
from linocut.lab.studies.restoration import DEGRADED

PREPARED = ROOT / "artifacts/prepared"
BASES = ROOT / "artifacts/restore_base"
RESTORED = ROOT / "artifacts/restored"


def main(params: Params, task: str, arch: str, loss: str) -> None:
    """Train one cell to undo one degradation, and restore the test pictures."""
    out = RESTORED / task / f"{arch}-{loss}"
    base = BASES / task / arch / DEGRADED
    restoration.restore_cell(params, task, loss, base, PREPARED, out)


if __name__ == "__main__":
    stage.run(main, "task", "arch", "loss", params_file=ROOT / "params.yaml")
