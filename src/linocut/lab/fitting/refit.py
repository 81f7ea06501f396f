"""Contexts and tables of a complete codec fitted anew, beginning with those that it has.

    python -m linocut.lab.fitting.refit CODEC TRAIN.npy VALIDATION OUT [--count 200]

    codec + training crops --choose symbols--> symbols --context networks, tables--> codec in OUT

After the decoder or the way of choosing symbols has changed. The network and the rotation stay.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from linocut.codec.codec import Codec
from linocut.codec.rotation import rotation_from
from linocut.entropy.choice import DEFAULT_EFFORT
from linocut.entropy.coder import EntropyCoder
from linocut.entropy.tables import EntropyTables
from linocut.errors import LinocutError
from linocut.lab.config.params import CodeConfig, TuningConfig
from linocut.lab.fitting.build import rate_curve, symbol_tables
from linocut.lab.networks.export import write_graphs
from linocut.lab.networks.store import (
    as_tensors,
    load_model,
    load_tensors,
    round_to_half,
    save_model,
)
from linocut.lab.networks.torch_transforms import TorchTransforms
from linocut.models import folders
from linocut.models.folders import About, read_description


def refit(
    folder: pathlib.Path, crops: pathlib.Path, validation: pathlib.Path, out: pathlib.Path,
    *, count: int, iterations: int, seed: int, known: EntropyTables | None = None,
) -> None:  # fmt: skip
    """Write a codec with new context networks and tables.

    Args:
        folder: of the codec.
        crops: train.npy.
        validation: pictures of the rate curve, PNG.
        out: folder of the new codec; may be that of the old one.
        count: crops that are coded.
        iterations: of the training of each context network; 0 keeps the networks.
        seed: of the choice of crops, steps and symbols.
        known: tables to begin with; None for the codec's own.
    """
    network, description = load_model(folder), read_description(folder)
    round_to_half(network)
    tensors: dict[str, Any] = {k: v.numpy() for k, v in load_tensors(folder).items()}
    tensors = {k: v for k, v in tensors.items() if not k.startswith("network.")}
    about = dict(description["about"])
    low, high = About.from_json(about).step_range
    config = CodeConfig(
        rates_bpp=(1.0,), effort=DEFAULT_EFFORT, contexts="refitted" if iterations else "release",
        context_iterations=max(iterations, 1), crops=count,
        tuning=TuningConfig(megapixels=0.0, crops=1, batch_size=1, learning_rate=1e-4),
    )  # fmt: skip
    used = rotation_from(tensors, network.bands)
    known = known or EntropyTables.from_tensors(tensors)
    tables = symbol_tables(network, used, crops, config, (low, high), seed, known)
    codec = Codec(
        TorchTransforms(network), used, EntropyCoder(network.bands, tables), bytes(8), out.name,
        About(),
    )  # fmt: skip
    about["rate_curve"] = rate_curve(codec, validation, (low, high), DEFAULT_EFFORT)
    rest = {k: v for k, v in tensors.items() if not k.startswith("tables.")}
    save_model(out, network, about, as_tensors(rest | tables.tensors()))
    write_graphs(out, network)  # they name places in the file of the weights


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a codec with other tables; 1 with a line of what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="shipped name or folder")
    for name in ("crops", "validation", "out"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", help="codec whose tables are begun with")
    given = parser.parse_args(arguments)
    try:
        _refit(given)
    except LinocutError as error:
        print(f"linocut.lab.fitting.refit: {error}", file=sys.stderr)
        return 1
    return 0


def _refit(given: argparse.Namespace) -> None:
    known = None
    if given.start:
        start = load_tensors(folders.folder_of(given.start))
        known = EntropyTables.from_tensors({name: value.numpy() for name, value in start.items()})
    refit(
        folders.folder_of(given.folder), given.crops, given.validation, given.out,
        count=given.count, iterations=given.iterations, seed=given.seed, known=known,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
