"""Checkpoints of a training in progress: atomic, outside DVC's outputs, gone when it ends."""

import io
import pathlib
import pickle
import shutil
import sys
from typing import Any

import torch

from linocut.errors import DataError
from linocut.files import write_atomically


class ResumeState:
    """The last checkpoint of one training.

    A training without a checkpoint is as good as one with it, unless it is killed: what cannot be
    written or read is said in one line, and the training goes on.

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
