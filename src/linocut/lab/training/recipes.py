"""The two trainings behind a cell: the base network of its architecture, and its own.

    first weights --train_base, L2--> base network --train_cell, its loss--> network of the cell
    generative:  ... --L2, then decoder against discriminator--> base network --the encoder alone-->

With `init: base` all losses of an architecture start from one base network, which makes many cells
affordable and favours none of them. With `scratch` the base network is the untrained one and every
cell is trained for both lengths together. With `release` every cell goes on with the network that
the package ships for its architecture and loss; where there is none, with the one for L2, or with a
base network that is trained here. With `release_l2` every cell goes on from the one for L2.
With `shipped` nothing is trained: every cell is the codec of its name that the package ships.

A `generative` cascade keeps the paper's order: the decoder learns against a discriminator in the
base network, and the cells fit the encoder to the frozen decoder; from scratch the game comes last.
With `joint` both halves of a cell learn at once, against a discriminator.

For `ncode` the two trainings are the two stages of its paper, see `linocut.lab.training.ncode`: the
base network has a generator and no encoder yet, and a cell adds the encoder. Both are always
trained here.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from linocut.errors import ConfigError, DataError
from linocut.lab.config.params import (
    ArchOption,
    GenerativeConfig,
    NcodeConfig,
    Params,
    ScheduleConfig,
    Stream,
)
from linocut.lab.config.parse import sources
from linocut.lab.networks.layers import BLOCK_PX
from linocut.lab.networks.losses import build_loss, description, l2
from linocut.lab.networks.networks import Cae, Network, build_network
from linocut.lab.networks.store import load_model, load_tensors, save_model
from linocut.lab.training import parallel
from linocut.lab.training.game import JointAdversary, decodable, teach
from linocut.lab.training.guards import ResumeState
from linocut.lab.training.machine import pick_device, read_crops
from linocut.lab.training.ncode import BlockAdversary, Discriminator, Encoding, Generation
from linocut.lab.training.trainer import Adversary, Coding, Distortion, Log, Row, Trainer
from linocut.models import folders as models
from linocut.pictures.image import centre, read_image

HISTORY_COLUMNS = (
    "megapixels",
    "loss",
    "rate_bpp",
    "distortion",
    "psnr_db",
    "learning_rate",
    "seconds",
)
RELEASED = ("release", "release_l2")
"""Values of `train.init` that go on from a network which the package ships."""
VALIDATION_PX = 256
_DISCRIMINATOR = "discriminator."


@dataclass(frozen=True)
class TrainingPlace:
    """Where a training reads and writes.

    Attributes:
        prepared: folder with train.npy and validation/.
        out: folder for model.safetensors, model.json and history.csv.
        state: folder for checkpoints.
    """

    prepared: pathlib.Path
    out: pathlib.Path
    state: pathlib.Path


def train_base(params: Params, arch: str, place: TrainingPlace, log: Log | None = None) -> None:
    """Train the network that all cells of one architecture start from."""
    train = params.train
    option = params.arch[arch]
    torch.manual_seed(params.seed)
    if isinstance(option.config, NcodeConfig):
        _train_generator(params, option.config, build_network(option), place, log)
        return
    released = models.nearest_to(arch, "l2") if train.init in RELEASED else None
    if train.init == "shipped":
        released = models.folder_of(f"{arch}-l2")
    network = _continued(released, arch, option) if released else build_network(option)
    schedule = train.base
    if released or train.init in ("scratch", "shipped"):
        schedule = dataclasses.replace(schedule, megapixels=0.0)
    about = {"arch": arch, "loss": "l2"} | _of_plugins(option.target)
    history = _train(params, network, Coding(network, train.step_range), l2, schedule, place, log)
    if train.init == "base" and isinstance(option.config, GenerativeConfig):
        history += _teach(params, network, option.config, l2, place, log)
    _save(params, network, schedule, about, history, place)


def _continued(folder: pathlib.Path, arch: str, option: ArchOption) -> Network:
    """The network of a folder, if it is of the size that the parameters ask for.

    Raises:
        ConfigError: it has another one.
    """
    network: Network = load_model(folder)
    found, asked = (dataclasses.asdict(one) for one in (network.config, option.config))
    for name in sorted(found.keys() & asked.keys() - {"schedule", "game"}):
        if found[name] != asked[name]:
            raise ConfigError(
                f"arch.{arch}.{name} is {asked[name]}, but {folder.name}, which is continued, has "
                f"{found[name]}: train.init=base trains a network of that size first"
            )
    return network


def train_cell(
    params: Params,
    arch: str,
    loss: str,
    base: pathlib.Path,
    place: TrainingPlace,
    log: Log | None = None,
) -> None:
    """Train one architecture for one loss, from the base network in the folder `base`."""
    train = params.train
    config = params.arch[arch].config
    if isinstance(config, NcodeConfig):
        _train_encoder(params, config, loss, base, place, log)
        return
    shipped = train.init == "shipped"
    start = base
    if train.init in RELEASED:
        start = models.nearest_to(arch, loss if train.init == "release" else "l2") or base
    elif shipped:
        start = models.folder_of(f"{arch}-{loss}")
    network = _continued(start, arch, params.arch[arch])
    torch.manual_seed(params.seed)
    distortion = build_loss(params.loss[loss])
    more = train.base.megapixels if train.init == "scratch" else 0.0
    megapixels = 0.0 if shipped else train.megapixels + more
    schedule = dataclasses.replace(train, megapixels=megapixels)
    about = {"arch": arch} | description(loss, params.loss[loss])
    if train.init in RELEASED and start != base:
        about["continues"] = start.name
    about |= _of_plugins(params.arch[arch].target, params.loss[loss].target)
    objective, adversary, late = Coding(network, train.step_range), None, False
    if isinstance(config, GenerativeConfig):
        late = train.init == "scratch" and config.schedule == "cascade"
        objective.cascade = config.schedule == "cascade" and not late
        if config.schedule == "joint":
            adversary = JointAdversary(config.game, generator_of(network))
    history = _train(params, network, objective, distortion, schedule, place, log, adversary)
    if late and isinstance(config, GenerativeConfig):
        history += _teach(params, network, config, distortion, place, log)
    _save(params, network, schedule, about, history, place)


def generator_of(network: Network) -> Cae:
    """The same, of a class whose decoder can play.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(network, Cae):
        raise ConfigError(f"{type(network).__name__} has no decoder that can learn by a game")
    return network


def _teach(
    params: Params, network: Network, config: GenerativeConfig, distortion: Distortion,
    place: TrainingPlace, log: Log | None,
) -> list[Row]:  # fmt: skip
    """The generator's part of a cascade, on latents as a simple encoder writes them."""
    if config.schedule != "cascade" or config.game.megapixels <= 0:
        return []
    crops = read_crops(place.prepared / "train.npy")
    rng = Stream.GAME_CROPS.generator(params.seed)
    generator = generator_of(network)
    seen = decodable(generator, crops, params.train.step_range, rng, config.game.crops)
    return teach(
        generator, seen, distortion, config.game, adversarial=True, seed=params.seed,
        device=pick_device(), resume=ResumeState(place.state / "game"), log=log,
    )  # fmt: skip


def _train_generator(
    params: Params, config: NcodeConfig, network: Network, place: TrainingPlace, log: Log | None
) -> None:
    """Stage one of NCode; the discriminator's weights go beside the network's."""
    schedule = dataclasses.replace(
        params.train.base,
        batch_size=config.blocks,
        crop_px=BLOCK_PX,
        learning_rate=config.learning_rate,
    )
    pace = config.discriminator_learning_rate / config.learning_rate
    adversary = BlockAdversary(config.channels, config.learning_rate, pace)
    history = Trainer(
        network=network,
        objective=Generation(network),
        distortion=lambda x_hat, x: x_hat.new_zeros(len(x_hat)),
        crops=read_crops(place.prepared / "train.npy"),
        validation=validation_centres(place.prepared / "validation", network.multiple),
        config=params.train,
        schedule=schedule,
        seed=params.seed,
        device=pick_device(),
        adversary=adversary,
        resume=ResumeState(place.state),
        log=log,
    ).run()
    weights = adversary.discriminator.to("cpu").state_dict()
    about = {"arch": "ncode", "stage": 1, "megapixels": schedule.megapixels, "seed": params.seed}
    extra = {_DISCRIMINATOR + name: value for name, value in weights.items()}
    _write(place.out, network, about, history, extra)


def _train_encoder(
    params: Params,
    config: NcodeConfig,
    loss: str,
    base: pathlib.Path,
    place: TrainingPlace,
    log: Log | None,
) -> None:
    """Stage two of NCode, against the loss of the cell."""
    network = load_model(base)
    discriminator = Discriminator(config.channels)
    tensors = load_tensors(base).items()
    discriminator.load_state_dict(
        {k.removeprefix(_DISCRIMINATOR): v for k, v in tensors if k.startswith(_DISCRIMINATOR)}
    )
    schedule = dataclasses.replace(
        params.train,
        megapixels=config.encoder_share * params.train.base.megapixels,
        learning_rate=config.learning_rate,
        batch_size=1,  # a crop has several blocks, and iterations count for more than blocks
        crop_px=max(params.train.crop_px // BLOCK_PX, 1) * BLOCK_PX,
    )
    torch.manual_seed(params.seed)
    history = Trainer(
        network=network,
        objective=Encoding(network, discriminator, config.feature_weight),
        distortion=build_loss(params.loss[loss]),
        crops=read_crops(place.prepared / "train.npy"),
        validation=validation_centres(place.prepared / "validation", network.multiple),
        config=params.train,
        schedule=schedule,
        seed=params.seed,
        device=pick_device(),
        resume=ResumeState(place.state),
        log=log,
    ).run()
    about = {"arch": "ncode", "megapixels": schedule.megapixels, "seed": params.seed}
    about |= description(loss, params.loss[loss]) | _of_plugins(params.loss[loss].target)
    _write(place.out, network, about, history)


def _train(
    params: Params,
    network: Network,
    objective: Coding,
    distortion: Distortion,
    schedule: ScheduleConfig,
    place: TrainingPlace,
    log: Log | None,
    adversary: Adversary | None = None,
) -> list[Row]:
    history: list[Row] = []
    if schedule.megapixels > 0:
        history = Trainer(
            network=network,
            objective=objective,
            distortion=distortion,
            crops=read_crops(place.prepared / "train.npy"),
            validation=validation_centres(place.prepared / "validation", network.multiple),
            config=params.train,
            schedule=schedule,
            seed=params.seed,
            device=pick_device(),
            adversary=adversary,
            resume=ResumeState(place.state),
            log=log,
        ).run()
    return history


def _save(
    params: Params, network: Network, schedule: ScheduleConfig, about: dict[str, Any],
    history: Sequence[Row], place: TrainingPlace,
) -> None:  # fmt: skip
    about |= {"megapixels": schedule.megapixels, "init": params.train.init, "seed": params.seed}
    _write(place.out, network, about, history)


def _write(
    folder: pathlib.Path, network: Network, about: dict[str, Any], history: Sequence[Row],
    extra: Mapping[str, Tensor] | None = None,
) -> None:  # fmt: skip
    """What a training leaves; of several processes the first does it."""
    if parallel.is_first():
        save_model(folder, network, about, extra)
        write_history(folder / "history.csv", history)


def _of_plugins(*targets: str) -> dict[str, Any]:
    """Files of one's own code, with their hashes: stages that read the model see them change."""
    files = sources(targets)
    return {"plugins": files} if files else {}


def validation_centres(folder: pathlib.Path, multiple: int) -> NDArray[np.uint8]:
    """Centres of the validation pictures, all as large as the smallest allows: (n, s, s, 3)."""
    pictures = [read_image(path) for path in sorted(folder.glob("*.png"))]
    if not pictures:
        raise DataError(f"{folder} holds no PNG, expected the validation pictures")
    smallest = min(VALIDATION_PX, *(min(picture.shape[:2]) for picture in pictures))
    side = smallest // multiple * multiple
    return np.stack([centre(picture, side, side) for picture in pictures])


def write_history(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """The history of a training as CSV; columns that a row lacks stay empty."""
    columns = list(dict.fromkeys([*HISTORY_COLUMNS, *(name for row in rows for name in row)]))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
