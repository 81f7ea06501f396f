"""NumPy's own threads, which would be in the way of the network's."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def numpy_on_one_thread() -> Iterator[None]:
    """Keep NumPy's matrix products on the calling thread.

    Threads of a BLAS library wait for the next product by spinning, for some milliseconds. The
    codec's small products hardly gain from them, and a network that follows finds the cores taken.

    The limit is one of the process: the first thread that enters sets it, and the last that leaves
    puts back what the first one found, in whatever order they leave. Where another thread is inside
    of `threadpoolctl.threadpool_limits`, its limit stays. A process forked in the middle starts
    without users, and with the number of threads as it was before them.
    """
    limit = _LIMIT
    limit.enter()
    try:
        yield
    finally:
        limit.leave()


class _Limit:
    """Counts its users, who want one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: Any = None

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = _libraries().limit(limits=1, user_api="blas")
                _let_go()
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self.restore()

    def restore(self) -> None:
        if self._before is not None:
            self._before.restore_original_limits()
            _let_go()
            self._before = None


_LIMIT = _Limit()


def _start_anew() -> None:
    """In a forked process: no thread of the other one will ever leave."""
    global _LIMIT
    inherited, _LIMIT = _LIMIT, _Limit()
    inherited.restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


def _let_go() -> None:
    """Let other threads set the number, too: threadpoolctl 3.8 keeps it for the last that did."""
    with _libraries().limit(limits=None):
        pass


@functools.cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
