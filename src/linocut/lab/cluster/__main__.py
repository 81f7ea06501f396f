"""The grid on all machines of a Ray cluster, and the comparison here.

python -m linocut.lab.cluster --address auto                     params.yaml as it is
python -m linocut.lab.cluster --address auto -S profile=full --seeds 0,1,2
python -m linocut.lab.cluster --address local --gpus 1           this machine's GPUs at once
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from linocut.errors import LinocutError
from linocut.lab.cluster.head import Resources, assemble, run_grid
from linocut.lab.config.params import compose


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the grid; 0, or 1 after one line that says why not, or 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m linocut.lab.cluster",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--address", default="auto", help="of the head of the cluster; or local")
    parser.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
                        help="as for dvc exp run")  # fmt: skip
    parser.add_argument("--seeds", help="0,1,2: the grid once for each")
    parser.add_argument("--cores", type=int, default=1, help="of a processor, for each task")
    parser.add_argument("--gpus", type=float, default=0.0, help="for each task; 0.5: two share one")
    parser.add_argument("--retries", type=int, default=3, help="of a task whose node died")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(), help="the checkout")
    chosen = parser.parse_args(arguments)
    root: pathlib.Path = chosen.root.resolve()
    resources = Resources(chosen.cores, chosen.gpus, chosen.retries)
    grids = [chosen.overrides]
    if chosen.seeds:
        grids = [[*chosen.overrides, f"seed={seed}"] for seed in chosen.seeds.split(",")]
    try:
        for overrides in grids:
            if overrides:
                text = compose(overrides)
                command = ["exp", "run", *(f"--set-param={one}" for one in overrides)]
            else:
                text = (root / "params.yaml").read_text(encoding="utf-8")
                command = ["repro"]
            run_grid(root, chosen.address, text, resources, _say)
            assemble(root, *command)
    except (LinocutError, OSError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cluster: interrupted; what is done is in the remote", file=sys.stderr)
        return 130
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
