"""What keeps a training from being lost: checkpoints, and an end as soon as numbers are not finite.

Checkpoints are atomic, outside DVC's outputs, and gone when the training ends. A training that
leaves the finite numbers ends there, and not with weights of NaN.
"""

import io
import math
import pathlib
import pickle
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from linocut.errors import DataError, LinocutError
from linocut.files import write_atomically
from linocut.lab.training import parallel


class ResumeState:
    """The last checkpoint of one training.

    A training without a checkpoint is as good as one with it, unless it is killed: what cannot be
    written or read is said in one line, and the training goes on. Of the processes of one training
    the first has it.

    Args:
        folder: named by a hash of everything the training depends on, so that no other training can
            pick it up.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.file = folder / "last.pt"
        self._complained = False

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint; a kill in the middle, or a full disk, leaves the old one."""
        if not parallel.is_first():
            return
        content = io.BytesIO()
        torch.save(state, content)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.file, content.getvalue())
        except (DataError, OSError) as error:
            if not self._complained:
                size_mb = len(content.getvalue()) / 1e6
                _say(
                    f"no checkpoint of {size_mb:.1f} MB: {_reason(error, self.file)} "
                    f"({_disk(self.folder)}); the training goes on"
                )
            self._complained = True
        else:
            self._complained = False

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, or None."""
        return parallel.of_first(self._read() if parallel.is_first() else None)

    def _read(self) -> dict[str, Any] | None:
        if not self.file.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            why = str(error).partition("\n")[0]
            _say(
                f"{self.file}: not a checkpoint that can be read ({why}); the training starts anew"
            )
            return None
        return state

    def clear(self) -> None:
        """Forget it: the training is complete."""
        if parallel.is_first():
            shutil.rmtree(self.folder, ignore_errors=True)


def _reason(error: Exception, file: pathlib.Path) -> str:
    """In one line that names the file."""
    text = str(error) if isinstance(error, DataError) else getattr(error, "strerror", str(error))
    return text if str(file) in text else f"{file}: {text}"


def _disk(folder: pathlib.Path) -> str:
    """The disk that holds a folder, which need not exist, and what is free there."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    mount = next(path for path in (there.absolute(), *there.absolute().parents) if path.is_mount())
    return f"disk {mount}, {shutil.disk_usage(there).free / 1e6:.0f} MB free"


def _say(line: str) -> None:
    sys.stderr.write(f"\n{line}\n")  # below the progress bar


class DivergedError(LinocutError):
    """A number of a training is not finite."""


def require_finite(
    numbers: Mapping[str, float],
    iteration: int,
    iterations: int,
    learning_rate: float,
    step: Tensor | None = None,
) -> None:
    """Pass finite numbers.

    Args:
        numbers: by name.
        iteration: counted from 0.
        iterations: of the whole training.
        learning_rate: of the iteration.
        step: quantisation steps of its batch, grey levels.

    Raises:
        DivergedError: one is infinite or no number.
    """
    for name, number in numbers.items():
        if not math.isfinite(number):
            steps = "" if step is None else f"steps {step.min():.3g} to {step.max():.3g}, "
            raise DivergedError(
                f"the training diverged: {name} is {number} in iteration {iteration + 1} of "
                f"{iterations} ({steps}learning rate {learning_rate:.3g}); a lower learning rate "
                "may help"
            )


@torch.no_grad()
def on_host(numbers: Mapping[str, Tensor]) -> dict[str, float]:
    """Single numbers by name, in one transfer: a GPU is waited for once and not once for each.

    With several processes they are means over all of them.
    """
    together = torch.stack([number.detach().float() for number in numbers.values()])
    parallel.average([together])
    return dict(zip(numbers, together.tolist(), strict=True))


@torch.no_grad()
def largest(tensors: Iterable[Tensor]) -> float:
    """The largest magnitude in some tensors; NaN if any value is NaN, 0 for no tensors."""
    found = [tensor.abs().max().float() for tensor in tensors if tensor.numel()]
    return float(torch.stack(found).max()) if found else 0.0
