"""Worker processes for work that is one function over many pictures.

Processes are spawned, so each one is fresh and loads only what its function needs, and each uses
one thread, so that the machine is full and no more. None outlives the process that started it. How
many there are is a fact of the machine: `LINOCUT_WORKERS`, or one a core.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from linocut.errors import ConfigError
from linocut.lab.config.process import end_with_parent

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
