"""Sources name the right files, and refuse what is missing or altered."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from linocut.errors import DataError
from linocut.lab.data import sources
from linocut.lab.data.sources import (
    KODAK_VARIABLE,
    expand_folder,
    folder_files,
    kodak_files,
    sample_files,
    training_files,
)
from linocut.pictures.image import write_png

DATA = Path(__file__).parents[3] / "data"


def make_picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8))


def test_every_sample_ships_inside_an_installed_package() -> None:
    files = sample_files(DATA / "samples.json")
    assert {file.name for file in files if file.split == "test"} == {
        "astronaut", "coffee", "chelsea", "rocket", "motorcycle", "china", "flower",
    }  # fmt: skip
    assert all(file.licence and file.path.is_file() for file in files)
    assert {"train", "validation"} < {file.split for file in files}


def test_the_second_of_the_stereo_pair_is_in_no_split() -> None:
    paths = [file.path.name for file in sample_files(DATA / "samples.json")]
    assert "motorcycle_left.png" in paths
    assert "motorcycle_right.png" not in paths


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    entry = {"name": "x", "package": "no_such_package", "path": "x.png", "split": "test"}
    (tmp_path / "samples.json").write_text(json.dumps({"pictures": [{**entry, "licence": "-"}]}))
    with pytest.raises(DataError, match="package no_such_package is not installed"):
        sample_files(tmp_path / "samples.json")


def test_sub_folders_decide_the_split(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        make_picture(tmp_path / split / "deep" / f"{split} 1.png")
    files = folder_files(str(tmp_path))
    assert {file.name: file.split for file in files} == {
        "deep_train_1": "train", "deep_validation_1": "validation", "deep_test_1": "test",
    }  # fmt: skip


def test_pictures_beside_sub_folders_are_refused(tmp_path: Path) -> None:
    make_picture(tmp_path / "train" / "a.png")
    make_picture(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"found train/ and also 1 pictures beside them \(b\.png\)"):
        folder_files(str(tmp_path))


def test_a_flat_folder_leaves_the_split_open_and_skips_other_files(tmp_path: Path) -> None:
    make_picture(tmp_path / "a.png")
    make_picture(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "LICENSE").write_text("# CC0-1.0\nmore\n")
    (file,) = folder_files(str(tmp_path))
    assert (file.name, file.split, file.licence) == ("a", None, "CC0-1.0")


def test_more_training_folders_are_training_only(tmp_path: Path) -> None:
    make_picture(tmp_path / "a.png")
    assert [file.split for file in training_files([str(tmp_path)])] == ["train"]


def test_environment_variables_in_folders_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_PICTURES", str(tmp_path))
    assert expand_folder("$MY_PICTURES") == tmp_path
    with pytest.raises(DataError, match="environment variable NOT_THERE is not set"):
        expand_folder("$NOT_THERE/x")
    with pytest.raises(DataError, match="is not a folder"):
        expand_folder("${MY_PICTURES}/absent")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures found"):
        folder_files(str(tmp_path))


@pytest.fixture
def kodak(tmp_path: Path) -> tuple[Path, Path]:
    """A declaration of two small files, and the folder that holds them."""
    folder = tmp_path / "mirror"
    entries = []
    for i, name in enumerate(["kodim01.png", "kodim02.png"]):
        make_picture(folder / name, i)
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        entries.append({"name": name, "bytes": len(content), "sha256": digest})
    declared = {"licence": "free", "urls": ["http://127.0.0.1:9/{name}"], "files": entries}
    (tmp_path / "kodak.json").write_text(json.dumps(declared))
    return tmp_path / "kodak.json", folder


@pytest.fixture
def served(kodak: tuple[Path, Path]) -> Iterator[str]:
    """The address of a server of the mirror folder, on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(kodak[1]))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_mirror_folder_is_used_and_checked(
    kodak: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration, mirror = kodak
    monkeypatch.setenv(KODAK_VARIABLE, str(mirror))
    files = kodak_files(declaration, tmp_path / "cache")
    assert [(file.name, file.split) for file in files] == [("kodim01", "test"), ("kodim02", "test")]
    make_picture(mirror / "kodim02.png", 9)
    with pytest.raises(DataError, match=r"kodim02\.png: SHA-256 is \w+\.\.\., expected"):
        kodak_files(declaration, tmp_path / "cache")
    (mirror / "kodim02.png").unlink()
    with pytest.raises(DataError, match=r"no file kodim02\.png"):
        kodak_files(declaration, tmp_path / "cache")


def test_downloads_fall_through_to_a_good_address_and_are_kept(
    kodak: tuple[Path, Path], served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration, mirror = kodak
    monkeypatch.delenv(KODAK_VARIABLE, raising=False)
    declared = json.loads(declaration.read_text())
    declared["urls"] = [f"{served}/absent/{{name}}", f"{served}/kodim{{number:02d}}.png"]
    declaration.write_text(json.dumps(declared))
    files = kodak_files(declaration, tmp_path / "cache")
    assert files[1].path.read_bytes() == (mirror / "kodim02.png").read_bytes()
    for path in mirror.iterdir():
        path.unlink()
    assert kodak_files(declaration, tmp_path / "cache") == files


def test_an_altered_download_is_refused(
    kodak: tuple[Path, Path], served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration, mirror = kodak
    monkeypatch.delenv(KODAK_VARIABLE, raising=False)
    monkeypatch.setattr(sources.time, "sleep", lambda seconds: None)
    declared = json.loads(declaration.read_text())
    declared["urls"] = [f"{served}/{{name}}"]
    declaration.write_text(json.dumps(declared))
    make_picture(mirror / "kodim01.png", 9)
    with pytest.raises(DataError, match=r"SHA-256 is .* name it in LINOCUT_KODAK"):
        kodak_files(declaration, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_the_kodak_declaration_lists_24_files() -> None:
    declared = json.loads((DATA / "kodak.json").read_text())
    names = [entry["name"] for entry in declared["files"]]
    assert names == [f"kodim{i:02d}.png" for i in range(1, 25)]
    assert all(len(entry["sha256"]) == 64 for entry in declared["files"])
