"""Files of a command: which are read, what the results are called, how bytes get in and out.

    inputs, output --plan--> jobs (source, target), the results' names all different
    source or standard input --read--> bytes        bytes --deliver--> target or standard output

Inputs are plain files, folders, globs, and `-` for the streams.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from linocut.errors import DataError
from linocut.files import write_atomically

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


@dataclass(frozen=True)
class Plan:
    """What a command will do.

    Attributes:
        jobs: in the order of the inputs, folders by name.
        notes: what is left alone, one line each.
    """

    jobs: list[Job]
    notes: tuple[str, ...] = ()


def plan(
    inputs: Sequence[str], output: str | None, *, readable: frozenset[str], suffix: str
) -> Plan:
    """Pair every input with its output.

    A known suffix of the input gives way to that of the result; whatever else stands behind a dot
    is part of the name and stays. Inputs that would share a name keep their suffixes.

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
        return Plan([Job(None, None if output in {None, STREAM} else Path(str(output)))])
    notes: list[str] = []
    found = [pair for name in inputs for pair in _expand(name, readable, notes)]
    if output == STREAM:
        if len(found) > 1:
            raise DataError(f"{len(found)} inputs cannot all go to standard output")
        return Plan([Job(found[0][0], None)], tuple(notes))
    into_folder = len(found) > 1 or any(base.is_dir() for _, base in found)
    if output is None:
        folders = [source.parent for source, _ in found]
    elif into_folder or Path(output).is_dir() or output.endswith(("/", os.sep)):
        folder = Path(output)
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{output}: is a file, expected a folder for {len(found)} outputs")
        folders = [
            folder / source.relative_to(base).parent if base.is_dir() else folder
            for source, base in found
        ]
    else:
        return Plan([Job(found[0][0], Path(output))], tuple(notes))
    places = [(source, folder) for (source, _), folder in zip(found, folders, strict=True)]
    return Plan(_name_results(places, readable, suffix), tuple(notes))


def require_free(job: Job, *, force: bool) -> None:
    """Refuse to write over the input, or over any existing file without `force`.

    Raises:
        DataError: the target is taken.
    """
    if job.target is None or not job.target.exists() or is_device(job.target):
        return
    with contextlib.suppress(FileNotFoundError):  # an input that went away is named when read
        if job.source is not None and job.target.samefile(job.source):
            raise DataError(f"{job.target}: is the input itself")
    if job.target.is_dir():
        raise DataError(f"{job.target}: is a folder, expected a file")
    if not force:
        raise DataError(f"{job.target}: exists already (-f overwrites, --skip-existing goes on)")


def is_device(path: Path) -> bool:
    """Whether something is there that takes bytes but is no file: /dev/null, a named pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def read(source: Path | None) -> bytes:
    """A whole file, or standard input.

    Raises:
        DataError: it cannot be read.
    """
    if source is None:
        if sys.stdin is None:
            raise DataError("standard input is closed")
        return sys.stdin.buffer.read()
    try:
        return source.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{source}: no such file") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror or error}") from None


def require_output(jobs: Sequence[Job]) -> None:
    """Refuse, before any work, a result for standard output that nothing takes.

    Raises:
        DataError: standard output is closed, or a terminal.
    """
    if all(job.target is not None for job in jobs):
        return
    if sys.stdout is None:
        raise DataError("standard output is closed")
    if sys.stdout.isatty():
        raise DataError("standard output is a terminal: name a file with -o, or use a pipe")


def deliver(target: Path | None, data: bytes) -> None:
    """Write a result: whole into a file, as a stream into a pipe or standard output.

    Raises:
        DataError: it cannot be written.
        BrokenPipeError: nobody reads standard output any more.
    """
    if target is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be made: {error.strerror}") from error
    try:
        if is_device(target):
            target.write_bytes(data)  # a rename would put a file in its place
            return
        write_atomically(target.resolve(), data)  # through a link, not in its place
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}") from error


def _name_results(
    places: Sequence[tuple[Path, Path]], readable: Collection[str], suffix: str
) -> list[Job]:
    """Jobs for sources and the folders of their results, no two of which are one file.

    Raises:
        DataError: two sources have one name and one folder.
    """
    distinct = dict.fromkeys((os.path.realpath(source), folder) for source, folder in places)
    first = {(os.path.realpath(source), folder): source for source, folder in reversed(places)}
    items = [(first[key], key[1]) for key in distinct]
    full: set[int] = set()
    while True:
        targets = [
            folder / (source.name if number in full else _stem(source, readable))
            for number, (source, folder) in enumerate(items)
        ]
        targets = [target.with_name(target.name + suffix) for target in targets]
        shared = [group for group in _same_files(targets) if not full.issuperset(group)]
        if not shared:
            break
        full.update(*shared)
    for one, other, *_ in _same_files(targets):
        paths = {os.path.realpath(targets[one]), os.path.realpath(targets[other])}
        if len(paths) == 1 or _ignores_case(targets[one].parent):
            raise DataError(
                f"{items[one][0]} and {items[other][0]} would both become {targets[one]}: "
                "name the folder above them, whose tree is kept, or give them other names"
            )
    return [Job(source, target) for (source, _), target in zip(items, targets, strict=True)]


def _stem(source: Path, readable: Collection[str]) -> str:
    return source.stem if source.suffix.lower() in readable else source.name


def _same_files(targets: Sequence[Path]) -> list[list[int]]:
    """Numbers of targets that are one file somewhere: links, upper case and accents aside."""
    groups = defaultdict(list)
    for number, target in enumerate(targets):
        key = unicodedata.normalize("NFC", os.path.realpath(target)).casefold()
        groups[key].append(number)
    return [group for group in groups.values() if len(group) > 1]


def _ignores_case(folder: Path) -> bool:
    """Whether `a` and `A` are one file there, as far as the folders that exist can tell."""
    place = Path(os.path.realpath(folder))
    for path in (place, *place.parents):
        other = path.with_name(path.name.swapcase()) if path.name else path
        if path.exists() and other.name != path.name:
            return other.exists() and other.samefile(path)
    return sys.platform in {"darwin", "win32"}


def _expand(name: str, readable: frozenset[str], notes: list[str]) -> list[tuple[Path, Path]]:
    """Files behind one argument, each with the folder its output path counts from."""
    path = Path(name)
    if path.is_dir():
        inside = [
            below
            for below in sorted(path.rglob("*"))
            if not any(part.startswith(".") for part in below.relative_to(path).parts)
            and below.is_file()
        ]
        files = [below for below in inside if below.suffix.lower() in readable]
        if not files:
            raise DataError(
                f"{name}: no {' '.join(sorted(readable))} files in this folder"
                + (f", only {_kinds(inside)}" if inside else "")
            )
        if others := [below for below in inside if below.suffix.lower() not in readable]:
            notes.append(f"{name}: left alone {_kinds(others)}")
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


def _kinds(files: Iterable[Path]) -> str:
    """How many files of which suffixes, the commonest first."""
    kinds = Counter(path.suffix.lower() or "without suffix" for path in files)
    shown = [f"{count} {kind}" for kind, count in kinds.most_common(5)]
    if rest := kinds.total() - sum(count for _, count in kinds.most_common(5)):
        shown.append(f"{rest} of other kinds")
    noun = "file" if kinds.total() == 1 else "files"
    return f"{kinds.total()} other {noun} ({', '.join(shown)})"
