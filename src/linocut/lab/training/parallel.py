"""One training by several processes, a device each: every process a part of each batch.

    LINOCUT_PROCESSES=2 --by_processes--> rank 0, rank 1       (or torchrun, on several machines)
    batch of an iteration --part--> pictures of a rank --backward--> gradients
    gradients --mean over ranks--> the same step of the same optimiser everywhere

Every rank holds all weights and does whatever is not a part of a batch itself, so all decide alike,
from numbers that are means over the ranks; what one process makes up for all (a checkpoint that it
loads, a calibration) is handed to the others. The first rank alone writes. How many there are is a
fact of the machine: crops, steps and learning rates are those of the whole batch, and a training
may be interrupted with two processes and go on with one. With one process nothing here does
anything.

Gradients are summed after the backward pass, as one vector, and not by DistributedDataParallel:
that hooks into one `forward`, where a step calls halves of networks, learns other weights in every
phase and may skip the adversary's turn; and with a million weights there is nothing to overlap.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from linocut.errors import ConfigError, LinocutError
from linocut.lab.training.machine import pick_device

PROCESSES_VARIABLE = "LINOCUT_PROCESSES"
HOST = "127.0.0.1"

Anything = TypeVar("Anything")


class RankError(LinocutError):
    """A process of a training ended before its time."""


def by_processes(work: Callable[..., None]) -> Callable[..., None]:
    """The same work, done by as many processes as LINOCUT_PROCESSES names; see `run`."""

    @functools.wraps(work)
    def start(*arguments: Any, **named: Any) -> None:
        run(functools.partial(work, **named), *arguments)

    return start


def run(work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(*arguments)`, in as many processes as LINOCUT_PROCESSES names, and wait for them.

    Processes that torchrun has started are the ranks themselves.

    Args:
        work: a function that other processes find by its name.
        arguments: that can be pickled.

    Raises:
        ConfigError: the variable is no number of processes that this machine can give a device.
        RankError: a process was killed.
        Exception: what `work` raises in any of them.
    """
    if "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ:  # torchrun
        _join("env://", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        try:
            work(*arguments)
        finally:
            dist.destroy_process_group()
        return
    number = wanted()
    if number == 1:
        work(*arguments)
        return
    store = _store(0, is_master=True)
    problems = multiprocessing.get_context("spawn").SimpleQueue()
    ranks = start_processes(  # type: ignore[no-untyped-call]
        _work, (number, store.port, problems, work, arguments), nprocs=number, join=False
    )
    try:
        while not ranks.join():
            pass
    except (ProcessRaisedException, ProcessExitedException) as error:
        if not problems.empty():
            raise problems.get() from None
        if isinstance(error, ProcessExitedException):
            how = f"status {error.exit_code}"
            if error.exit_code < 0:
                how = signal.Signals(-error.exit_code).name
            raise RankError(
                f"process {error.error_index} of {number} ended with {how} in the middle of a "
                "training; the last checkpoint is kept"
            ) from None
        raise
    finally:
        for process in ranks.processes:
            process.terminate()


def wanted() -> int:
    """Number of processes that LINOCUT_PROCESSES names, or 1.

    Raises:
        ConfigError: it is no positive integer, or more than there are GPUs where one is used.
    """
    text = os.environ.get(PROCESSES_VARIABLE) or "1"
    if not (text.isdecimal() and text.isascii() and int(text) > 0):
        raise ConfigError(f"{PROCESSES_VARIABLE} is {text!r}, expected a number of processes")
    number = int(text)
    if number > 1 and pick_device().type == "cuda" and number > torch.cuda.device_count():
        raise ConfigError(
            f"{PROCESSES_VARIABLE} is {number}, expected at most {torch.cuda.device_count()}, "
            "one for each GPU"
        )
    return number


def _work(
    rank: int, number: int, port: int, problems: Any, work: Callable[..., None], arguments: Any
) -> None:
    """What a process that `run` started does."""
    store = _store(port, is_master=False)
    os.environ["LOCAL_RANK"] = str(rank)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # whatever the name of this host means
    torch.set_num_threads(max(1, torch.get_num_threads() // number))
    _join(store, rank, number)
    try:
        work(*arguments)
    except (LinocutError, OSError) as error:
        problems.put(error)
        sys.exit(1)
    dist.destroy_process_group()


def _store(port: int, *, is_master: bool) -> Any:
    """Where the ranks meet; port 0 is one that nobody uses."""
    return dist.TCPStore(  # type: ignore[attr-defined]
        HOST, port, is_master=is_master, wait_for_workers=False
    )


def _join(place: Any, rank: int, number: int) -> None:
    """Become one of the ranks, on the GPU of its number where one is used."""
    backend = "gloo"
    if pick_device().type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "nccl"
    how: dict[str, Any] = {"init_method": place} if isinstance(place, str) else {"store": place}
    dist.init_process_group(backend, rank=rank, world_size=number, **how)


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def part_of(batch: int) -> slice:
    """The pictures of a batch that are this rank's.

    Raises:
        ConfigError: the batch cannot be split evenly.
    """
    if batch % count():
        raise ConfigError(
            f"a batch of {batch} pictures cannot be split evenly over {count()} processes "
            f"({PROCESSES_VARIABLE}, or torchrun's); expected a divisor of {batch}"
        )
    size = batch // count()
    return slice(rank() * size, (rank() + 1) * size)


def seed_noise(seed: int) -> None:
    """Seed PyTorch's generator; other noise for the pictures of every rank."""
    torch.manual_seed(seed + rank() * 2**48)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Let every gradient be the mean over the ranks, which have the same ones."""
    if count() > 1:
        average([one.grad for one in parameters if one.grad is not None])


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Let tensors be the means over the ranks, in place and as one vector."""
    if count() == 1 or not tensors:
        return
    together = torch.cat([one.reshape(-1).float() for one in tensors])
    dist.all_reduce(together)
    together /= count()
    means = torch.split(together, [one.numel() for one in tensors])
    for one, mean in zip(tensors, means, strict=True):
        one.copy_(mean.view(one.shape))


def average_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """Numbers by name, each the mean over the ranks."""
    if count() == 1:
        return dict(numbers)
    means = torch.tensor(list(numbers.values()), dtype=torch.float64)
    return dict(zip(numbers, (of_all(means).mean(0)).tolist(), strict=True))


def anywhere(flags: Tensor) -> bool:
    """Whether any flag is set on any rank."""
    found = flags.any()
    if count() > 1:
        found = of_all(found.view(1)).any()
    return bool(found)


def of_all(tensor: Tensor) -> Tensor:
    """The tensors of all ranks, of one shape, stacked in their order: (ranks, ...)."""
    if count() == 1:
        return tensor[None]
    there = tensor.to("cuda") if dist.get_backend() == "nccl" else tensor
    found = [torch.empty_like(there) for _ in range(count())]
    dist.all_gather(found, there.contiguous())
    return torch.stack(found).to(tensor.device)


def of_first(thing: Anything) -> Anything:
    """What the first rank has; of the others it is ignored."""
    if count() == 1:
        return thing
    things = [thing]
    dist.broadcast_object_list(things, src=0)
    return things[0]
