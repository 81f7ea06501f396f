"""The machine that trains: which device, how pictures get there, and how memory is kept."""

import contextlib
import ctypes
import os
import pathlib
import sys
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from linocut.errors import ConfigError, DataError

DEVICE_VARIABLE = "LINOCUT_DEVICE"
CHECKPOINT_VARIABLE = "LINOCUT_CHECKPOINT_S"
COMPILE_VARIABLE = "LINOCUT_COMPILE"


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


def checkpoint_interval_s() -> float:
    """Seconds between the checkpoints of a training: LINOCUT_CHECKPOINT_S, or 1.

    Raises:
        ConfigError: it is no number of seconds.
    """
    text = os.environ.get(CHECKPOINT_VARIABLE) or "1"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        raise ConfigError(f"{CHECKPOINT_VARIABLE} is {text!r}, expected a number of seconds")
    return seconds


def compiles() -> bool:
    """Whether LINOCUT_COMPILE, `off` or `on`, asks for torch.compile.

    Raises:
        ConfigError: it says something else.
    """
    text = os.environ.get(COMPILE_VARIABLE) or "off"
    if text not in ("off", "on"):
        raise ConfigError(f"{COMPILE_VARIABLE} is {text!r}, expected off or on")
    return text == "on"


def read_crops(path: pathlib.Path) -> NDArray[np.uint8]:
    """Training crops, uint8 (n, s, s, 3), read from disk as they are used.

    Args:
        path: train.npy of a prepared folder.

    Raises:
        DataError: it is not there, or holds something else.
    """
    try:
        crops: NDArray[np.uint8] = np.load(path, mmap_mode="c")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected training crops") from None
    except (OSError, ValueError):
        raise DataError(f"{path}: no NumPy array, expected training crops") from None
    if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[3] != 3:
        raise DataError(f"{path}: {crops.dtype} {crops.shape}, expected crops, uint8 (n, s, s, 3)")
    return crops


def picture_batch(
    pictures: NDArray[np.uint8] | Tensor, device: torch.device | None = None
) -> Tensor:
    """uint8 (h, w, 3) or (n, h, w, 3) -> float (n, 3, h, w) in [0, 1], channels last in memory.

    Args:
        pictures: arrays are copied, as training crops are read-only maps of a file.
        device: where the batch shall lie; None for where the pictures are.
    """
    x = pictures if isinstance(pictures, Tensor) else torch.from_numpy(np.array(pictures))
    x = x if x.ndim == 4 else x[None]
    return x.to(device).permute(0, 3, 1, 2).float() / 255.0


def to_device(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers of the host on a device; a GPU takes them while the host goes on."""
    if device.type == "cuda":
        return numbers.pin_memory().to(device, non_blocking=True)
    return numbers.to(device)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep PyTorch and NumPy on the calling thread, for sums whose order has to be the same always.

    With several threads a sum is one of partial sums, as many as there are threads, and gradients
    of what is looked up by index are added up in whatever order the threads come. Fits are short,
    and what they give is in every file. The limits are those of the process, not of the thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of handing them back to the system after every tensor.

    Without it each large activation is mapped, zeroed page by page and unmapped again in every
    iteration.
    """
    _glibc("mallopt", -3, 1 << 30)  # M_MMAP_THRESHOLD
    _glibc("mallopt", -1, 1 << 30)  # M_TRIM_THRESHOLD


def return_freed_memory() -> None:
    """Ask glibc to hand back all freed blocks, those between blocks in use too.

    For loops that keep a little of each round: aligned blocks, as PyTorch asks for, hardly ever fit
    into the gaps, so that a process grows by several times what it keeps.
    """
    _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> None:
    """Call it where the C library is glibc; elsewhere there is nothing to do."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)
