"""Work of a batch in several processes at once.

    here:    jobs, in order --pipe--> worker      results, as they come <--pipe-- worker
    worker:  the work, unpickled once; then job by job until the pipe or its parent ends

Workers are fresh processes (spawned, never forked): nothing that a network's threads hold is
carried over. Each has few threads, and the pictures that are worked on together have a limited
number of pixels, so that memory stays bounded. Only standard modules are imported here.

The executors of the standard library and of joblib end as a whole when one worker is killed, and do
not say which picture it had. Here that picture is tried again with no other beside it, since memory
is what mostly runs out; only then it counts as failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linocut.cli.files import Job
from linocut.errors import DataError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

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
