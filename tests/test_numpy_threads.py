"""NumPy's threads stay out of PyTorch's way while a codec works, and come back afterwards."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from linocut.codec.codec import Codec
from linocut.errors import BitstreamError
from linocut.numpy_threads import numpy_on_one_thread


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
    with threadpool_limits(limits=2, user_api="blas"):
        yield


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
