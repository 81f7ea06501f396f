"""Work through files one by one: each result appears whole, progress shows, the end sums up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from linocut.cli.jobs import Job, is_device, require_free
from linocut.errors import DataError, LinocutError
from linocut.pictures.image import write_atomically

_BAR = 24


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
