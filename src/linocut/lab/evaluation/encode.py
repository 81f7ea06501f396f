"""From a codec and test pictures to files.

    network + rotation + training crops --build_codec--> codec/ --test pictures--> files/*.lino +
    coded.csv + planes.csv

Rate points are chosen on validation pictures: the steps at which their mean rate, by the tables'
estimate, is the one
asked for. Every test picture is then coded with these steps, whatever rate they give on it.
"""

import functools
import pathlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linocut.codec.codec import Codec
from linocut.codec.effort import EncodeOptions
from linocut.entropy.planes import Band
from linocut.errors import DataError
from linocut.format.bitstream import unpack
from linocut.lab.config.params import CodeConfig
from linocut.lab.config.process import map_in_processes
from linocut.lab.evaluation.rows import CodedRow, PlaneRow, write_rows
from linocut.lab.fitting.build import build_codec, fixed_steps
from linocut.lab.networks.losses import Distortion
from linocut.models import folders
from linocut.models.folders import read_description
from linocut.pictures.image import read_image


def entropy_code(
    trained: pathlib.Path,
    rotated: pathlib.Path,
    prepared: pathlib.Path,
    out: pathlib.Path,
    config: CodeConfig,
    step_range: tuple[float, float],
    seed: int,
    distortion: Distortion | None = None,
    state: pathlib.Path | None = None,
) -> None:
    """Assemble the codec of one cell and compress the test pictures with it.

    Args:
        trained: network.
        rotated: rotation.safetensors.
        prepared: train.npy, validation/, test/.
        out: codec/, files/, coded.csv and planes.csv are written here.
        config: rates, effort, tables. Rates beyond the coarsest or finest step share one point;
            codes of fixed length have the rates of their numbers of bits instead.
        step_range: the steps that the network was trained for, grey levels.
        seed: of the choice of crops and steps.
        distortion: that the decoder is tuned for, where `config.tuning` asks for it.
        state: folder for checkpoints, gone when the codec is complete; None for none.
    """
    folder = out / "codec"
    about = read_description(trained)["about"]
    if about.get("init") == "shipped":
        shutil.copytree(folders.folder_of(f"{about['arch']}-{about['loss']}"), folder)
    else:
        build_codec(trained, rotated, prepared, folder, config, step_range, seed, distortion, state)
    codec = Codec.load(folder)
    steps = fixed_steps(codec.geometry) or list(
        dict.fromkeys(codec.step_for(rate) for rate in config.rates_bpp)
    )
    tests = sorted((prepared / "test").glob("*.png"))
    if not tests:
        raise DataError(f"{prepared / 'test'} holds no PNG, expected the test pictures")
    (out / "files").mkdir(exist_ok=True)
    tasks = [_Task(folder, test, out / "files", tuple(steps), config.effort) for test in tests]
    results = map_in_processes(_compress, tasks, label=f"compress {out.name}")
    coded = [one for of_picture in results for one in of_picture]
    write_rows(out / "coded.csv", CodedRow, [row for row, _ in coded])
    write_rows(out / "planes.csv", PlaneRow, _mean_planes(codec.geometry.bands, coded))


def _mean_planes(
    bands: Sequence[Band], coded: Sequence[tuple[CodedRow, NDArray[np.float64]]]
) -> list[PlaneRow]:
    """Rates of the planes at every point, mean over the pictures."""
    names = [(band.name, channel) for band in bands for channel in range(band.channels)]
    rows = []
    for point in sorted({row.point for row, _ in coded}):
        mean = np.mean([bpp for row, bpp in coded if row.point == point], axis=0)
        rows += [PlaneRow(point, *name, float(bpp)) for name, bpp in zip(names, mean, strict=True)]
    return rows


@dataclass(frozen=True)
class _Task:
    """One picture at all its rate points."""

    codec: pathlib.Path
    picture: pathlib.Path
    out: pathlib.Path
    steps: tuple[float, ...]
    effort: int


@functools.lru_cache(maxsize=1)
def _codec(folder: pathlib.Path) -> Codec:
    return Codec.load(folder)


def _compress(task: _Task) -> list[tuple[CodedRow, NDArray[np.float64]]]:
    """Files of one picture at all points, and the bits per pixel of every plane in each."""
    codec, picture = _codec(task.codec), read_image(task.picture)
    started = time.perf_counter()
    analysed = codec.analyse(picture)
    shared_s = time.perf_counter() - started
    pixels = picture.shape[0] * picture.shape[1]
    coded = []
    for point, step in enumerate(sorted(task.steps, reverse=True)):
        started = time.perf_counter()
        data, bits = codec.encode_counted(analysed, step, EncodeOptions(task.effort))
        encode_s = shared_s + time.perf_counter() - started
        (task.out / f"{task.picture.stem}-{point}.lino").write_bytes(data)
        around = len(data) - unpack(data).payload_bytes
        estimate_bpp = (8 * around + float(bits.sum())) / pixels
        row = CodedRow(task.picture.stem, point, step, len(data), estimate_bpp, encode_s)
        coded.append((row, bits / pixels))
    return coded
