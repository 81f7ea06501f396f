"""The folder of a model: what it holds, read once, and how it is found by name or by id.

name | folder | id in a file --> release/<name>/ or another folder

model.json ---------> architecture, what the codec has to know of the latent, About
model.safetensors --> tensors by name --both--> the 8 bytes by which files name the model

`network.*` are the weights of the network, which the graphs beside them (`*.onnx`) point to; what
else there is belongs to the codec: `rotation.*`, `tables.*`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linocut.errors import CheckpointError
from linocut.files import sha256_of

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
FORMAT = 1


@dataclass(frozen=True)
class About:
    """What people and stages want to know of a model.

    Attributes:
        step_range: finest and coarsest step that it was made for, grey levels.
        rate_curve: (step, mean bpp of the validation pictures), fine to coarse.
        loss: what it was trained for.
        facts: all there is in model.json: these, numbers of the loss, facts of the training.
    """

    step_range: tuple[float, float] = (4.0, 160.0)
    rate_curve: tuple[tuple[float, float], ...] = ()
    loss: str = "l2"
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> About:
        """From the entry `about` of model.json.

        Raises:
            TypeError, ValueError: one of the numbers is not one.
        """
        low, high = facts.get("step_range", cls.step_range)
        curve = tuple((float(step), float(bpp)) for step, bpp in facts.get("rate_curve", ()))
        return cls((float(low), float(high)), curve, str(facts.get("loss", cls.loss)), dict(facts))


@dataclass(frozen=True)
class Description:
    """The content of model.json.

    Attributes:
        architecture: name of the network's architecture.
        about: for people and stages.
        latent: what `linocut.codec.transforms.Geometry` is made of; empty where the folder holds
            a network alone.
        meaning: what takes part in the model's id, besides its tensors.
    """

    architecture: str
    about: About
    latent: Mapping[str, Any]
    meaning: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path) -> Description:
        """Read it.

        Raises:
            CheckpointError: it is missing or is not a description.
        """
        found = read_description(folder)
        try:
            return cls(
                str(found["architecture"]),
                About.from_json(found.get("about", {})),
                dict(found.get("latent", {})),
                {key: found[key] for key in ("format", "architecture", "config")},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            path = folder / DESCRIPTION
            raise CheckpointError(f"{path} is not a model description: {error}") from None


def read_description(folder: Path) -> dict[str, Any]:
    """The content of model.json as it is there.

    Raises:
        CheckpointError: it is missing or is not a description.
    """
    path = folder / DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} holds no model: {DESCRIPTION} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a model description of format {FORMAT}")
    return found


@dataclass(frozen=True)
class Model:
    """A folder that was read.

    Attributes:
        folder: where.
        description: of the model.
        tensors: numpy arrays by name.
        model_id: 8 bytes that files carry.
    """

    folder: Path
    description: Description
    tensors: Mapping[str, Any]
    model_id: bytes

    @classmethod
    def of(cls, folder: Path) -> Model:
        """Read both files, once.

        Raises:
            CheckpointError: one is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        description = Description.of(folder)
        path = folder / WEIGHTS
        try:
            content = path.read_bytes()
            tensors = load(content)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
        return cls(folder, description, tensors, id_of(content, description))


def id_of(weights: bytes, description: Description) -> bytes:
    """The 8 bytes by which files name a model: a hash of its tensors and of their meaning."""
    meaning = json.dumps(description.meaning, sort_keys=True)
    return bytes.fromhex(sha256_of(weights, meaning.encode()))[:8]


# --- models that the package ships, by name and by the id that files carry ------------------------

RELEASE = Path(__file__).resolve().parent / "release"
DEFAULT = "default"
"""The name that stands for the recommended model."""

RECOMMENDED = "cae-eyes"


def available() -> dict[str, Path]:
    """Folders of the shipped models by name."""
    return {path.parent.name: path.parent for path in sorted(RELEASE.glob("*/model.json"))}


def folder_of(name: str | Path) -> Path:
    """The folder of a model given by name, or by path.

    Raises:
        CheckpointError: there is no such model.
    """
    known = available()
    if str(name) == DEFAULT:
        name = RECOMMENDED
    if str(name) in known:
        return known[str(name)]
    folder = Path(name)
    if (folder / "model.json").is_file():
        return folder
    names = ", ".join([DEFAULT, *known]) if known else "none are installed"
    raise CheckpointError(
        f"model {str(name)!r} is neither a folder with a model.json nor one of: {names}"
    )


def nearest_to(arch: str, loss: str) -> Path | None:
    """The shipped model of an architecture for a loss, else the one for L2, else None."""
    known = available()
    return known.get(f"{arch}-{loss}") or known.get(f"{arch}-l2")


def model_id(folder: Path) -> bytes:
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
def _model_id(folder: Path, _stamp: tuple[int, int]) -> bytes:
    return id_of((folder / WEIGHTS).read_bytes(), Description.of(folder))


def by_id(wanted: bytes) -> Path:
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
