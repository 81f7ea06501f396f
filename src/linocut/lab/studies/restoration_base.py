"""The codecs that restorations start from: a base network, with tables for what it will see.

    base network + training crops, degraded --fit_pca, build_codec--> degraded/
    base network + training crops           --fit_pca, build_codec--> clean/    for noise

Every training of a task needs the first, so it is made once; the second is what noise tolerance is
measured on.
"""

import dataclasses
import pathlib
import tempfile

import numpy as np

from linocut.lab.config.params import Params
from linocut.lab.config.study_config import DenoiseConfig
from linocut.lab.data.degradation import CLEAN, DEGRADED, EFFORT, Degradation, degradation
from linocut.lab.fitting import build
from linocut.pictures.image import read_image, write_png


def build_bases(
    params: Params, task: str, network: pathlib.Path, prepared: pathlib.Path, out: pathlib.Path
) -> None:
    """Make the codecs of one task and one architecture.

    Args:
        params: the whole of params.yaml.
        task: name of the degradation.
        network: folder of the base network.
        prepared: train.npy, validation/.
        out: degraded/ and, for noise, clean/ are written here.
    """
    build_base(params, network, prepared, degradation(params.task[task]), out / DEGRADED)
    if isinstance(params.task[task], DenoiseConfig):
        build_base(params, network, prepared, lambda picture, rng: picture, out / CLEAN)


def build_base(
    params: Params,
    network: pathlib.Path,
    prepared: pathlib.Path,
    degrade: Degradation,
    folder: pathlib.Path,
) -> None:
    """Write a network as a complete codec, with tables fitted on degraded crops."""
    rng = np.random.default_rng([params.seed, 5])
    crops = np.load(prepared / "train.npy", mmap_mode="r")
    picked = crops[rng.permutation(len(crops))[: params.restore.table_crops]]
    with tempfile.TemporaryDirectory() as name:
        place = pathlib.Path(name)
        (place / "validation").mkdir()
        np.save(place / "train.npy", np.stack([degrade(crop, rng) for crop in picked]))
        for path in sorted((prepared / "validation").glob("*.png"))[:1]:
            write_png(place / "validation" / path.name, degrade(read_image(path), rng))
        pca = dataclasses.replace(params.pca, crops=len(picked))
        build.fit_pca(network, place, place / "rotated", pca, params.seed)
        code = dataclasses.replace(params.code, effort=EFFORT, crops=len(picked))
        steps = params.train.step_range
        build.build_codec(network, place / "rotated", place, folder, code, steps, params.seed)
