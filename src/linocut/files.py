"""Files: the one way in which this project replaces one, and the one hash that tells two apart.

    bytes --> .NAME.xxxxxxxx.part beside it --flush, rename--> NAME

A kill in the middle leaves the old file and at most a hidden `.part` beside it; any exception, an
interrupt too, leaves the old file alone. What is replaced hands its permissions on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from linocut.errors import DataError


def sha256_of(*parts: Path | bytes | memoryview) -> str:
    """SHA-256 of some parts one after the other, in hexadecimal digits.

    Args:
        parts: content, or paths of files that hold it.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        else:
            digest.update(part)
    return digest.hexdigest()


def write_atomically(path: str | Path, data: bytes) -> None:
    """Put a file of these bytes in the place of `path`.

    Raises:
        DataError: it cannot be written.
    """
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """An open file that takes the place of `path` when the block ends without an exception.

    A new file gets the permissions that the process gives; one that is replaced keeps its mode
    and, where the system allows it, its owner and group. A symbolic link is replaced itself:
    resolve the path where the file behind it is meant.

    Raises:
        DataError: it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name[-40:]}.{secrets.token_hex(4)}.part")
    try:
        try:
            with _open_like(path, partial) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def _open_like(path: Path, partial: Path) -> BinaryIO:
    """A new file with the permissions of the one it will replace."""
    try:
        known = path.lstat()
    except OSError:
        known = None
    if known is None or not stat.S_ISREG(known.st_mode):
        return partial.open("xb")
    mode = stat.S_IMODE(known.st_mode)
    descriptor = os.open(
        partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode & 0o600
    )
    if hasattr(os, "fchown"):
        for owner, group in ((-1, known.st_gid), (known.st_uid, -1)):
            with contextlib.suppress(OSError):  # only a privileged user may give files away
                os.fchown(descriptor, owner, group)
        os.fchmod(descriptor, mode)
    return os.fdopen(descriptor, "wb")
