"""The files of a training job: one that goes to the other machine, one that comes back.

    job.zip       about.json, params.yaml, train/*.webp, validation/*.png
    results.zip   about.json, pretrained/ARCH/, trained/CELL/, state/ of what is not finished,
                  throughput.json

Both name the crops and the numbers that they belong to, see `linocut.lab.training.job`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from linocut.errors import DataError
from linocut.lab.config.params import Params, load_params
from linocut.lab.config.schema import to_mapping
from linocut.pictures.image import read_image

ABOUT = "about.json"
THROUGHPUT = "throughput.json"


def open_job(job: pathlib.Path, work: pathlib.Path) -> None:
    """The prepared data of a job as the trainings read it."""
    prepared = work / "prepared"
    (prepared / "validation").mkdir(parents=True)
    with zipfile.ZipFile(job) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train/"))
        if not names or not {ABOUT, "params.yaml"} <= set(archive.namelist()):
            raise DataError(f"{job} is no job: `training_job pack` writes one")
        crops = np.stack([read_image(io.BytesIO(archive.read(name))) for name in names])
        expected = json.loads(archive.read(ABOUT))["crops"]
        if digest(crops) != expected:
            raise DataError(f"{job} is damaged: its crops have the digest {digest(crops)}")
        np.save(prepared / "train.npy", crops)
        for name in archive.namelist():
            if name.startswith("validation/"):
                (prepared / "validation" / pathlib.PurePosixPath(name).name).write_bytes(
                    archive.read(name)
                )
        (work / "params.yaml").write_bytes(archive.read("params.yaml"))


def same_job(about: Mapping[str, object], job: pathlib.Path) -> None:
    """Refuse results of another job."""
    with zipfile.ZipFile(job) as archive:
        crops = json.loads(archive.read(ABOUT))["crops"]
    if about["job"] != file_digest(job):
        what = "parameters" if about["crops"] == crops else "crops"
        raise DataError(f"the results are those of a job with other {what} than {job}")


def write_results(work: pathlib.Path, job: pathlib.Path, results: pathlib.Path) -> None:
    """Everything that is finished, and checkpoints of the rest, as one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(job) as archive:
        crops = json.loads(archive.read(ABOUT))["crops"]
    about = {
        "crops": crops,
        "job": file_digest(job),
        "params": numbers(load_params(work / "params.yaml")),
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ABOUT, json.dumps(about))
        for kind in ("pretrained", "trained", "state"):
            for path in sorted((work / kind).rglob("*")):
                if path.is_file() and path.suffix != ".tmp":
                    archive.write(path, path.relative_to(work).as_posix())
        if (work / THROUGHPUT).exists():
            archive.write(work / THROUGHPUT, THROUGHPUT)
    replace(results, file.getvalue())


def extract(results: pathlib.Path, work: pathlib.Path) -> None:
    """Unpack results into the folder `work`."""
    with zipfile.ZipFile(results) as archive:
        if ABOUT not in archive.namelist() or "params" not in json.loads(archive.read(ABOUT)):
            raise DataError(f"{results} holds no results: `training_job run` writes them")
        archive.extractall(work)


def numbers(params: Params) -> dict[str, object]:
    """What a training depends on, beside its crops."""
    found = {"seed": params.seed, "train": to_mapping(params.train)}
    found |= {f"arch.{name}": to_mapping(one) for name, one in params.arch.items()}
    found |= {f"loss.{name}": to_mapping(one) for name, one in params.loss.items()}
    plain: dict[str, object] = json.loads(json.dumps(found))
    return plain


def digest(crops: NDArray[np.uint8]) -> str:
    """SHA-256 of the pixels."""
    return hashlib.sha256(np.ascontiguousarray(crops).tobytes()).hexdigest()


def file_digest(path: pathlib.Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def replace(path: pathlib.Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
