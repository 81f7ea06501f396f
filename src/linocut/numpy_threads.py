"""NumPy's own threads, which would be in the way of PyTorch's."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def numpy_on_one_thread() -> Iterator[None]:
    """Keep NumPy's matrix products on the calling thread.

    Threads of a BLAS library wait for the next product by spinning, for some milliseconds. The
    entropy coder's small products hardly gain from them, and a network of PyTorch's that follows
    finds the cores taken. The limit is one of the process, not of the thread.
    """
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
