"""A file appears whole or not at all, and hands on what it may be used for."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

import pytest

from linocut.errors import DataError
from linocut.files import replacing, sha256_of, write_atomically

ROOT = Path(__file__).resolve().parents[1]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_atomically(tmp_path / "taken", b"data")
    with pytest.raises(DataError, match=r"absent/a: cannot be written: No such file"):
        write_atomically(tmp_path / "absent/a", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_keeps_the_old_file_and_leaves_no_other(
    error: type[BaseException], tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def stopped() -> None:
        with replacing(tmp_path / "a") as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        stopped()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400, 0o755])
def test_a_replaced_file_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(mode)
    write_atomically(tmp_path / "a", b"new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o600)
    with replacing(tmp_path / "a"):
        (partial,) = tmp_path.glob(".a.*.part")
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_replaced_file_keeps_its_owner_and_group(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    os.chown(tmp_path / "a", 12, 34)
    write_atomically(tmp_path / "a", b"new")
    found = (tmp_path / "a").stat()
    assert (found.st_uid, found.st_gid) == (12, 34)


def test_a_new_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_link_is_replaced_and_what_it_points_to_is_not(tmp_path: Path) -> None:
    """DVC may link outputs into its cache."""
    (tmp_path / "cache").write_bytes(b"cached")
    (tmp_path / "a").symlink_to(tmp_path / "cache")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "cache").read_bytes() == b"cached"
    assert not (tmp_path / "a").is_symlink()


def test_names_of_the_greatest_length_can_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("n" * 255), b"data")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_there_is_no_other_atomic_writer() -> None:
    """A temporary name beside a file, renamed over it, is written in one place."""
    pattern = re.compile(r"\.(tmp|part)\b[\"'{]")
    writers = [
        path.relative_to(ROOT / "src/linocut").as_posix()
        for path in sorted((ROOT / "src/linocut").rglob("*.py"))
        if pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert writers == ["files.py"]


def test_the_hash_of_parts_is_that_of_the_whole_be_they_content_or_files(tmp_path):
    (tmp_path / "b").write_bytes(b"b" * 1_000_000)
    whole = hashlib.sha256(b"a" + b"b" * 1_000_000).hexdigest()
    assert sha256_of(b"a", tmp_path / "b") == sha256_of(memoryview(b"a"), b"b" * 1_000_000) == whole
