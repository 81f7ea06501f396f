"""Work through the jobs of a command, one at a time or many at once, and say what became of them.

    jobs --work, here or in worker processes--> outcomes --deliver--> files
                                                         --report, in order--> standard error

Whatever one picture raises is one line with its name, and the others go on; only an interrupt ends
a batch. Each result appears whole as soon as it is there, and none takes the place of another of
the same batch.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from linocut.cli.files import Job, Plan, deliver, require_free, require_output
from linocut.errors import DataError, LinocutError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

_BAR = 24

Work = Callable[[Job, int | None], "Outcome"]
"""Makes the result of a job with so many threads; it and what it returns can be pickled."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        data: the file to write; empty once it is written.
        read_bytes: size of the input.
        pixels: width x height.
        detail: of the line shown.
        notes: what was converted or lost.
        written_bytes: size of the result.
        seconds: that reading and making it took.
    """

    data: bytes
    read_bytes: int
    pixels: int
    detail: str
    notes: tuple[str, ...] = ()
    written_bytes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Options:
    """How to work through a batch.

    Attributes:
        force: overwrite existing files.
        skip_existing: leave out inputs whose results exist.
        processes: at most so many at once; None chooses.
        threads: of each picture; None chooses.
        debug: show tracebacks, and work in this process alone.
    """

    force: bool = False
    skip_existing: bool = False
    processes: int | None = None
    threads: int | None = None
    debug: bool = False


def run(plan: Plan, work: Work, pixels_of: Callable[[Job], int], options: Options) -> int:
    """Work through the jobs of a plan.

    Args:
        plan: what to read and write.
        work: makes one result.
        pixels_of: width x height of an input, found without decoding it; 0 where it is not known.
        options: how.

    Returns:
        The exit code: 0, or 1 when any job failed. The error of a single job is raised.
    """
    jobs = plan.jobs
    require_output(jobs)
    for note in plan.notes:
        say(note)
    begin = time.perf_counter()
    todo = [job for job in jobs if not (options.skip_existing and _is_there(job))]
    skipped = len(jobs) - len(todo)
    if len(jobs) == 1:
        if skipped:
            say(f"{jobs[0].name}: skipped, {jobs[0].target} exists")
            return 0
        require_free(jobs[0], force=options.force)
        with naming(jobs[0].name):
            outcome = _timed(work, jobs[0], options.threads)
        deliver(jobs[0].target, outcome.data)
        _report(jobs[0], outcome, len(outcome.data))
        return 0
    batch = _Batch(todo, options)
    try:
        batch.run(work, pixels_of)
    finally:
        bar(len(todo), len(todo), "")
        batch.sum_up(len(jobs), skipped, time.perf_counter() - begin)
    return 0 if len(batch.done) == len(todo) else 1


class _Batch:
    """Several jobs: results are written as they come, and reported in the order of the jobs."""

    def __init__(self, jobs: Sequence[Job], options: Options) -> None:
        self._jobs, self._options = jobs, options
        self._own: set[tuple[int, int]] = set()
        self._results: dict[int, Outcome | Exception | None] = {}  # None once reported
        self._reported = self._failed = 0
        self.done: list[Outcome] = []

    def run(self, work: Work, pixels_of: Callable[[Job], int]) -> None:
        """Go through all jobs; an interrupt passes, with what is done reported."""
        free = []
        for number, job in enumerate(self._jobs):
            try:
                require_free(job, force=self._options.force)
                free.append(number)
            except Exception as error:
                self._take(number, error)
        pixels = [_known(pixels_of, self._jobs[number]) for number in free]
        most = 1 if self._options.debug else self._options.processes
        workers = workers_for(pixels, most)
        threads = self._options.threads or (cores() // workers if workers > 1 else None)
        call = _Call(work, threads)
        bar(len(self._results), len(self._jobs), "")
        try:
            if workers > 1:
                items = [self._jobs[number] for number in free]
                with closing(in_processes(call, items, pixels, workers)) as results:
                    for place, result in results:
                        self._take(free[place], result)
            else:
                for number in free:
                    self._take(number, call(self._jobs[number]))
        finally:
            self._report_all()

    def _take(self, number: int, result: Outcome | Exception) -> None:
        if isinstance(result, Outcome):
            try:
                result = self._written(self._jobs[number], result)
            except Exception as error:
                result = error
        self._results[number] = result
        while self._reported in self._results:
            self._report_one(self._reported)
            self._reported += 1
        bar(len(self._results), len(self._jobs), self._jobs[number].name)

    def _written(self, job: Job, outcome: Outcome) -> Outcome:
        target = job.target
        assert target is not None  # streams stand alone
        with contextlib.suppress(OSError):
            known = target.stat()
            if (known.st_dev, known.st_ino) in self._own:
                raise DataError(f"{job.name}: {target} is already a result of this batch")
        deliver(target, outcome.data)
        with contextlib.suppress(OSError):
            known = target.stat()
            if target.is_file():
                self._own.add((known.st_dev, known.st_ino))
        return replace(outcome, data=b"", written_bytes=len(outcome.data))

    def _report_all(self) -> None:
        """The rest, where an interrupt left holes."""
        for number in sorted(self._results):
            self._report_one(number)

    def _report_one(self, number: int) -> None:
        job, result = self._jobs[number], self._results[number]
        self._results[number] = None
        if isinstance(result, Outcome):
            self.done.append(result)
            _report(job, result, result.written_bytes)
        elif result is not None:
            self._failed += 1
            if self._options.debug:
                say("".join(traceback.format_exception(result)).rstrip())
            say(f"linocut: {one_line(result, job.name)}")

    def sum_up(self, jobs: int, skipped: int, seconds: float) -> None:
        """One line about the whole."""
        read = sum(outcome.read_bytes for outcome in self.done)
        written = sum(outcome.written_bytes for outcome in self.done)
        pixels = sum(outcome.pixels for outcome in self.done)
        left = len(self._jobs) - len(self._results)
        others = {"skipped": skipped, "failed": self._failed, "not finished": left}
        parts = [f", {count} {word}" for word, count in others.items() if count]
        rate = f", {pixels / 1e6 / seconds:.2f} megapixels a second" if pixels else ""
        sizes = f"{read:,} -> {written:,} bytes"
        say(f"{len(self.done)} of {jobs} files{''.join(parts)}: {sizes} in {seconds:.1f} s{rate}")


@dataclass(frozen=True)
class _Call:
    """The work on one job, its error caught: what a worker process is given."""

    work: Work
    threads: int | None

    def __call__(self, job: Job) -> Outcome | Exception:
        try:
            with naming(job.name):
                return _timed(self.work, job, self.threads)
        except Exception as error:
            return error


def _timed(work: Work, job: Job, threads: int | None) -> Outcome:
    """The outcome, with the time that it took."""
    since = time.perf_counter()
    outcome = work(job, threads)
    return replace(outcome, seconds=time.perf_counter() - since)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of a file before errors that do not say it, whatever they are."""
    try:
        yield
    except Exception as error:
        if isinstance(error, LinocutError):
            if name in str(error):
                raise
            raise type(error)(f"{name}: {error}") from error
        raise DataError(one_line(error, name)) from error


def one_line(error: BaseException, name: str = "") -> str:
    """An error as one line; what this package did not raise itself is named by its type."""
    text = " ".join(str(error).split())
    if isinstance(error, LinocutError):
        return text
    text = f"{type(error).__name__}: {text or 'no message'} (--debug shows where)"
    return f"{name}: {text}" if name else text


def say(text: str) -> None:
    """A line on standard error, over the bar where there is one."""
    if sys.stderr is not None:
        clear = "\r\x1b[K" if sys.stderr.isatty() else ""
        sys.stderr.write(f"{clear}{text}\n")


def bar(done: int, jobs: int, name: str) -> None:
    """Redraw the progress bar, on a terminal and for several files only."""
    if jobs < 2 or sys.stderr is None or not sys.stderr.isatty():
        return
    filled = _BAR * done // jobs
    sys.stderr.write(f"\r\x1b[K[{'#' * filled}{'.' * (_BAR - filled)}] {done}/{jobs} {name[-50:]}")
    if done == jobs:
        sys.stderr.write("\r\x1b[K")
    sys.stderr.flush()


def _report(job: Job, outcome: Outcome, written_bytes: int) -> None:
    for note in outcome.notes:
        say(f"{job.name}: {note}")
    target = job.target or "<stdout>"
    sizes = f"{outcome.read_bytes:,} -> {written_bytes:,} bytes"
    say(f"{job.name} -> {target}: {sizes}, {outcome.detail}, {outcome.seconds:.2f} s")


def _is_there(job: Job) -> bool:
    return job.target is not None and job.target.is_file()


def _known(pixels_of: Callable[[Job], int], job: Job) -> int:
    try:
        return pixels_of(job)
    except Exception:  # the work itself will say what is wrong
        return 0


# --- several processes at once --------------------------------------------------------------------
#
#     here:    jobs, in order --pipe--> worker      results, as they come <--pipe-- worker
#     worker:  the work, unpickled once; then job by job until the pipe or its parent ends
#
# Workers are fresh processes (spawned, never forked): nothing that a network's threads hold is
# carried over. Each has few threads, and the pictures that are worked on together have a limited
# number of pixels, so that memory stays bounded. Only light modules are imported here.
#
# The executors of the standard library and of joblib end as a whole when one worker is killed, and
# do not say which picture it had. Here that picture is tried again with no other beside it, since
# memory is what mostly runs out; only then it counts as failed.

PIXELS_AT_ONCE = 100_000_000
"""Of the pictures that are worked on together; a larger one is alone. About 16 bytes each."""

_FEW, _SMALL = 3, 3_000_000
"""Fewer files, or fewer pixels in all, are done before workers have started."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def workers_for(pixels: Sequence[int], most: int | None) -> int:
    """How many processes to use for pictures of so many pixels; 1 is none but this one.

    Args:
        pixels: of each picture; 0 where it is not known.
        most: the wish of the user; None for one a core, and none for little work.
    """
    if most is None and (len(pixels) < _FEW or 0 < sum(pixels) < _SMALL):
        return 1
    return max(1, min(most or cores(), len(pixels)))


def in_processes(
    work: Callable[[Job], Any], jobs: Sequence[Job], pixels: Sequence[int], workers: int
) -> Generator[tuple[int, Any]]:
    """Results of all jobs as they come, each with the number of its job.

    A job whose worker died twice gives a `DataError`. Where no worker can be started, the work is
    done here. Close the iterator (`contextlib.closing`) to end the workers at once.

    Args:
        work: picklable, and raises nothing.
        jobs: picklable.
        pixels: of each job.
        workers: how many processes.
    """
    waiting = deque((n, min(max(pixels[n], 1), PIXELS_AT_ONCE)) for n in range(len(jobs)))
    tried: set[int] = set()
    team: list[_Worker] = []
    most = workers
    try:
        while waiting or any(worker.busy for worker in team):
            while len(team) < min(most, len(waiting) + sum(worker.busy for worker in team)):
                try:
                    team.append(_Worker.start(work, max(1, cores() // workers)))
                except OSError:  # no room for one more
                    most = len(team)
            if not team:
                break
            _assign(team, waiting, jobs)
            for worker in _ready(team):
                event = worker.receive()
                if event == _HELLO:
                    worker.greeted = True
                    continue
                number, worker.number = worker.number, None
                if event != _DIED:
                    assert number is not None
                    yield number, event
                    continue
                team.remove(worker)
                most -= not worker.greeted  # it cannot start here, nor would the next
                if number is None:
                    continue
                if not worker.greeted:
                    waiting.appendleft((number, worker.pixels))
                elif number not in tried:
                    tried.add(number)
                    waiting.append((number, PIXELS_AT_ONCE))  # alone, after all others
                else:
                    yield number, DataError(f"{jobs[number].name}: {worker.how_it_ended()}")
        for number, _ in sorted(waiting):
            yield number, work(jobs[number])
    finally:
        for worker in team:
            worker.end()


_HELLO, _DIED = "hello", "died"


@dataclass
class _Worker:
    """A process, this end of its pipe, and the job that it has."""

    process: SpawnProcess
    pipe: Connection
    number: int | None = None
    pixels: int = 0
    greeted: bool = False

    @classmethod
    def start(cls, work: Callable[[Job], Any], threads: int) -> _Worker:
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, threads), daemon=True)
        process.start()
        theirs.close()  # so that the end of the worker is seen here
        worker = cls(process, ours)
        with contextlib.suppress(OSError):
            ours.send(work)
        return worker

    @property
    def busy(self) -> bool:
        return self.number is not None

    def receive(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return _DIED

    def how_it_ended(self) -> str:
        self.process.join(timeout=5)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"its process was killed by signal {-code}; out of memory?"
        return f"its process ended with exit code {code}"

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _assign(team: Sequence[_Worker], waiting: deque[tuple[int, int]], jobs: Sequence[Job]) -> None:
    """Hand jobs to idle workers, in order, as far as the pixels at once allow."""
    for worker in team:
        if worker.busy or not waiting:
            continue
        number, pixels = waiting[0]
        others = [one.pixels for one in team if one.busy]
        if others and sum(others) + pixels > PIXELS_AT_ONCE:
            return
        waiting.popleft()
        worker.number, worker.pixels = number, pixels
        with contextlib.suppress(OSError):  # it is dead, and will be found so
            worker.pipe.send(jobs[number])


def _ready(team: Sequence[_Worker]) -> list[_Worker]:
    """Workers that have something to say; waits for one."""
    from multiprocessing.connection import wait

    ready = wait([worker.pipe for worker in team])
    return [worker for worker in team if worker.pipe in ready]


def _serve(pipe: Connection, threads: int) -> None:
    """What a worker does."""
    import multiprocessing

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    for name in _THREAD_VARIABLES:
        os.environ.setdefault(name, str(threads))
    with contextlib.suppress(EOFError, OSError):
        work = pipe.recv()
        pipe.send(_HELLO)
        while True:
            pipe.send(work(pipe.recv()))


def _end_with(parent: Any) -> None:
    """End this process when its parent is gone, in the middle of a picture, too."""
    parent.join()
    os._exit(1)
