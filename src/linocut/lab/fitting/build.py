"""From a trained network to a complete codec: rotation, tables, decoder, rate curve.

network + training crops --fit_pca--> rotation
network + rotation + training crops --build_codec--> codec/
"""

import csv
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from linocut.codec import rotation
from linocut.codec.codec import Codec
from linocut.codec.rotation import Rotation, rotation_from, rotation_tensors
from linocut.codec.transforms import Geometry
from linocut.entropy.choice import CORRECTED, choose_symbols
from linocut.entropy.coder import EntropyCoder
from linocut.entropy.contexts import BINS
from linocut.entropy.fixed_codes import index_of
from linocut.entropy.planes import step_index, step_of
from linocut.entropy.tables import Bins, EntropyTables
from linocut.errors import DataError
from linocut.files import write_atomically
from linocut.lab.config.params import CodeConfig, PcaConfig, Stream
from linocut.lab.fitting.decoder_tuning import tune_decoder
from linocut.lab.fitting.entropy_fit import (
    ContextNetworks,
    Sample,
    fit_networks,
    fit_tables,
    no_contexts,
)
from linocut.lab.fitting.generator import tune_generator
from linocut.lab.networks.export import write_graphs
from linocut.lab.networks.losses import Distortion
from linocut.lab.networks.networks import Generative, Network
from linocut.lab.networks.store import (
    as_tensors,
    decoder_kmac_per_px,
    load_model,
    load_tensors,
    round_to_half,
    save_model,
)
from linocut.lab.networks.torch_transforms import TorchTransforms
from linocut.lab.training.guards import ResumeState
from linocut.lab.training.machine import one_thread, picture_batch, read_crops
from linocut.models import folders as models
from linocut.models.folders import About, read_description
from linocut.pictures.image import centre, read_image

STEPS_PER_CROP = 3
STEPS_WITHOUT_CONTEXTS = BINS
"""A table is then that of a step: each has to meet every crop, or rates do not follow the steps."""
SOME = 4
"""Every so many samples make the tables that symbols are chosen with; no multiple of the above."""
CURVE_POINTS = 8
CURVE_PX = 256
"""Side of the middles of the validation pictures that the rate curve is of."""
COARSER = 1.6
"""Files may have steps this much coarser than the coarsest of the training."""
ROTATION_FILE = "rotation.safetensors"


@one_thread()
def fit_pca(
    trained: pathlib.Path, prepared: pathlib.Path, out: pathlib.Path, config: PcaConfig, seed: int
) -> None:
    """Fit the rotation of one network: rotation.safetensors and energy.csv.

    With mode `none` the rotation in use is the identity, with `per_image` the file stays empty and
    every .lino file carries its own; energy.csv is that of the fitted PCA all the same. Codes of
    fixed length are made for the range of the latent, which is therefore never rotated.
    """
    network = load_model(trained)
    latents = training_latents(network, prepared / "train.npy", config.crops, seed)
    fitted = rotation.fit(network.bands, latents)
    mode = "none" if network.fixed_bits else config.mode
    used = {"none": rotation.identity(network.bands), "global": fitted, "per_image": None}[mode]
    out.mkdir(parents=True, exist_ok=True)
    tensors = {} if used is None else rotation_tensors(used)
    write_atomically(out / ROTATION_FILE, save(tensors))
    rows = rotation.energy(network.bands, fitted)
    with (out / "energy.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _nine_digits(value) for name, value in row.items()} for row in rows)


def _nine_digits(value: str | float) -> str | float:
    """What people read does not show how a processor adds up."""
    return float(f"{value:.9g}") if isinstance(value, float) else value


def training_crops(network: Network, crops: pathlib.Path) -> NDArray[np.uint8]:
    """Training crops (n, s, s, 3) read from disk as they are used, s cut to what a network takes.

    Args:
        network: s becomes a multiple of its `multiple`.
        crops: train.npy.
    """
    pictures = read_crops(crops)
    side = pictures.shape[1] // network.multiple * network.multiple
    return pictures[:, :side, :side]


@torch.inference_mode()
def training_latents(
    network: Network, crops: pathlib.Path, count: int, seed: int
) -> list[list[NDArray[np.float32]]]:
    """Latents of `count` training crops, bands (c, h, w), chosen by the seed."""
    pictures = training_crops(network, crops)
    chosen = Stream.LATENT_CROPS.generator(seed).permutation(len(pictures))[:count]
    latents = []
    for index in chosen:
        latents.append(
            [band[0].numpy() for band in network.analysis(picture_batch(pictures[index]))]
        )
    return latents


def build_codec(
    trained: pathlib.Path,
    rotated: pathlib.Path,
    prepared: pathlib.Path,
    folder: pathlib.Path,
    config: CodeConfig,
    step_range: tuple[float, float],
    seed: int,
    distortion: Distortion | None = None,
    state: pathlib.Path | None = None,
) -> None:
    """Fit the integer tables, tune the decoder, and write a complete codec.

    Arguments as in `linocut.lab.evaluation.encode.entropy_code`; without a distortion no decoder
    is tuned.
    """
    network = load_model(trained)
    round_to_half(network)
    tensors: dict[str, NDArray[Any]] = dict(load_file(rotated / ROTATION_FILE))
    steps = fixed_steps(network) or [step_range[0], COARSER * step_range[1]]
    about = dict(read_description(trained)["about"])
    about |= {
        "step_range": [steps[0], steps[-1]],
        "rate_curve": [],
        "decoder_kmac_per_px": round(decoder_kmac_per_px(network), 2),
    }
    if network.fixed_bits:
        save_model(folder, network, about, as_tensors(tensors))
        write_graphs(folder, network)
        return
    step_range = (steps[0], steps[-1])
    used = rotation_from(tensors, network.bands)
    tables = _saved_tables(
        None if state is None else ResumeState(state / "tables"),
        lambda: symbol_tables(
            network,
            used,
            prepared / "train.npy",
            config,
            step_range,
            seed,
            shipped_tables(network, about),
        ),
    )
    tensors |= tables.tensors()
    if distortion is not None and config.tuning.megapixels > 0:
        coder = EntropyCoder(network.bands, tables)
        crops = training_crops(network, prepared / "train.npy")
        resume = None if state is None else ResumeState(state / "decoder")
        if isinstance(network, Generative):  # without its adversary it would unlearn
            game = dataclasses.replace(
                network.config.game,
                megapixels=config.tuning.megapixels,
                crops=config.tuning.crops,
            )
            tune_generator(
                network, used, coder, crops, distortion, game, effort=config.effort,
                step_range=step_range, seed=seed, resume=resume,
            )  # fmt: skip
        else:
            tune_decoder(
                network, used, coder, crops, distortion, config.tuning, effort=config.effort,
                step_range=step_range, seed=seed, resume=resume,
            )  # fmt: skip
        round_to_half(network)
    codec = Codec(
        TorchTransforms(network), used, EntropyCoder(network.bands, tables), bytes(8), folder.name,
        About(),
    )  # fmt: skip
    about["rate_curve"] = rate_curve(codec, prepared / "validation", step_range, config.effort)
    save_model(folder, network, about, as_tensors(tensors))
    write_graphs(folder, network)
    if state is not None:
        ResumeState(state).clear()


def fixed_steps(network: Network | Geometry) -> list[float]:
    """The steps of codes of fixed length, fine to coarse; none for other networks."""
    return [step_of(index_of(bits)) for bits in reversed(network.fixed_bits)]


def _saved_tables(resume: ResumeState | None, fit: Callable[[], EntropyTables]) -> EntropyTables:
    """The tables that a killed run had fitted already, or new ones."""
    found = resume.load() if resume else None
    if found is not None:
        return EntropyTables.from_tensors({name: array.numpy() for name, array in found.items()})
    tables = fit()
    if resume:
        resume.save(as_tensors(tables.tensors()))
    return tables


@one_thread()
def symbol_tables(
    network: Network,
    used: Rotation | None,
    crops: pathlib.Path,
    config: CodeConfig,
    step_range: tuple[float, float],
    seed: int,
    known: EntropyTables | None,
) -> EntropyTables:
    """Tables fitted to `code.crops` training crops, each at several steps, as `code.effort` codes.

    The symbols depend on the tables and the tables on the symbols: they are chosen with the best
    tables at hand, networks and tables are fitted to them, and tables once more with those.

    Args:
        network: whose analysis makes the latents.
        used: rotation of all files, or None where every file has its own.
        crops: train.npy.
        config: how many crops, and where context networks come from.
        step_range: finest and coarsest step, grey levels.
        seed: of the choice of crops, steps and symbols.
        known: tables of a codec for the same kind of latent, to begin with.
    """
    rng = Stream.TABLE_STEPS.generator(seed)
    alone = config.contexts == "none"
    parts = STEPS_WITHOUT_CONTEXTS if alone else STEPS_PER_CROP
    samples = []
    for latent in training_latents(network, crops, config.crops, seed):
        own = used or rotation.fit(network.bands, [latent], centre=False)
        r = own.transform(latent)
        for low in np.linspace(0.0, 1.0, parts, endpoint=False):
            share = low + rng.uniform() / parts
            index = step_index(step_range[0] * (step_range[1] / step_range[0]) ** share)
            samples.append((r, index))

    def chosen(tables: EntropyTables) -> tuple[list[Sample], list[Bins | None]]:
        coder, effort = EntropyCoder(network.bands, tables), min(config.effort, CORRECTED)
        found = [choose_symbols(coder, r, index, effort) for r, index in samples]
        steps = [index for _, index in samples]
        symbols: list[Sample] = [(one, index) for (one, _), index in zip(found, steps, strict=True)]
        return symbols, [bins for _, bins in found]

    simple = fit_tables(network.bands, [], no_contexts(network.bands))
    first, _ = chosen(known or simple)
    networks = no_contexts(network.bands)
    if config.contexts == "release" and known:
        networks = ContextNetworks.of(known)
    elif not alone:
        start = ContextNetworks.of(known) if known and config.contexts == "refitted" else None
        iterations = config.context_iterations
        networks = fit_networks(network.bands, first, iterations=iterations, seed=seed, start=start)
    some = first if alone else first[::SOME] or first
    tables = fit_tables(network.bands, some, networks)
    again, bins = chosen(tables)
    return fit_tables(network.bands, again, ContextNetworks.of(tables), bins)


def shipped_tables(network: Network, about: Mapping[str, Any]) -> EntropyTables | None:
    """Those of the shipped codec that a network goes on from, if it has the same latent.

    Of one that began elsewhere: the nearest to its loss.

    Args:
        network: the one to make a codec of.
        about: what its model.json says of it.
    """
    nearest = models.nearest_to(network.architecture, str(about.get("loss", "l2")))
    shipped = models.available().get(about.get("continues", ""), nearest)
    if shipped is None or load_model(shipped).bands != network.bands:
        return None
    tensors = {key: value.numpy() for key, value in load_tensors(shipped).items()}
    return EntropyTables.from_tensors(tensors)


def rate_curve(
    codec: Codec, validation: pathlib.Path, step_range: tuple[float, float], effort: int
) -> list[tuple[float, float]]:
    """(step, mean bpp over the validation pictures by the tables' estimate), fine to coarse."""
    pictures = [read_image(path) for path in sorted(validation.glob("*.png"))]
    if not pictures:
        raise DataError(f"{validation} holds no PNG, expected the validation pictures")
    analysed = [codec.analyse(centre(picture, CURVE_PX, CURVE_PX)) for picture in pictures]
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
