"""Where pictures come from: files inside installed packages, folders of the user, the Kodak set.

A source only names files and says which split each belongs to; `linocut.lab.data.prepare` reads
them.
The declarations (names, checksums, addresses, licences) are small JSON files under data/.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from linocut.errors import DataError
from linocut.files import sha256_of, write_atomically
from linocut.pictures.image import PICTURE_SUFFIXES

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("test", "validation", "train")
"""In the order of precedence: a picture found twice stays in the first of its splits."""

KODAK_VARIABLE = "LINOCUT_KODAK"
"""Environment variable that names a local folder with the 24 Kodak files."""

_TRIES = 3
_TIMEOUT_S = 20


@dataclass(frozen=True)
class PictureFile:
    """One picture on disk, before anybody has opened it.

    Attributes:
        name: unique within a run, fit for a file name.
        split: where the source puts it; None leaves that to the hash of its pixels.
        licence: what may be done with it.
    """

    name: str
    path: Path
    source: str
    licence: str
    split: Split | None


def sample_files(declaration: Path) -> list[PictureFile]:
    """Photographs that ship inside installed packages, as declared in data/samples.json.

    Raises:
        DataError: the package or the file is not installed.
    """
    files = []
    for entry in _read_declaration(declaration)["pictures"]:
        package = entry["package"]
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise DataError(
                f"sample picture {entry['name']}: package {package} is not installed "
                "(pip install 'linocut[lab]')"
            )
        path = Path(spec.submodule_search_locations[0]) / entry["path"]
        if not path.is_file():
            raise DataError(
                f"sample picture {entry['name']}: {package} has no file {entry['path']}"
            )
        files.append(
            PictureFile(
                entry["name"], path, f"{package}:{entry['path']}", entry["licence"], entry["split"]
            )
        )
    return files


def folder_files(folder: str) -> list[PictureFile]:
    """Pictures below a folder: sub-folders train/, validation/, test/, or one flat folder.

    Without any of those sub-folders every picture has split None.

    Raises:
        DataError: the folder is missing or empty, or an environment variable in it is not set.
    """
    root = expand_folder(folder)
    named = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if not named:
        return _pictures_below(root, root.name, None)
    loose = [path.name for path in sorted(root.iterdir()) if _is_picture(path)]
    if loose:
        raise DataError(
            f"{root}: found {', '.join(sorted(named))}/ and also {len(loose)} pictures beside them "
            f"({loose[0]}), expected all pictures inside train/, validation/ and test/"
        )
    return [
        file
        for split, below in named.items()
        for file in _pictures_below(below, f"{root.name}/{split}", split)
    ]


def training_files(folders: Iterable[str]) -> list[PictureFile]:
    """Every picture below further training folders."""
    files: list[PictureFile] = []
    for folder in folders:
        files += pictures_below(folder, "train")
    return files


def folder_test_files(folder: str) -> list[PictureFile]:
    """Every picture below a folder of test pictures."""
    try:
        return pictures_below(folder, "test")
    except DataError as error:
        raise DataError(
            f"data.test is {folder!r}, expected source, samples, kodak or a folder: {error}"
        ) from None


def pictures_below(folder: str, split: Split | None = None) -> list[PictureFile]:
    """Every picture below a folder from the settings, sorted by its path in it.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    root = expand_folder(folder)
    return _pictures_below(root, root.name, split)


def expand_folder(folder: str) -> Path:
    """A folder from the settings, with `$NAME` and `~` expanded.

    Raises:
        DataError: the variable is not set or the folder does not exist.
    """
    expanded = Path(os.path.expandvars(folder)).expanduser()
    left = re.search(r"\$\{?(\w+)", str(expanded))
    if left:
        raise DataError(f"data folder {folder!r}: environment variable {left[1]} is not set")
    if not expanded.is_dir():
        raise DataError(f"data folder {folder!r}: {expanded} is not a folder")
    return expanded


def kodak_files(declaration: Path, cache: Path) -> list[PictureFile]:
    """The 24 Kodak pictures, all test: from the folder in LINOCUT_KODAK, else downloaded once.

    Args:
        declaration: data/kodak.json with names, SHA-256 and addresses.
        cache: folder that keeps downloads.

    Raises:
        DataError: a file is missing, has another SHA-256, or cannot be fetched.
    """
    declared = _read_declaration(declaration)
    mirror = os.environ.get(KODAK_VARIABLE, "")
    entries = declared["files"]
    files = []
    for number, entry in enumerate(entries, start=1):
        name = entry["name"]
        if mirror:
            path = Path(mirror).expanduser() / name
            if not path.is_file():
                raise DataError(f"{KODAK_VARIABLE}={mirror}: no file {name} in that folder")
            _require_sha256(path, path.read_bytes(), entry["sha256"])
        else:
            path = cache / name
            if not (path.is_file() and sha256_of(path) == entry["sha256"]):
                _say(f"downloading {name} ({number} of {len(entries)})")
                addresses = [
                    address.format(name=name, number=number) for address in declared["urls"]
                ]
                cache.mkdir(parents=True, exist_ok=True)
                write_atomically(path, _fetch(addresses, entry["sha256"]))
        files.append(PictureFile(path.stem, path, "kodak", declared["licence"], "test"))
    return files


def _fetch(addresses: list[str], sha256: str) -> bytes:
    """The file behind the first address that answers with the right content."""
    failures: dict[str, str] = {}
    for attempt in range(_TRIES):
        for address in addresses:
            try:
                with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
                    data: bytes = answer.read()
                _require_sha256(address, data, sha256)
                return data
            except (OSError, urllib.error.URLError, DataError) as error:
                failures[address] = str(getattr(error, "reason", error))
                _say(f"  {address}: {failures[address]}")
        if attempt + 1 < _TRIES:
            time.sleep(2**attempt)
    tried = "; ".join(f"{address}: {reason}" for address, reason in failures.items())
    raise DataError(
        f"none of {len(addresses)} addresses gave the file after {_TRIES} tries ({tried}); "
        f"put the files into a folder and name it in {KODAK_VARIABLE}"
    )


def _require_sha256(where: Path | str, data: bytes, expected: str) -> None:
    found = sha256_of(data)
    if found != expected:
        raise DataError(f"{where}: SHA-256 is {found[:16]}..., expected {expected[:16]}...")


def _pictures_below(root: Path, source: str, split: Split | None) -> list[PictureFile]:
    """All pictures below a folder, sorted by their path in it."""
    licence = _licence_beside(root)
    paths = sorted(path for path in root.rglob("*") if _is_picture(path))
    if not paths:
        raise DataError(f"{root}: no pictures found (looked for {_suffixes()})")
    return [
        PictureFile(_name(path.relative_to(root)), path, source, licence, split) for path in paths
    ]


def _is_picture(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return path.suffix.lower() in PICTURE_SUFFIXES and not hidden and path.is_file()


def _licence_beside(root: Path) -> str:
    """First line of LICENCE, LICENSE (.txt, .md) in the folder, or that none is stated."""
    for name in ("LICENCE", "LICENSE"):
        for suffix in ("", ".txt", ".md"):
            path = root / f"{name}{suffix}"
            if path.is_file():
                lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                if lines:
                    return lines[0].strip("# ")[:200]
    return "not stated (the user's own folder)"


def _name(relative: Path) -> str:
    """A path inside a folder as one plain word: letters, digits, `_`, `-`, `.`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", relative.with_suffix("").as_posix())


def _suffixes() -> str:
    return " ".join(sorted(PICTURE_SUFFIXES))


def _read_declaration(path: Path) -> dict[str, Any]:
    try:
        declared: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such declaration of pictures") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    return declared


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
