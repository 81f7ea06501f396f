"""The device is the machine's choice unless a variable makes it."""

import subprocess
import sys

import pytest
import torch

from linocut.errors import ConfigError
from linocut.lab.training.machine import DEVICE_VARIABLE, keep_freed_memory, pick_device


@pytest.mark.parametrize(("there", "name", "kind"), [
    (False, "", "cpu"), (False, "auto", "cpu"), (False, "cpu", "cpu"),
    (True, "", "cuda"), (True, "auto", "cuda"), (True, "cuda", "cuda"), (True, "cpu", "cpu"),
])  # fmt: skip
def test_auto_takes_the_gpu_where_there_is_one(monkeypatch, there, name, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setenv(DEVICE_VARIABLE, name)
    assert pick_device().type == kind


@pytest.mark.parametrize(("name", "message"), [
    ("tpu", "LINOCUT_DEVICE is 'tpu', expected auto, cpu or cuda"),
    ("cuda", "sees no GPU"),
])  # fmt: skip
def test_what_is_not_there_is_refused(monkeypatch, name, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv(DEVICE_VARIABLE, name)
    with pytest.raises(ConfigError, match=message):
        pick_device()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can hand memory back")
def test_freed_blocks_between_used_ones_go_back():
    """Every second block of many is freed: none of them is at the end of the heap."""
    child = """
import pathlib
from linocut.lab.training.machine import return_freed_memory
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1])
blocks = [bytearray(50_000) for _ in range(4000)]
del blocks[::2]
before = resident()
return_freed_memory()
print(before - resident())
"""
    pages = int(
        subprocess.run([sys.executable, "-c", child], capture_output=True, check=True).stdout
    )
    assert pages > 50_000_000 // 4096


def test_keeping_memory_is_harmless():
    keep_freed_memory()
    keep_freed_memory()
