"""The models that the package ships, by name and by the id that files carry.

release/<name>/model.safetensors + model.json + graphs
"""

import functools
import pathlib

from linocut.errors import CheckpointError
from linocut.models.description import DESCRIPTION, WEIGHTS, Description, id_of

RELEASE = pathlib.Path(__file__).resolve().parent / "release"
DEFAULT = "default"
"""The name that stands for the recommended model."""

RECOMMENDED = "cae-l2"


def available() -> dict[str, pathlib.Path]:
    """Folders of the shipped models by name."""
    return {path.parent.name: path.parent for path in sorted(RELEASE.glob("*/model.json"))}


def folder_of(name: str | pathlib.Path) -> pathlib.Path:
    """The folder of a model given by name, or by path.

    Raises:
        CheckpointError: there is no such model.
    """
    known = available()
    if str(name) == DEFAULT:
        name = RECOMMENDED
    if str(name) in known:
        return known[str(name)]
    folder = pathlib.Path(name)
    if (folder / "model.json").is_file():
        return folder
    names = ", ".join([DEFAULT, *known]) if known else "none are installed"
    raise CheckpointError(
        f"model {str(name)!r} is neither a folder with a model.json nor one of: {names}"
    )


def model_id(folder: pathlib.Path) -> bytes:
    """The 8 bytes by which files name a model: a hash of its tensors and of their meaning.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    weights, description = folder / WEIGHTS, folder / DESCRIPTION
    try:
        stamp = (weights.stat().st_mtime_ns, description.stat().st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"{folder} holds no model: {error}") from None
    return _model_id(folder, stamp)


@functools.lru_cache(maxsize=32)
def _model_id(folder: pathlib.Path, _stamp: tuple[int, int]) -> bytes:
    return id_of((folder / WEIGHTS).read_bytes(), Description.of(folder))


def by_id(wanted: bytes) -> pathlib.Path:
    """The folder of the shipped model with this id.

    Raises:
        CheckpointError: none has it.
    """
    for folder in available().values():
        if model_id(folder) == wanted:
            return folder
    raise CheckpointError(
        f"the file was made by model {wanted.hex()}, which is not installed: "
        "name its folder with --model"
    )
