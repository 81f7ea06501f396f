"""Trainings on another machine: pack a job, run it where there is a GPU, take the networks home.

    python -m linocut.lab.training.job pack job.zip      here: parameters and pictures
    python -m linocut.lab.training.job run job.zip results.zip [--minutes 9]    there
    python -m linocut.lab.training.job fetch results.zip    here: into artifacts/
    dvc commit -f pretrain train      DVC takes the networks for its own; `dvc repro` goes on

The other machine needs this package and torch, neither DVC nor MLflow nor the network. A run that
is cut short by `--minutes` keeps what is finished, and checkpoints of the rest; given the same
results.zip, the next run goes on from there. The recipe is that of the stages: the same crops, the
same numbers. Both files name the crops and the numbers that they belong to:

    job.zip       about.json, params.yaml, train/*.webp, validation/*.png
    results.zip   about.json, pretrained/ARCH/, trained/CELL/, state/ of what is not finished
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linocut.errors import DataError, LinocutError
from linocut.files import sha256_of, write_atomically
from linocut.lab.config.params import Params, load_params
from linocut.lab.config.parse import plain
from linocut.lab.config.process import end_with_parent
from linocut.lab.training.recipes import TrainingPlace, train_base, train_cell
from linocut.pictures.image import read_image

ABOUT = "about.json"
MOST_MB = 60.0


class OutOfTimeError(Exception):
    """The run has used its minutes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack, run or fetch; 0, or 1 after one line that says why not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("pack", help="write a job")
    one.add_argument("job", type=pathlib.Path)
    one.add_argument("--most-mb", type=float, default=MOST_MB, help="refuse a larger job")
    one.add_argument("--root", type=pathlib.Path, default=pathlib.Path(), help="the checkout")
    two = actions.add_parser("run", help="train every cell of a job")
    two.add_argument("job", type=pathlib.Path)
    two.add_argument("results", type=pathlib.Path, help="begun ones are gone on with")
    two.add_argument("--minutes", type=float, default=0.0, help="stop after so many; 0: never")
    two.add_argument("--at-once", type=int, default=1, help="cells trained beside each other")
    three = actions.add_parser("fetch", help="put results where the stages put them")
    three.add_argument("results", type=pathlib.Path)
    three.add_argument("--root", type=pathlib.Path, default=pathlib.Path(), help="the checkout")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.action == "pack":
            print(pack(chosen.root, chosen.job, chosen.most_mb))
        elif chosen.action == "run":
            print(run(chosen.job, chosen.results, chosen.minutes, chosen.at_once))
        else:
            print(fetch(chosen.root, chosen.results))
    except (LinocutError, OSError, zipfile.BadZipFile) as error:
        print(f"job: {error}", file=sys.stderr)
        return 1
    return 0


def pack(root: pathlib.Path, job: pathlib.Path, most_mb: float = MOST_MB) -> str:
    """Write a job from params.yaml and artifacts/prepared/ of the checkout `root`.

    Raises:
        DataError: nothing is prepared, or the job is larger than `most_mb` (10^6 bytes).
    """
    load_params(root / "params.yaml")
    prepared = root / "artifacts/prepared"
    if not (prepared / "train.npy").is_file():
        raise DataError(f"{prepared} holds no train.npy: run `dvc repro prepare` first")
    crops: NDArray[np.uint8] = np.load(prepared / "train.npy", mmap_mode="r")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.write(root / "params.yaml", "params.yaml")
        for number, crop in enumerate(crops):
            picture = io.BytesIO()
            Image.fromarray(crop).save(picture, "WEBP", lossless=True, quality=60, method=2)
            archive.writestr(f"train/{number:06}.webp", picture.getvalue())
            if file.tell() > most_mb * 1e6:
                raise DataError(
                    f"{number} of {len(crops)} crops fill {most_mb:g} MB: set prepare.crops to "
                    f"{number * 9 // 10}, or --most-mb higher"
                )
        for path in sorted((prepared / "validation").glob("*.png")):
            archive.write(path, f"validation/{path.name}")
        archive.writestr(ABOUT, json.dumps({"crops": sha256_of(np.ascontiguousarray(crops).data)}))
    write_atomically(job, file.getvalue())
    return f"{job}: {len(crops)} crops, {job.stat().st_size / 1e6:.1f} MB"


def run(job: pathlib.Path, results: pathlib.Path, minutes: float = 0.0, at_once: int = 1) -> str:
    """Train the base networks and all cells of a job, from where `results` stands.

    Args:
        job: what `pack` wrote.
        results: networks and histories by cell, and checkpoints of what is not finished; replaced
            after every network.
        minutes: after which no training goes on; 0 for no limit.
        at_once: cells that train beside each other.

    Returns:
        What is done, and what is left.
    """
    deadline = _clock() + 60 * minutes if minutes else float("inf")
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        _open_job(job, work)
        if results.is_file():
            _extract(results, work)
            _same_job(json.loads((work / ABOUT).read_text(encoding="utf-8")), job)
        params = load_params(work / "params.yaml")
        tasks = [_Task(work, arch, None, deadline) for arch in params.arch]
        cells = [_Task(work, arch, loss, deadline) for arch in params.arch for loss in params.loss]
        for group in (tasks, cells):
            for _ in _train_all([task for task in group if not task.done], at_once):
                _write_results(work, job, results)
        done = [task.name for task in cells if task.done]
        left = [task.name for task in (*tasks, *cells) if not task.done]
        lines = [f"trained: {', '.join(done) or 'nothing'}"]
        if left:
            lines.append(f"left, run again with {results}: {', '.join(left)}")
        return "\n".join(lines)


def fetch(root: pathlib.Path, results: pathlib.Path) -> str:
    """Put finished networks into artifacts/ of the checkout `root`.

    Raises:
        DataError: the results are of other crops, or of other parameters than params.yaml's, or
            networks are missing: DVC would take those of an earlier training for these.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        _extract(results, work)
        about = json.loads((work / ABOUT).read_text(encoding="utf-8"))
        crops = np.load(root / "artifacts/prepared/train.npy", mmap_mode="r")
        if about["crops"] != sha256_of(np.ascontiguousarray(crops).data):
            raise DataError(f"{results} was trained on other crops than artifacts/prepared holds")
        params = load_params(root / "params.yaml")
        here = _numbers(params)
        for key, value in about["params"].items():
            if here.get(key) != value:
                raise DataError(
                    f"{results} was trained with {key} {value}, params.yaml has {here.get(key)}"
                )
        names = [f"pretrained/{arch}" for arch in params.arch]
        names += [f"trained/{cell}" for cell in params.grid.cells]
        missing = [name for name in names if not (work / name / "history.csv").exists()]
        if missing:
            raise DataError(f"{results} lacks {', '.join(missing)}: run the job to its end first")
        for name in names:
            target = root / "artifacts" / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(work / name, target)
    return f"fetched {', '.join(names)}; now: dvc commit -f pretrain train"


@dataclass(frozen=True)
class _Task:
    """One training: a base network, or a cell."""

    work: pathlib.Path
    arch: str
    loss: str | None
    deadline: float

    @property
    def name(self) -> str:
        return f"{self.arch}-{self.loss}" if self.loss else self.arch

    @property
    def out(self) -> pathlib.Path:
        return self.work / ("trained" if self.loss else "pretrained") / self.name

    @property
    def done(self) -> bool:
        return (self.out / "history.csv").exists()  # the last file that a training writes


def _train_all(tasks: Sequence[_Task], at_once: int) -> Iterator[None]:
    """Train some networks; yields after each."""
    if at_once <= 1 or len(tasks) <= 1:
        for task in tasks:
            _train(task)
            yield
        return
    with ProcessPoolExecutor(at_once, get_context("spawn"), end_with_parent) as pool:
        for future in [pool.submit(_train, task) for task in tasks]:
            future.result()
            yield


def _train(task: _Task) -> None:
    if _clock() > task.deadline:
        return
    params = load_params(task.work / "params.yaml")
    state = task.work / "state" / task.name
    place = TrainingPlace(task.work / "prepared", task.out, state)

    def log(_: Mapping[str, float], at: float) -> None:
        if at > 0 and _clock() > task.deadline:
            raise OutOfTimeError

    try:
        if task.loss is None:
            train_base(params, task.arch, place, log)
        else:
            base = task.work / "pretrained" / task.arch
            if (base / "history.csv").exists():
                train_cell(params, task.arch, task.loss, base, place, log)
    except OutOfTimeError:
        shutil.rmtree(task.out, ignore_errors=True)


def _open_job(job: pathlib.Path, work: pathlib.Path) -> None:
    """The prepared data of a job as the trainings read it."""
    prepared = work / "prepared"
    (prepared / "validation").mkdir(parents=True)
    with zipfile.ZipFile(job) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train/"))
        if not names or not {ABOUT, "params.yaml"} <= set(archive.namelist()):
            raise DataError(f"{job} is no job: `training_job pack` writes one")
        crops = np.stack([read_image(io.BytesIO(archive.read(name))) for name in names])
        expected = json.loads(archive.read(ABOUT))["crops"]
        found = sha256_of(np.ascontiguousarray(crops).data)
        if found != expected:
            raise DataError(f"{job} is damaged: its crops have the digest {found}")
        np.save(prepared / "train.npy", crops)
        for name in archive.namelist():
            if name.startswith("validation/"):
                (prepared / "validation" / pathlib.PurePosixPath(name).name).write_bytes(
                    archive.read(name)
                )
        (work / "params.yaml").write_bytes(archive.read("params.yaml"))


def _same_job(about: Mapping[str, object], job: pathlib.Path) -> None:
    """Refuse results of another job."""
    with zipfile.ZipFile(job) as archive:
        crops = json.loads(archive.read(ABOUT))["crops"]
    if about["job"] != sha256_of(job):
        what = "parameters" if about["crops"] == crops else "crops"
        raise DataError(f"the results are those of a job with other {what} than {job}")


def _write_results(work: pathlib.Path, job: pathlib.Path, results: pathlib.Path) -> None:
    """Everything that is finished, and checkpoints of the rest, as one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(job) as archive:
        crops = json.loads(archive.read(ABOUT))["crops"]
    about = {
        "crops": crops,
        "job": sha256_of(job),
        "params": _numbers(load_params(work / "params.yaml")),
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ABOUT, json.dumps(about))
        for kind in ("pretrained", "trained", "state"):
            for path in sorted((work / kind).rglob("*")):
                if path.is_file() and not path.name.startswith("."):
                    archive.write(path, path.relative_to(work).as_posix())
    write_atomically(results, file.getvalue())


def _extract(results: pathlib.Path, work: pathlib.Path) -> None:
    """Unpack results into the folder `work`."""
    with zipfile.ZipFile(results) as archive:
        if ABOUT not in archive.namelist() or "params" not in json.loads(archive.read(ABOUT)):
            raise DataError(f"{results} holds no results: `training_job run` writes them")
        archive.extractall(work)


def _numbers(params: Params) -> dict[str, object]:
    """What a training depends on, beside its crops."""
    found: dict[str, object] = {"seed": params.seed, "train": plain(params.train)}
    found |= {f"arch.{name}": plain(one) for name, one in params.arch.items()}
    found |= {f"loss.{name}": plain(one) for name, one in params.loss.items()}
    return found


def _clock() -> float:
    """Seconds."""
    return time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
