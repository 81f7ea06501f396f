"""What every process of the lab is: its threads wait without spinning, and it ends with its parent.

Importing this module sets how threads wait. OpenMP reads that once, when PyTorch loads it, so this
comes before PyTorch wherever a process starts: `linocut.lab.config.stage`, benchmarks, training
jobs; workers inherit it. What the user has set is left alone.
"""

import os
import threading
from multiprocessing import parent_process

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
