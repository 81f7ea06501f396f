"""The models that the package ships, by name and by the id that files carry. Imports no torch.

release/<name>/model.safetensors + model.json
"""

import functools
import hashlib
import json
import pathlib

from linocut.errors import CheckpointError

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
    weights, description = folder / "model.safetensors", folder / "model.json"
    try:
        stamp = (weights.stat().st_mtime_ns, description.stat().st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"{folder} holds no model: {error}") from None
    return _model_id(weights, description, stamp)


@functools.lru_cache(maxsize=32)
def _model_id(weights: pathlib.Path, description: pathlib.Path, _stamp: tuple[int, int]) -> bytes:
    try:
        facts = json.loads(description.read_text(encoding="utf-8"))
        meaning = {key: facts[key] for key in ("format", "architecture", "config")}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{description} is not a model description: {error}") from None
    digest = hashlib.sha256(weights.read_bytes())
    digest.update(json.dumps(meaning, sort_keys=True).encode())
    return digest.digest()[:8]


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
