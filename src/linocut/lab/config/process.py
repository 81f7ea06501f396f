"""Processes of the lab: how their threads wait, and pools of them for work on many pictures.

Importing this module sets how threads wait. OpenMP reads that once, when PyTorch loads it, so this
comes before PyTorch wherever a process starts: `linocut.lab.config.stage`, benchmarks, training
jobs; workers inherit it. What the user has set is left alone.

Workers are spawned, so each one is fresh and loads only what its function needs, and each uses one
thread, so that the machine is full and no more. None outlives the process that started it. How many
there are is a fact of the machine: `LINOCUT_WORKERS`, or one a core.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TypeVar

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


def map_in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, label: str
) -> list[Result]:
    """Apply a module-level function to every task in fresh processes; results in order.

    Args:
        function: what to do; like the tasks and results it has to be picklable.
        tasks: its arguments.
        label: the words beside the progress bar.
    """
    if not tasks:
        return []
    workers = min(worker_count(), len(tasks))
    context = get_context("spawn")
    with _one_thread(), ProcessPoolExecutor(workers, context, initializer=_begin) as pool:
        return list(_with_progress(pool.map(function, tasks), len(tasks), label))


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


def _with_progress(results: Iterable[Result], total: int, label: str) -> Iterable[Result]:
    from tqdm import tqdm

    progress: Iterable[Result] = tqdm(results, total=total, desc=label, unit="task", leave=False)
    return progress


def _begin() -> None:
    """In a new worker: no worker outlives its parent, and PyTorch keeps to one thread, too."""
    end_with_parent()
    import torch

    torch.set_num_threads(1)
