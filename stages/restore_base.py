"""artifacts/pretrained/<arch> -> artifacts/restore_base/<task>/<arch>.

The codecs that restorations start from: python stages/restore_base.py --task denoise --arch cae
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import Params
from linocut.lab.studies import restoration

ARTIFACTS = ROOT / "artifacts"


def main(params: Params, task: str, arch: str) -> None:
    """Make the base network of one architecture a codec for degraded pictures."""
    out = ARTIFACTS / "restore_base" / task / arch
    network, prepared = ARTIFACTS / "pretrained" / arch, ARTIFACTS / "prepared"
    restoration.build_bases(params, task, network, prepared, out)


if __name__ == "__main__":
    stage.run(main, "task", "arch", params_file=ROOT / "params.yaml")
