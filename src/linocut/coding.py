"""From a trained network to a codec, and from test pictures to files.

    network + training crops --fit_pca--> rotation
    network + rotation + training crops --fit tables--> codec/ --test pictures--> files/*.lino +
    coded.csv + planes.csv

Rate points are chosen on validation pictures: the steps at which their mean rate, by the tables'
estimate, is the one
asked for. Every test picture is then coded with these steps, whatever rate they give on it.
"""

import csv
import dataclasses
import functools
import pathlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from linocut import models, rotation
from linocut.checkpoint import as_tensors, load_model, load_tensors, read_description, save_model
from linocut.codec import Codec
from linocut.complexity import decoder_kmac_per_px
from linocut.config import CodeConfig, PcaConfig
from linocut.entropy import EntropyCoder
from linocut.entropy_fit import ContextNetworks, Sample, fit_networks, fit_tables, no_contexts
from linocut.entropy_tables import EntropyTables
from linocut.errors import DataError
from linocut.evaluation import CodedRow, PlaneRow
from linocut.image import read_image
from linocut.latents import Band
from linocut.networks import Network
from linocut.quantization import quantise, step_index, step_of
from linocut.rate_distortion import ROUNDING, optimise
from linocut.rotation import Rotation, rotation_from, rotation_tensors
from linocut.tables import write_rows
from linocut.workers import map_in_processes

STEPS_PER_CROP = 3
CURVE_POINTS = 8
COARSER = 1.6
"""Files may have steps this much coarser than the coarsest of the training."""
ROTATION_FILE = "rotation.safetensors"


def fit_pca(
    trained: pathlib.Path, prepared: pathlib.Path, out: pathlib.Path, config: PcaConfig, seed: int
) -> None:
    """Fit the rotation of one network: rotation.safetensors and energy.csv.

    With mode `none` the rotation is the identity, with `per_image` the file stays empty and every
    .lino file
    carries its own; the energy curve is then that of the training latents all the same.
    """
    network = load_model(trained)
    latents = training_latents(network, prepared / "train.npy", config.crops, seed)
    fitted = rotation.fit(network.bands, latents)
    used = {"none": rotation.identity(network.bands), "global": fitted, "per_image": None}[
        config.mode
    ]
    out.mkdir(parents=True, exist_ok=True)
    save_file({} if used is None else rotation_tensors(used), out / ROTATION_FILE)
    shown = fitted
    if config.mode == "none":
        shown = dataclasses.replace(rotation.identity(network.bands), variances=_variances(fitted))
    rows = rotation.energy(network.bands, shown)
    with (out / "energy.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _variances(fitted: Rotation) -> tuple[NDArray[np.float64], ...]:
    """Variances of the channels as they were before the rotation was fitted to them."""
    return tuple(
        variances @ np.square(matrix.astype(np.float64))
        for matrix, variances in zip(fitted.matrices, fitted.variances, strict=True)
    )


@torch.inference_mode()
def training_latents(
    network: Network, crops: pathlib.Path, count: int, seed: int
) -> list[list[NDArray[np.float32]]]:
    """Latents of `count` training crops, bands (c, h, w), chosen by the seed."""
    pictures = np.load(crops, mmap_mode="r")
    chosen = np.random.default_rng([seed, 1]).permutation(len(pictures))[:count]
    side = pictures.shape[1] // network.multiple * network.multiple
    latents = []
    for index in chosen:
        x = (
            torch.from_numpy(pictures[index, :side, :side].copy()).permute(2, 0, 1)[None].float()
            / 255.0
        )
        latents.append([band[0].numpy() for band in network.analysis(x)])
    return latents


def entropy_code(
    trained: pathlib.Path,
    rotated: pathlib.Path,
    prepared: pathlib.Path,
    out: pathlib.Path,
    config: CodeConfig,
    step_range: tuple[float, float],
    seed: int,
) -> None:
    """Assemble the codec of one cell and compress the test pictures with it.

    Args:
        trained: network.
        rotated: rotation.safetensors.
        prepared: train.npy, validation/, test/.
        out: codec/, files/, coded.csv and planes.csv are written here.
        config: rates, effort, tables. Rates beyond the coarsest or finest step share one point.
        step_range: the steps that the network was trained for, grey levels.
        seed: of the choice of crops and steps.
    """
    folder = out / "codec"
    about = read_description(trained)["about"]
    if about.get("init") == "shipped":
        shutil.copytree(models.folder_of(f"{about['arch']}-{about['loss']}"), folder)
    else:
        build_codec(trained, rotated, prepared, folder, config, step_range, seed)
    codec = Codec.load(folder)
    steps = list(dict.fromkeys(codec_step(codec, rate) for rate in config.rates_bpp))
    tests = sorted((prepared / "test").glob("*.png"))
    if not tests:
        raise DataError(f"{prepared / 'test'} holds no PNG, expected the test pictures")
    (out / "files").mkdir(exist_ok=True)
    tasks = [_Task(folder, test, out / "files", tuple(steps), config.effort) for test in tests]
    results = map_in_processes(_compress, tasks, label=f"compress {out.name}")
    coded = [one for of_picture in results for one in of_picture]
    write_rows(out / "coded.csv", CodedRow, [row for row, _ in coded])
    write_rows(out / "planes.csv", PlaneRow, _mean_planes(codec.network.bands, coded))


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


def build_codec(
    trained: pathlib.Path,
    rotated: pathlib.Path,
    prepared: pathlib.Path,
    folder: pathlib.Path,
    config: CodeConfig,
    step_range: tuple[float, float],
    seed: int,
) -> None:
    """Fit the integer tables and write a complete codec: network, rotation, tables, rate curve."""
    step_range = (step_range[0], COARSER * step_range[1])
    network = load_model(trained)
    tensors: dict[str, NDArray[Any]] = dict(load_file(rotated / ROTATION_FILE))
    used = rotation_from(tensors, network.bands)
    rng = np.random.default_rng([seed, 2])
    samples = []
    for latent in training_latents(network, prepared / "train.npy", config.crops, seed):
        own = used or rotation.fit(network.bands, [latent], centre=False)
        r = own.transform(latent)
        for low in np.linspace(0.0, 1.0, STEPS_PER_CROP, endpoint=False):
            share = low + rng.uniform() / STEPS_PER_CROP
            step = step_range[0] * (step_range[1] / step_range[0]) ** share
            index = step_index(step)
            rounding = ROUNDING[min(config.effort, max(ROUNDING))]
            symbols = [quantise(band, step_of(index), rounding) for band in r]
            samples.append((symbols, index, r))
    chosen = [sample[:2] for sample in samples]
    tables = _first_tables(network, config, chosen, seed)
    if config.effort > 1:
        coder = EntropyCoder(network.bands, tables)
        chosen = [(optimise(coder, r, index)[0], index) for _, index, r in samples]
    tables = fit_tables(network.bands, chosen, ContextNetworks.of(tables))
    tensors |= tables.tensors()
    about = dict(read_description(trained)["about"]) | {
        "step_range": list(step_range),
        "rate_curve": [],
        "decoder_kmac_per_px": round(decoder_kmac_per_px(network), 2),
    }
    save_model(folder, network, about, as_tensors(tensors))
    about["rate_curve"] = rate_curve(
        Codec.load(folder), prepared / "validation", step_range, config.effort
    )
    save_model(folder, network, about, as_tensors(tensors))


def _first_tables(
    network: Network, config: CodeConfig, samples: Sequence[Sample], seed: int
) -> EntropyTables:
    """Tables with the networks that `code.contexts` asks for: none, fitted, or of a shipped codec.

    A codec is shipped for the latents of the architectures `cae` and `generative`; for any other
    latent `release` fits networks too.
    """
    name = f"{network.architecture}-l2"
    if config.contexts == "release" and name in models.available():
        shipped = models.folder_of(name)
        if load_model(shipped).bands == network.bands:
            tensors = {key: value.numpy() for key, value in load_tensors(shipped).items()}
            return EntropyTables.from_tensors(tensors)
    if config.contexts == "none":
        networks = no_contexts(network.bands)
    else:
        iterations = config.context_iterations
        networks = fit_networks(network.bands, samples, iterations=iterations, seed=seed)
    return fit_tables(network.bands, samples, networks)


def rate_curve(
    codec: Codec, validation: pathlib.Path, step_range: tuple[float, float], effort: int
) -> list[tuple[float, float]]:
    """(step, mean bpp over the validation pictures by the tables' estimate), fine to coarse."""
    pictures = [read_image(path) for path in sorted(validation.glob("*.png"))]
    if not pictures:
        raise DataError(f"{validation} holds no PNG, expected the validation pictures")
    analysed = [codec.analyse(_centre(picture)) for picture in pictures]
    curve = []
    for step in np.geomspace(*step_range, CURVE_POINTS):
        rates = [
            8
            * codec.estimate_bytes(item, step=float(step), effort=effort)
            / (item.picture.shape[0] * item.picture.shape[1])
            for item in analysed
        ]
        curve.append((round(float(step), 4), round(float(np.mean(rates)), 6)))
    return curve


def _centre(picture: NDArray[np.uint8], side_px: int = 256) -> NDArray[np.uint8]:
    top, left = (max(0, (length - side_px) // 2) for length in picture.shape[:2])
    return picture[top : top + side_px, left : left + side_px]


def codec_step(codec: Codec, rate_bpp: float) -> float:
    """The step at which the validation pictures have this mean rate, within the range."""
    steps, rates = np.array(codec.about["rate_curve"]).T
    order = np.argsort(rates)
    step = np.exp(np.interp(np.log(rate_bpp), np.log(rates[order]), np.log(steps[order])))
    return step_of(step_index(float(step)))


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
        data, bits = codec.encode_counted(analysed, step=step, effort=task.effort)
        encode_s = shared_s + time.perf_counter() - started
        (task.out / f"{task.picture.stem}-{point}.lino").write_bytes(data)
        around = codec.bytes_around(analysed, step=step)
        estimate_bpp = (8 * around + float(bits.sum())) / pixels
        row = CodedRow(task.picture.stem, point, step, len(data), estimate_bpp, encode_s)
        coded.append((row, bits / pixels))
    return coded
