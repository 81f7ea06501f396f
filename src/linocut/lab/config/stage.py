"""What the scripts in stages/ share: arguments, parameters, one-line errors, resume states.

params.yaml, --arch, --loss --run--> main(params, arch=..., loss=...)
dvc.yaml, params            --watched--> the numbers that the stage depends on
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from linocut.errors import ConfigError, LinocutError
from linocut.files import sha256_of
from linocut.lab.config import process as process  # before PyTorch: how its threads wait
from linocut.lab.config.params import Params, load_params
from linocut.lab.config.parse import plain


def run(
    main: Callable[..., None],
    *axes: str,
    params_file: pathlib.Path,
    arguments: Sequence[str] | None = None,
) -> None:
    """Call `main(params, **axes)` with the parsed command line; end with 1 on a mistake.

    A LinocutError or an error of the operating system is one line that names the script and the
    cell. Everything that can be said before the work is said before: parameters, options, and
    whether another stage is at work here.

    Args:
        main: takes the parameters, and one keyword argument per axis.
        axes: of the grid; each becomes a required option whose value must be in the grid.
        params_file: the params.yaml to read, in the checkout that the stage works in.
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
        with alone(params_file.parent):
            main(params, **chosen)
    except LinocutError as error:
        problem = str(error)
    except OSError as error:
        problem = described(error, params_file.parent)
    else:
        return
    which = " ".join(filter(None, [pathlib.Path(sys.argv[0]).name, "-".join(chosen.values())]))
    print(f"{which}: {problem}", file=sys.stderr)
    sys.exit(1)


@contextlib.contextmanager
def alone(checkout: pathlib.Path) -> Iterator[None]:
    """Refuse to work beside another stage in one checkout.

    Of two `dvc repro` at once the second would do its work, fail on DVC's lock, and lose it. Copies
    have locks of their own: `dvc exp run --temp` and `--queue` work side by side.

    Raises:
        ConfigError: another stage is at work; says which.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    if os.environ.get("LOCAL_RANK", "0") != "0":  # a rank of the stage that holds the lock
        yield
        return
    path = checkout / ".state" / "stage.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"another stage is at work in {checkout}: {file.read().strip()}. Wait for it, or "
                "run in a copy: dvc exp run --temp"
            ) from None
        file.truncate(0)
        file.write(f"{' '.join(sys.argv)} (process {os.getpid()})\n")
        file.flush()
        yield  # the lock goes with the file, also when the process is killed


def described(error: OSError, checkout: pathlib.Path) -> str:
    """What the operating system refused, in a line that names the path and, when full, the disk."""
    text = str(error.strerror or error)
    path = str(error.filename or "")
    if path:
        text += f": {path}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = pathlib.Path(path).parent if path else checkout
        place = place if place.is_dir() else checkout
        free = shutil.disk_usage(place).free
        text += f" ({free / 1e9:.2f} GB are free on the disk of {place})"
    return " ".join(text.split())


def watched(checkout: pathlib.Path, stage: str, params: Params, **chosen: str) -> dict[str, Any]:
    """The numbers that a stage depends on: those that dvc.yaml lists for it, and no others.

    Args:
        checkout: where dvc.yaml is.
        stage: its name there.
        params: the whole of params.yaml.
        chosen: the option of each axis of the stage. Its numbers are called after the axis:
            `arch.levels`, not `arch.cae.levels`.

    Raises:
        ConfigError: dvc.yaml lists a key that params.yaml does not have.
    """
    import yaml

    pipeline = yaml.safe_load((checkout / "dvc.yaml").read_text(encoding="utf-8"))
    found: dict[str, Any] = {"cell": "-".join(chosen.values())}
    for key in pipeline["stages"][stage]["params"]:
        value: Any = params
        axis = key.partition(".")[0]
        name = axis if "${item." in key else key
        for part in key.replace(f"${{item.{axis}}}", chosen.get(axis, "")).split("."):
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
            if value is None:
                raise ConfigError(f"dvc.yaml lists {key} for {stage}, which params.yaml lacks")
        found[name] = plain(value)
    return found


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
        files: data that the run reads. The loaded modules of this package and of plugins/ are
            added by themselves.
    """
    code = {
        name: sha256_of(pathlib.Path(str(module.__file__)))
        for name, module in sorted(sys.modules.items())
        if name.startswith(("linocut.", "plugins."))
        and not name.startswith("linocut.lab.tracking.")  # these only watch
    }
    described = json.dumps([inputs, [sha256_of(path) for path in files], code], sort_keys=True)
    name = sha256_of(described.encode())[:16]
    return pathlib.Path(os.environ.get("DVC_ROOT", root)) / ".state" / name
