"""An S3 server process on this machine, for tests."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """Address of a server with one empty bucket."""
    address = free_address()
    server = start_s3(bucket, address)
    try:
        yield address
    finally:
        server.kill()
        server.wait(timeout=30)


def free_address() -> str:
    """`http://127.0.0.1:PORT` of a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def start_s3(bucket: str, address: str) -> subprocess.Popen[bytes]:
    """A server at `address`, with one empty bucket; it knows nothing of the one before."""
    port = address.rpartition(":")[2]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    for _ in range(600):
        try:
            ask(f"{address}/{bucket}", "PUT")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
        else:
            return server
    server.kill()
    raise RuntimeError("the S3 server did not start within two minutes")


def ask(address: str, method: str = "GET", data: bytes | None = None) -> str:
    """What a server answers to a request without credentials."""
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(address, method=method, data=data, headers=plain)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def log_in(patch: pytest.MonkeyPatch) -> None:
    """Set credentials that the server takes, and hide all others."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)
