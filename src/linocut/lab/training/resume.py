"""Checkpoints of a training in progress: atomic, outside DVC's outputs, gone when it ends."""

import pathlib
import shutil
from typing import Any

import torch

from linocut.files import replacing


class ResumeState:
    """The last checkpoint of one training.

    Args:
        folder: named by a hash of everything the training depends on, so that no other training can
            pick it up.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.file = folder / "last.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint; a kill in the middle leaves the old one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as file:
            torch.save(state, file)

    def load(self) -> dict[str, Any] | None:
        """The last checkpoint, or None."""
        if not self.file.exists():
            return None
        state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
        return state

    def clear(self) -> None:
        """Forget it: the training is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
