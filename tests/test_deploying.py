"""What docs/deploying.md says about servers, threads and processes."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from linocut.codec.codec import Codec
from linocut.lab.data.dead_leaves import dead_leaves

ROOT = Path(__file__).resolve().parents[1]
LEAVES = dead_leaves(96, 120, seed=4)


@pytest.fixture(scope="module")
def codec(codec_folder: Path) -> Codec:
    return Codec.load(codec_folder)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of the example server, in a process of its own."""
    command = [sys.executable, str(ROOT / "docs/examples/server.py"), "0"]
    environment = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def post(address: str, content: bytes) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(address, content, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_server_compresses_and_decompresses(address: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(LEAVES).save(buffer, "PNG")
    with ThreadPoolExecutor(4) as pool:  # at once
        files = list(
            pool.map(lambda _: post(f"{address}/compress?quality=70", buffer.getvalue()), "1234")
        )
    assert {status for status, _ in files} == {200}
    assert len({data for _, data in files}) == 1
    status, png = post(f"{address}/decompress", files[0][1])
    assert status == 200
    decoded = np.asarray(Image.open(io.BytesIO(png))).astype(float)
    assert np.square(decoded - LEAVES).mean() < 100


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/compress", 422, "picture: not a picture that Pillow can read"),
        ("/compress?quality=many", 422, "could not convert"),
        ("/decompress", 422, "not a .lino file"),
        ("/elsewhere", 404, "POST /compress or /decompress"),
    ],
)
def test_the_server_says_what_is_wrong(path: str, status: int, message: str, address: str) -> None:
    found, text = post(address + path, b"something else")
    assert (found, message in text.decode()) == (status, True)


def test_a_codec_can_be_pickled(codec: Codec) -> None:
    again = pickle.loads(pickle.dumps(codec))
    data = codec.compress(LEAVES, step=20.0)
    assert again.compress(LEAVES, step=20.0) == data
    assert np.array_equal(again.decompress(data), codec.decompress(data))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pool_of_processes_uses_the_codec_after_its_parent_did(method: str, codec: Codec) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    data = codec.compress(LEAVES, step=20.0)
    with multiprocessing.get_context(method).Pool(2) as pool:
        running = pool.map_async(_compress, [codec] * 4)
        assert running.get(timeout=120) == [data] * 4
    assert codec.compress(LEAVES, step=20.0) == data


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_uses_the_codec_that_it_inherits(codec: Codec) -> None:
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    data = codec.compress(LEAVES, step=20.0)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=lambda: theirs.send(_compress(codec)))
    child.start()
    assert ours.poll(timeout=60)
    assert ours.recv() == data
    child.join(timeout=30)
    assert child.exitcode == 0


def _compress(codec: Codec) -> bytes:
    return codec.compress(LEAVES, step=20.0)


def test_threads_share_a_codec(codec: Codec) -> None:
    data = codec.compress(LEAVES, step=20.0)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: codec.compress(LEAVES, step=20.0), range(8))) == [data] * 8


def test_the_container_copies_what_the_checkout_has() -> None:
    text = (ROOT / "docs/examples/Dockerfile").read_text(encoding="utf-8")
    copied = re.search(r"^COPY (pyproject.*) \./$", text, re.MULTILINE)
    assert copied is not None
    assert all((ROOT / name).exists() for name in copied[1].split())
