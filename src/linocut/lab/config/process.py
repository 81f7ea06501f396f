"""Processes of the lab: how their threads wait, and pools of them for work on many pictures.

Importing this module sets how threads wait. OpenMP reads that once, when PyTorch loads it, so this
comes before PyTorch wherever a process starts: `linocut.lab.config.stage`, benchmarks, training
jobs; workers inherit it. What the user has set is left alone.

Workers are spawned, so each one is fresh and loads only what its function needs, and each uses one
thread, so that the machine is full and no more. None outlives the process that started it. How many
there are is a fact of the machine: `LINOCUT_WORKERS`, or one a core.

Work on many pictures may be kept while it is done: a run that was interrupted is gone on with where
it was, as far as the files that it read are still the same.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import Any, BinaryIO, NamedTuple, TypeVar

from linocut.errors import ConfigError

WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""Rounds that a waiting thread of GNU's OpenMP spins (some microseconds), and milliseconds of
LLVM's. Their own choices are 300,000 and 200: as soon as another process wants a core too, threads
that spin for the next piece of work keep those from running that have one."""

CHOICES = ("OMP_WAIT_POLICY", *WAITING)


def wait_without_spinning() -> None:
    """Set the environment, unless the user has chosen how threads wait."""
    if not any(name in os.environ for name in CHOICES):
        os.environ.update(WAITING)


def end_with_parent() -> None:
    """End this worker process as soon as the process that started it is gone.

    A worker that waits for its next task holds both ends of the queue, and would never learn.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: object) -> None:
    parent.join()  # type: ignore[attr-defined]
    os._exit(1)


wait_without_spinning()

Task = TypeVar("Task")
Result = TypeVar("Result")

VARIABLE = "LINOCUT_WORKERS"


def worker_count() -> int:
    """Processes to use: `LINOCUT_WORKERS`, or the cores that this process may run on.

    Raises:
        ConfigError: the variable is not a whole number above 0.
    """
    value = os.environ.get(VARIABLE, "")
    if not value:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"{VARIABLE} is {value!r}, expected a whole number above 0")
    return int(value)


class Kept(NamedTuple):
    """Where results are kept until all of them are there.

    Attributes:
        file: named by what all results depend on: numbers, code.
        content: a module-level function; hash of the files that the result of one task depends on.
    """

    file: pathlib.Path
    content: Callable[[Any], str]


def map_in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    label: str,
    kept: Kept | None = None,
    least: int = 1,
) -> list[Result]:
    """Apply a module-level function to every task in fresh processes; results in order.

    Args:
        function: what to do; like the tasks and results it has to be picklable.
        tasks: its arguments.
        label: the words beside the progress bar.
        kept: where results are kept for the case that this is interrupted; the file goes when all
            are there. None to keep none.
        least: fewer tasks than that are done in this process, as new ones take seconds to start.
    """
    done: list[Result] = _read(kept, tasks) if kept else []
    rest = tasks[len(done) :]
    told = functools.partial(_told, function, kept.content if kept else None)
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(_journal(kept.file)) if kept and rest else None
        results: Iterable[tuple[str, Result]] = map(told, rest)
        if len(rest) >= least and rest:
            stack.enter_context(_one_thread())
            workers = min(worker_count(), len(rest))
            context = get_context("spawn")
            pool = ProcessPoolExecutor(workers, context, initializer=_begin)
            results = stack.enter_context(pool).map(told, rest)
        for content, result in _with_progress(results, len(done), len(tasks), label):
            done.append(result)
            if journal:
                journal = _keep(journal, (content, result))
    if kept:
        with contextlib.suppress(OSError):
            kept.file.unlink(missing_ok=True)
            kept.file.parent.rmdir()
    return done


def _told(
    function: Callable[[Task], Result], content: Callable[[Task], str] | None, task: Task
) -> tuple[str, Result]:
    return content(task) if content else "", function(task)


def _read(kept: Kept, tasks: Sequence[Task]) -> list[Any]:
    """What an interrupted run has left of the first tasks, as far as their files are the same.

    The file then holds these and no more, so that it can be gone on with.
    """
    done: list[Any] = []
    if not kept.file.exists():
        return done
    with kept.file.open("r+b") as file:
        end = 0
        for task in tasks:
            try:
                content, result = pickle.load(file)
                if content != kept.content(task):
                    break
            except Exception:  # whatever a file ends in that was cut off, or a picture has become
                break
            done.append(result)
            end = file.tell()
        file.truncate(end)
    sys.stderr.write(f"{len(done)} of {len(tasks)} are done already\n")
    return done


@contextlib.contextmanager
def _journal(path: pathlib.Path) -> Iterator[BinaryIO | None]:
    """The file to add to, or None where there can be none: then nothing is kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        sys.stderr.write(f"{path}: {error.strerror}; an interrupted run would start anew\n")
        yield None
        return
    try:
        yield file
    finally:  # what fails inside is for the caller; what cannot be flushed is not
        with contextlib.suppress(OSError):
            file.close()


def _keep(journal: BinaryIO, result: tuple[str, object]) -> BinaryIO | None:
    try:
        pickle.dump(result, journal)
        journal.flush()
    except OSError as error:
        sys.stderr.write(f"{journal.name}: {error.strerror}; an interrupted run would start anew\n")
        return None
    return journal


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let processes that start meanwhile keep the libraries of numpy on one thread.

    They read the environment when they load, which in a spawned process is before any function of
    ours runs there.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _with_progress(
    results: Iterable[Result], done: int, total: int, label: str
) -> Iterable[Result]:
    from tqdm import tqdm

    progress: Iterable[Result] = tqdm(
        results, initial=done, total=total, desc=label, unit="task", leave=False
    )
    return progress


def _begin() -> None:
    """In a new worker: no worker outlives its parent, and PyTorch keeps to one thread, too."""
    end_with_parent()
    import torch

    torch.set_num_threads(1)
