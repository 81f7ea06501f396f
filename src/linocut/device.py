"""The machine that trains: which device, and how its memory is kept."""

import contextlib
import ctypes
import os
import sys

import torch

from linocut.errors import ConfigError

DEVICE_VARIABLE = "LINOCUT_DEVICE"


def pick_device() -> torch.device:
    """The device that LINOCUT_DEVICE names: `cpu`, `cuda`, or `auto`, the GPU where there is one.

    Raises:
        ConfigError: it names something else, or a GPU that is not there.
    """
    name = os.environ.get(DEVICE_VARIABLE) or "auto"
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"{DEVICE_VARIABLE} is {name!r}, expected auto, cpu or cuda")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError(f"{DEVICE_VARIABLE} is 'cuda', but torch {torch.__version__} sees no GPU")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of handing them back to the system after every tensor.

    Without it each large activation is mapped, zeroed page by page and unmapped again in every
    iteration.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
