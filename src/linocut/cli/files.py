"""Files of a command: which are read and written, and batches of them worked through.

    inputs, output --plan_jobs--> jobs --run_jobs--> files, lines on standard error, exit code

Inputs are plain files, folders, globs, and `-` for the streams. Each result appears whole, progress
shows, the end sums up.
"""

from __future__ import annotations

import glob
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from linocut.errors import DataError, LinocutError
from linocut.files import write_atomically

STREAM = "-"
_BAR = 24


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
class Outcome:
    """What became of one input.

    Attributes:
        data: the file to write.
        read_bytes: size of the input.
        pixels: width x height.
        detail: of the line shown.
        notes: what was converted or lost.
    """

    data: bytes
    read_bytes: int
    pixels: int
    detail: str
    notes: tuple[str, ...] = ()


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


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job], Outcome],
    *,
    force: bool,
    stop_at_error: bool = False,
) -> int:
    """Work through the jobs.

    Args:
        jobs: what to read and write.
        work: makes one file.
        force: overwrite existing files.
        stop_at_error: let the first error through instead of counting it.

    Returns:
        The exit code: 0, or 1 when any job failed. The error of a single job is raised.
    """
    if any(job.target is None for job in jobs) and sys.stdout.isatty():
        raise DataError("standard output is a terminal: name a file with -o, or use a pipe")
    begin = time.perf_counter()
    done: list[Outcome] = []
    for number, job in enumerate(jobs):
        _bar(number, len(jobs), job.name)
        since = time.perf_counter()
        try:
            require_free(job, force=force)
            with naming(job.name):
                outcome = work(job)
            _deliver(job, outcome.data)
        except LinocutError as error:
            if len(jobs) == 1 or stop_at_error:
                raise
            _line(f"linocut: {error}")
            continue
        done.append(outcome)
        for note in outcome.notes:
            _line(f"{job.name}: {note}")
        target = job.target or "<stdout>"
        sizes = f"{outcome.read_bytes:,} -> {len(outcome.data):,} bytes"
        seconds = time.perf_counter() - since
        _line(f"{job.name} -> {target}: {sizes}, {outcome.detail}, {seconds:.2f} s")
    _bar(len(jobs), len(jobs), "")
    if len(jobs) > 1:
        _sum_up(done, len(jobs), time.perf_counter() - begin)
    return 0 if len(done) == len(jobs) else 1


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of a file before errors that do not say it."""
    try:
        yield
    except LinocutError as error:
        if name in str(error):
            raise
        raise type(error)(f"{name}: {error}") from error


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


def _deliver(job: Job, data: bytes) -> None:
    if job.target is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{job.target.parent}: cannot be made: {error.strerror}") from error
    try:
        if is_device(job.target):
            job.target.write_bytes(data)  # a rename would put a file in its place
            return
        write_atomically(job.target.resolve(), data)  # through a link, not in its place
    except OSError as error:
        raise DataError(f"{job.target}: cannot be written: {error.strerror or error}") from error


def _sum_up(done: Sequence[Outcome], jobs: int, seconds: float) -> None:
    read = sum(outcome.read_bytes for outcome in done)
    written = sum(len(outcome.data) for outcome in done)
    pixels = sum(outcome.pixels for outcome in done)
    failed = f", {jobs - len(done)} failed" if len(done) < jobs else ""
    rate = f", {pixels / 1e6 / seconds:.2f} megapixels a second" if pixels else ""
    sizes = f"{read:,} -> {written:,} bytes"
    _line(f"{len(done)} of {jobs} files{failed}: {sizes} in {seconds:.1f} s{rate}")


def _bar(done: int, jobs: int, name: str) -> None:
    """Redraw the progress bar, on a terminal and for several files only."""
    if jobs < 2 or not sys.stderr.isatty():
        return
    filled = _BAR * done // jobs
    sys.stderr.write(f"\r\x1b[K[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{jobs} {name[-50:]}")
    if done == jobs:
        sys.stderr.write("\r\x1b[K")
    sys.stderr.flush()


def _line(text: str) -> None:
    """One line on standard error, over the bar where there is one."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    sys.stderr.write(f"{clear}{text}\n")
