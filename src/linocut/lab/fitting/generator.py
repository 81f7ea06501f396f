"""Trains the decoder of a finished codec against a discriminator; its files stay as they are.

codec, training crops --effort 2--> symbols --linear path--> what decoders see
decoder --linocut.lab.training.game--> another decoder for the same bytes

python -m linocut.lab.fitting.generator cae-l2 --crops train.npy --out FOLDER [--twin]
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from linocut.codec.rotation import Rotation, fit, rotation_from
from linocut.entropy.choice import choose_symbols
from linocut.entropy.coder import Coder, EntropyCoder
from linocut.entropy.tables import EntropyTables
from linocut.errors import LinocutError
from linocut.lab.config.params import GameConfig, GenerativeConfig, Params, Stream, compose
from linocut.lab.config.parse import parse
from linocut.lab.networks.export import write_graphs
from linocut.lab.networks.losses import Distortion, build_loss
from linocut.lab.networks.networks import Cae, Generative
from linocut.lab.networks.store import load_model, load_tensors, round_to_half, save_model
from linocut.lab.training.game import Decodable, Latent, decodable, teach
from linocut.lab.training.guards import ResumeState
from linocut.lab.training.machine import pick_device, read_crops
from linocut.lab.training.recipes import generator_of, write_history
from linocut.lab.training.trainer import Log, Row
from linocut.models import folders
from linocut.models.folders import read_description

STEP_RANGE = (10.0, 150.0)
"""Of the files that the shipped decoder learns on; finer ones hide nothing that it could add."""


def tune_generator(
    network: Cae,
    used: Rotation | None,
    coder: Coder,
    crops: NDArray[np.uint8],
    distortion: Distortion,
    config: GameConfig,
    *,
    effort: int,
    step_range: tuple[float, float],
    seed: int,
    adversarial: bool = True,
    resume: ResumeState | None = None,
    log: Log | None = None,
) -> list[Row]:
    """Train the decoder's nets in place on the symbols that its encoder really writes.

    Args:
        network: left with the moving average of its weights.
        used: rotation of all files, or None where every file has its own.
        coder: whose tables choose the symbols.
        crops: uint8 (n, s, s, 3).
        distortion: of pixels.
        config: of the game.
        effort: of the encoder; the files have no correction.
        step_range: finest and coarsest step, grey levels.
        seed: of everything random.
        adversarial: False for a twin.
        resume: where checkpoints go; None for nowhere.
        log: called with every row of the history.

    Returns:
        The history.
    """

    def code(latent: Latent, index: int) -> tuple[Latent, float]:
        own = used or fit(network.bands, [latent], centre=False)
        symbols, _ = choose_symbols(coder, own.transform(latent), index, min(effort, 2))
        decoded = own.inverse_transform(coder.dequantise(symbols, index))
        return decoded, coder.told_step(index)

    rng = Stream.TUNING_CROPS.generator(seed)
    seen: Decodable = decodable(network, crops, step_range, rng, config.crops, code)
    return teach(
        network, seen, distortion, config, adversarial=adversarial, seed=seed,
        device=pick_device(), resume=resume, log=log,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a codec with another decoder; 1 with a line of what is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("codec", help="shipped name or folder; its encoder and tables are kept")
    parser.add_argument("--crops", type=pathlib.Path, required=True, help="train.npy")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the codec")
    parser.add_argument("--loss", default="l2", help="of pixels, an option of conf/loss/")
    parser.add_argument("--twin", action="store_true", help="the same without the adversary")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=NUMBER",
                        help="change the game, for example megapixels=60")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        _write(options)
    except LinocutError as error:
        print(f"linocut.lab.fitting.generator: {error}", file=sys.stderr)
        return 1
    return 0


def _write(options: argparse.Namespace) -> None:
    changes = [f"++arch.generative.game.{one}" for one in options.set]
    import yaml

    text = compose(
        ["arch=generative", "profile=release_generative", f"loss={options.loss}", *changes]
    )
    params = parse(Params, yaml.safe_load(text), "conf")
    config = params.arch["generative"].config
    folder = folders.folder_of(options.codec)
    start = generator_of(load_model(folder))
    tensors = {k: v for k, v in load_tensors(folder).items() if not k.startswith("network.")}
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    used = rotation_from(arrays, start.bands)
    coder = EntropyCoder(start.bands, EntropyTables.from_tensors(arrays))
    history = tune_generator(
        start, used, coder, read_crops(options.crops),
        build_loss(params.loss[options.loss]), config.game,
        effort=2, step_range=STEP_RANGE, seed=options.seed, adversarial=not options.twin,
        resume=ResumeState(options.out / "state"), log=_say,
    )  # fmt: skip
    network = _as_generative(start, config)
    round_to_half(network)
    about = dict(read_description(folder)["about"]) | {
        "arch": "generative", "loss": options.loss, "adversary": not options.twin,
        "decoder_of": folder.name, "megapixels": config.game.megapixels, "seed": options.seed,
    }  # fmt: skip
    save_model(options.out, network, about, tensors)
    write_graphs(options.out, network)
    write_history(options.out / "history.csv", history)


def _as_generative(network: Cae, config: GenerativeConfig) -> Generative:
    """The same weights under the name of the architecture.

    Raises:
        ConfigError: it has other widths than conf/arch/generative.yaml.
    """
    fields = dataclasses.asdict(network.config)
    made = Generative(dataclasses.replace(config, **fields))
    made.load_state_dict(network.state_dict())
    return made


def _say(row: Mapping[str, float], megapixels: float) -> None:
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
    print(f"{megapixels:.1f} Mpx: {numbers}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
