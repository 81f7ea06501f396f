"""Which files a command reads and writes: plain files, folders, globs, and `-` for the streams."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from linocut.errors import DataError

STREAM = "-"


@dataclass(frozen=True)
class Job:
    """One file to read and one to write; None is standard input or output."""

    source: Path | None
    target: Path | None

    @property
    def name(self) -> str:
        """How messages call the picture."""
        return str(self.source) if self.source is not None else "<stdin>"


def plan_jobs(
    inputs: Sequence[str], output: str | None, *, readable: frozenset[str], suffix: str
) -> list[Job]:
    """Pair every input with its output.

    Args:
        inputs: files, folders (searched through), globs, or one `-`.
        output: file, folder or `-`; beside each input when left out.
        readable: suffixes that folders are searched for, lower case with the dot.
        suffix: of the outputs that get a name here.

    Raises:
        DataError: nothing found, or one output for several inputs.
    """
    if STREAM in inputs:
        if len(inputs) > 1:
            raise DataError("standard input (-) stands alone, found other inputs beside it")
        return [Job(None, None if output in {None, STREAM} else Path(str(output)))]
    found = [pair for name in inputs for pair in _expand(name, readable)]
    into_folder = len(found) > 1 or any(base.is_dir() for _, base in found)
    if output is None:
        names = [source.with_suffix(suffix) for source, _ in found]
    elif output == STREAM:
        if len(found) > 1:
            raise DataError(f"{len(found)} inputs cannot all go to standard output")
        return [Job(found[0][0], None)]
    elif into_folder or Path(output).is_dir() or output.endswith("/"):
        folder = Path(output)
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{output}: is a file, expected a folder for {len(found)} outputs")
        names = [
            folder
            / (source.relative_to(base) if base.is_dir() else Path(source.name)).with_suffix(suffix)
            for source, base in found
        ]
    else:
        return [Job(found[0][0], Path(output))]
    shared = {name for name, count in Counter(names).items() if count > 1}
    return [
        Job(source, name.with_name(source.name + suffix) if name in shared else name)
        for (source, _), name in zip(found, names, strict=True)
    ]


def require_free(job: Job, *, force: bool) -> None:
    """Refuse to write over the input, or over any existing file without `force`.

    Raises:
        DataError: the target is taken.
    """
    if job.target is None or not job.target.exists() or is_device(job.target):
        return
    if job.source is not None and job.target.samefile(job.source):
        raise DataError(f"{job.target}: is the input itself")
    if job.target.is_dir():
        raise DataError(f"{job.target}: is a folder, expected a file")
    if not force:
        raise DataError(f"{job.target}: exists already (-f overwrites)")


def is_device(path: Path) -> bool:
    """Whether something is there that takes bytes but is no file: /dev/null, a named pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _expand(name: str, readable: frozenset[str]) -> list[tuple[Path, Path]]:
    """Files behind one argument, each with the folder its output path counts from."""
    path = Path(name)
    if path.is_dir():
        files = sorted(
            below
            for below in path.rglob("*")
            if below.suffix.lower() in readable
            and not below.name.startswith(".")
            and below.is_file()
        )
        if not files:
            raise DataError(f"{name}: no {' '.join(sorted(readable))} files in this folder")
        return [(below, path) for below in files]
    if path.exists() or not glob.has_magic(name):
        if not path.exists():
            raise DataError(f"{name}: no such file")
        return [(path, path)]
    matches = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 (absolute patterns)
    files = [match for match in matches if match.is_file()]
    if not files:
        raise DataError(f"{name}: matches no file")
    return [(match, match) for match in files]
