"""Files of a command: what is read, what results are called, and many of them worked through.

    inputs, output --plan--> jobs (source, target), the results' names all different
    source or standard input --read--> bytes        bytes --deliver--> target or standard output
    jobs --work, here or in worker processes--> outcomes --deliver--> files
                                                         --report, in order--> standard error

Inputs are plain files, folders, globs, and `-` for the streams. Whatever one picture raises is one
line with its name, and the others go on; only an interrupt ends a batch. Each result appears whole
as soon as it is there, and none takes the place of another of the same batch.
"""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import sys
import threading
import time
import traceback
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linocut.errors import DataError, LinocutError
from linocut.files import write_atomically

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

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


# --- batches: one job at a time or many at once, and what became of them --------------------------

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
