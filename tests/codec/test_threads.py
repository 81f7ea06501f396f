"""NumPy's threads stay out of the network's way while a codec works, and come back afterwards."""

import concurrent.futures
import multiprocessing
import os
import threading
import warnings
from multiprocessing.connection import Connection

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from linocut.codec.codec import Codec
from linocut.codec.transforms import numpy_on_one_thread
from linocut.errors import BitstreamError


def blas_threads() -> int:
    """Threads of the BLAS library that NumPy uses, 0 where it has none that can be asked.

    SciPy comes with one of its own, which nothing here uses.
    """
    return max(
        (
            one["num_threads"]
            for one in threadpool_info()
            if one["user_api"] == "blas" and "scipy.libs" not in one["filepath"]
        ),
        default=0,
    )


@pytest.fixture(autouse=True)
def two_threads():
    """Two threads to begin with, whatever the environment says."""
    if not blas_threads():
        pytest.skip("NumPy's linear algebra here has no number of threads to set")
    limits = threadpool_limits(limits=2, user_api="blas")
    with threadpool_limits(limits=None):
        pass  # lets other threads set the number, too
    yield
    limits.restore_original_limits()


def test_one_thread_inside_and_all_afterwards() -> None:
    with numpy_on_one_thread():
        assert blas_threads() == 1
        with numpy_on_one_thread():
            assert blas_threads() == 1
        assert blas_threads() == 1
    assert blas_threads() == 2


def test_all_come_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), numpy_on_one_thread():
        1 / 0  # noqa: B018
    assert blas_threads() == 2


def test_a_codec_keeps_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec.load()
    seen = []
    for name in ("encode_counted", "estimate_bits", "decode"):
        real = getattr(codec.coder, name)

        def spy(*args, real=real, **options):
            seen.append(blas_threads())
            return real(*args, **options)

        monkeypatch.setattr(codec.coder, name, spy)
    picture = np.full((32, 48, 3), 99, np.uint8)
    analysed = codec.analyse(picture)
    codec.estimate_bytes(analysed, step=30.0, effort=0)
    data = codec.encode(analysed, 30.0)
    codec.decompress(data)
    codec.decode_symbols(data)
    assert len(seen) >= 4
    assert set(seen) == {1}
    with pytest.raises(BitstreamError):
        codec.decompress(data[:20])
    assert blas_threads() == 2


def test_whoever_leaves_last_puts_the_threads_back() -> None:
    """The first to enter leaves first, in another thread than the others."""
    entered, left = threading.Event(), threading.Event()

    def first() -> None:
        with numpy_on_one_thread():
            entered.set()
            assert second_in.wait(20)
        left.set()

    second_in = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(20)
    with numpy_on_one_thread():
        second_in.set()
        assert left.wait(20)
        assert blas_threads() == 1, "one is still inside"
    thread.join()
    assert blas_threads() == 2


def test_many_threads_of_a_pool_leave_everything_as_it_was() -> None:
    codec = Codec.load(threads=1)
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    expected = codec.compress(picture, step=30.0)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda step: codec.compress(picture, step=step), [30.0] * 12))
    assert set(made) == {expected}
    assert blas_threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_codec_works_in_other_processes_whichever_way_they_start(start: str) -> None:
    codec = Codec.load(threads=1)
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    expected = codec.compress(picture, step=30.0)  # its sessions have threads from here on
    context = multiprocessing.get_context(start)
    with numpy_on_one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=compress_there, args=(codec, picture, sender))
        child.start()
    assert receiver.poll(60), "the child hangs"
    data, inside, afterwards = receiver.recv()
    child.join(60)
    assert data == expected
    assert (inside, child.exitcode) == (1, 0)
    assert afterwards > 1 or start == "spawn"


def compress_there(codec: Codec, picture: np.ndarray, sender: Connection) -> None:
    with numpy_on_one_thread():
        inside = blas_threads()
    sender.send((codec.compress(picture, step=30.0), inside, blas_threads()))
