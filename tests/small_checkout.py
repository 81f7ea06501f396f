"""A copy of this checkout whose whole pipeline takes a minute: small pictures, short trainings."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterator

from linocut.lab.data.dead_leaves import dead_leaves
from linocut.pictures.image import write_png
from test_smoke import commit, compose, copy_of_checkout

PICTURES = {"train": 2, "validation": 1, "test": 2}
MEASURED = ("coded.csv", "evaluation.csv", "history.csv", "anchors.csv")
"""Files that hold seconds."""
SHORT = (
    "profile=smoke",
    "data=folder",
    "data.folder=data/small",
    "prepare.crop_px=64",
    "prepare.dead_leaves=0",
    "train.crop_px=64",
    "train.base.crop_px=64",
    "train.base.megapixels=0.1",
    "train.megapixels=0.05",
    "pca.crops=4",
    "code.crops=2",
    "code.context_iterations=8",
    "code.rates_bpp=[0.5,1.5]",
    "code.tuning.megapixels=0.008",
    "code.tuning.crops=2",
    "anchors.codecs=[jpeg,jpeg2000]",
    "~twin.arch.cae",
    "~robustness.losses.l2",
)


def small_checkout(target: pathlib.Path, *overrides: str) -> pathlib.Path:
    """Fill the new folder `target`, with pictures in git, and commit."""
    target.mkdir()
    copy_of_checkout(target)
    seed = 0
    for split, count in PICTURES.items():
        folder = target / "data/small" / split
        folder.mkdir(parents=True)
        for _ in range(count):
            write_png(folder / f"leaves{seed}.png", dead_leaves(176, 176, seed))
            seed += 1
    compose(target, *SHORT, *overrides)
    commit(target)
    return target


def results(checkout: pathlib.Path) -> dict[str, str]:
    """Hashes of everything under artifacts/ but of the files that hold measured times."""
    return {
        path.relative_to(checkout).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _files(checkout / "artifacts")
        if path.name not in MEASURED
    }


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
