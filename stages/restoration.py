"""artifacts/restored/<task> -> artifacts/restoration/<task>: which loss restores better.

python stages/restoration.py --task denoise
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # this checkout, not an editable install of another

from linocut.lab.config import stage
from linocut.lab.config.params import DenoiseConfig, Params
from linocut.lab.report import restoration_section
from linocut.lab.studies import restoration

ARTIFACTS = ROOT / "artifacts"


def main(params: Params, task: str) -> None:
    """Compare exactly the cells of the grid in one task."""
    restored, out = ARTIFACTS / "restored" / task, ARTIFACTS / "restoration" / task
    stage.keep_only(restored, params.grid.cells)  # or DVC would record what a larger grid left
    prepared = ARTIFACTS / "prepared"
    if isinstance(params.task[task], DenoiseConfig):
        for arch in params.grid.arch:
            file = out / f"{arch}-noise.csv"
            base = ARTIFACTS / "pretrained" / arch
            restoration.measure_noise(params, arch, base, restored, prepared, file)
    restoration.measure_blur(params, task, prepared, out / "control.csv")
    text = restoration_section.write_report(params, task, restored, prepared, out)
    print(text)


if __name__ == "__main__":
    stage.run(main, "task", params_file=ROOT / "params.yaml")
