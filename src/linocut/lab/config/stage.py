"""What the scripts in stages/ share: arguments, parameters, one-line errors, resume states.

params.yaml, --arch, --loss --> run --> main(params, arch=..., loss=...)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence

from linocut.errors import ConfigError, LinocutError
from linocut.lab.config.params import load_params

AXES = ("arch", "loss", "task")
"""The axes of the grid, which are sections of the parameters too."""


def run(
    main: Callable[..., None],
    *axes: str,
    params_file: pathlib.Path,
    arguments: Sequence[str] | None = None,
) -> None:
    """Call `main(params, **axes)` with the parsed command line; end with 1 on a LinocutError.

    Args:
        main: takes the parameters, and one keyword argument per axis.
        axes: of `AXES`; each becomes a required option whose value must be in the grid.
        params_file: the params.yaml to read.
        arguments: command line; None for that of the process.
    """
    parser = argparse.ArgumentParser(
        description=sys.modules[main.__module__].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for axis in axes:
        parser.add_argument(f"--{axis}", required=True)
    chosen = vars(parser.parse_args(arguments))
    try:
        params = load_params(params_file)
        for axis, name in chosen.items():
            if name not in getattr(params, axis):
                known = ", ".join(getattr(params, axis))
                raise ConfigError(f"--{axis} is {name!r}, expected one of {known}")
        main(params, **chosen)
    except LinocutError as error:
        print(f"{pathlib.Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(1)


def keep_only(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Remove what a larger grid left in a folder of cells, so that DVC records no stale cell."""
    kept = set(names)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def state_folder(root: pathlib.Path, inputs: object, files: Iterable[pathlib.Path]) -> pathlib.Path:
    """Folder for the resume state of a run, named by everything that its result depends on.

    The folder lies outside of every DVC output, under `$DVC_ROOT`: that is the main checkout even
    in `dvc exp run --temp` and `--queue`, whose own folder is thrown away. Another seed, parameter,
    data set or version of the code has another name, and starts from the beginning.

    Args:
        root: the checkout, for when no DVC runs the stage.
        inputs: JSON-like parameters.
        files: data that the run reads. The loaded modules of this package are added by themselves.
    """
    code = {
        name: _sha256(pathlib.Path(str(module.__file__)))
        for name, module in sorted(sys.modules.items())
        if name.startswith("linocut.")
        and not name.startswith("linocut.lab.tracking.live")  # these only watch
    }
    described = json.dumps([inputs, [_sha256(path) for path in files], code], sort_keys=True)
    name = hashlib.sha256(described.encode()).hexdigest()[:16]
    return pathlib.Path(os.environ.get("DVC_ROOT", root)) / ".state" / name


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
