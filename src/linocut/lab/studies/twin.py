"""Twin decoders: what pairing a codec with an adversary buys, with the encoder and files fixed.

    *.lino --the codec's own decoder----------------------------> plain --> controls
           --trained further on its costs alone-----------------> twin
           --trained further on its costs and an adversary------> adversarial

Both start from the codec's own decoder, see the same crops and last equally long; the encoder is
frozen, so that all decode the very same files. What twin and adversarial differ in, the adversary
did. See `linocut.lab.training.game` for the training.

A training says by its `gate` whether it taught anything: the discriminator was neither fooled nor
certain, the decoder has changed, and quality was traded: PSNR fell, and so did the Frechet
distance, against the twin.

    python -m linocut.lab.studies.twin cae-l2 TWIN generative-l2 --pictures FOLDER --out FOLDER
"""

from __future__ import annotations

import argparse
import functools
import math
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from linocut.codec.codec import Codec
from linocut.errors import DataError, LinocutError
from linocut.format.bitstream import CORRECTION, LinoFile, pack, unpack
from linocut.lab.config.params import GameConfig, Params
from linocut.lab.data.sources import pictures_below
from linocut.lab.evaluation.rd import Interval, resample_pictures
from linocut.lab.evaluation.rows import (
    TWIN_DECODERS,
    CodedRow,
    FrechetRow,
    GateRow,
    TwinRow,
    read_rows,
    write_rows,
)
from linocut.lab.fitting.build import training_crops
from linocut.lab.fitting.generator import tune_generator
from linocut.lab.networks.losses import Distortion, Features, build_loss, distance
from linocut.lab.networks.networks import Cae
from linocut.lab.networks.store import load_model, save_model
from linocut.lab.networks.torch_transforms import TorchTransforms
from linocut.lab.training.game import changed_weights
from linocut.lab.training.machine import picture_batch
from linocut.lab.training.recipes import generator_of, write_history
from linocut.lab.training.trainer import Log, Row
from linocut.models import folders
from linocut.pictures.image import RgbArray, busiest_corner, crop, read_image, write_png
from linocut.pictures.quality import psnr_db, ssimulacra2

SHOWN_PICTURES = 2
SHOWN_PX = 192
"""Side of the crops that the report shows."""
ACCURACY = (0.6, 0.95)
"""Of a discriminator that teaches: below it guesses, above its answers have no slope."""
LEAST_CHANGE = 1e-3
"""Of the decoder's weights, a share of their length."""

PLAIN, TWIN, ADVERSARIAL = TWIN_DECODERS
Decode = Callable[[LinoFile], RgbArray]


@dataclass(frozen=True)
class OneFile:
    """A file that all decoders read, and the picture that it is of.

    Attributes:
        picture: its name.
        point: number of its rate.
        bpp: bits per pixel.
        original: uint8 (h, w, 3).
        file: without the correction that was fitted to one decoder.
    """

    picture: str
    point: int
    bpp: float
    original: RgbArray
    file: LinoFile


def compare_twins(
    params: Params, loss: str, coded: pathlib.Path, prepared: pathlib.Path, out: pathlib.Path,
    log: Log | None = None,
) -> list[TwinRow]:  # fmt: skip
    """Train both decoders of one cell, and measure its files through all three.

    Args:
        params: the whole of params.yaml.
        loss: of the cell; both decoders are trained for it, among others.
        coded: codec/, files/ and coded.csv of the cell.
        prepared: train.npy, test/.
        out: scores.csv, frechet.csv, gate.csv, crops/ of the files of the lowest rate, and a folder
            for each decoder.
        log: called with the history of the adversarial training.

    Returns:
        The rows of scores.csv. If `twin.points` is 0: none, nothing is trained or written.

    Raises:
        DataError: the cell has no files.
        ConfigError: its decoder is of a kind that cannot learn by a game.
    """
    (out / "crops").mkdir(parents=True, exist_ok=True)
    if not params.twin.points:
        return []
    codec = Codec.load(coded / "codec")
    networks: dict[str, Cae] = {PLAIN: generator_of(load_model(coded / "codec"))}
    history: list[Row] = []
    for decoder in (TWIN, ADVERSARIAL):
        network, history = train_decoder(
            codec, coded / "codec", prepared / "train.npy", build_loss(params.loss[loss]),
            params.twin.game, params.train.step_range, params.seed,
            adversarial=decoder == ADVERSARIAL, log=log if decoder == ADVERSARIAL else None,
        )  # fmt: skip
        save_model(out / decoder, network, {"decoder": decoder, "loss": loss})
        write_history(out / decoder / "history.csv", history)
        networks[decoder] = network
    files = cell_files(coded, prepared / "test", params.twin.points)
    rows = measure_decoders(files, decoders_of(codec, networks), out)
    if not rows:
        raise DataError(f"{coded} has no files, expected some of its lowest rates")
    gate = judged(out, history, networks)
    write_rows(out / "gate.csv", GateRow, gate)
    return rows


def train_decoder(
    codec: Codec, folder: pathlib.Path, crops: pathlib.Path, distortion: Distortion,
    game: GameConfig, step_range: tuple[float, float], seed: int, *, adversarial: bool,
    log: Log | None = None,
) -> tuple[Cae, list[Row]]:  # fmt: skip
    """Train the decoder of a codec further, on the symbols of its files."""
    network = generator_of(load_model(folder))
    history = tune_generator(
        network, codec.rotation, codec.coder, training_crops(network, crops), distortion, game,
        effort=2, step_range=step_range, seed=seed, adversarial=adversarial, log=log,
    )  # fmt: skip
    return network, history


def decoders_of(codec: Codec, networks: Mapping[str, Cae]) -> dict[str, Decode]:
    """What makes pictures of the files of one codec, by name."""
    codecs = {
        name: codec.with_transforms(TorchTransforms(network)) for name, network in networks.items()
    }
    return {name: functools.partial(_decode, one) for name, one in codecs.items()}


def _decode(codec: Codec, file: LinoFile) -> RgbArray:
    return codec.decode(file).picture


def cell_files(coded: pathlib.Path, tests: pathlib.Path, points: int) -> Iterator[OneFile]:
    """The files of a cell's lowest rates."""
    for row in read_rows(coded / "coded.csv", CodedRow):
        if row.point < points:
            data = (coded / "files" / f"{row.picture}-{row.point}.lino").read_bytes()
            original = read_image(tests / f"{row.picture}.png")
            bpp = 8 * row.bytes / (original.shape[0] * original.shape[1])
            file = unpack(data).without(CORRECTION)
            yield OneFile(row.picture, row.point, bpp, original, file)


def new_files(
    codec: Codec, pictures: Sequence[pathlib.Path], steps: Sequence[float]
) -> Iterator[OneFile]:
    """Pictures coded at these steps, as the codec codes by default but without a correction."""
    for path in pictures:
        original = read_image(path)
        analysed = codec.analyse(original)
        for point, step in enumerate(steps):
            file = unpack(codec.encode(analysed, step)).without(CORRECTION)
            bpp = 8 * len(pack(file)) / (original.shape[0] * original.shape[1])
            yield OneFile(path.stem, point, bpp, original, file)


def measure_decoders(
    files: Iterable[OneFile], decoders: Mapping[str, Decode], out: pathlib.Path
) -> list[TwinRow]:
    """Measure every file through every decoder, and the controls.

    Args:
        files: in any order.
        decoders: `PLAIN` and others.
        out: for scores.csv, frechet.csv and crops/.

    Returns:
        The rows of scores.csv.
    """
    rows: list[TwinRow] = []
    patches: dict[tuple[str, int], list[Patches]] = {}
    shown: dict[str, dict[str, RgbArray]] = {}
    for one in files:
        judge = Judge(one.original)
        made = {name: decode(one.file) for name, decode in decoders.items()}
        controls = {name: control(made[PLAIN]) for name, control in CONTROLS.items()}
        patches.setdefault(("original", one.point), []).append(judge.patches)
        for name, picture in (made | controls).items():
            distance, seen = judge.score(picture)
            patches.setdefault((name, one.point), []).append(seen)
            rows.append(
                TwinRow(
                    name,
                    one.picture,
                    one.point,
                    one.bpp,
                    psnr_db(one.original, picture),
                    ssimulacra2(one.original, picture),
                    distance,
                )
            )
        if one.point == 0 and len(shown) < SHOWN_PICTURES:
            corner = busiest_corner(one.original, SHOWN_PX)
            versions = {"original": one.original, **made}
            shown[one.picture] = {
                name: crop(picture, corner, SHOWN_PX) for name, picture in versions.items()
            }
    if rows:
        (out / "crops").mkdir(parents=True, exist_ok=True)
        write_rows(out / "scores.csv", TwinRow, rows)
        write_rows(out / "frechet.csv", FrechetRow, _frechet_rows(patches))
    for name, versions in shown.items():
        for version, image in versions.items():
            write_png(out / "crops" / f"{name}-{version}.png", image)
    return rows


def _frechet_rows(patches: Mapping[tuple[str, int], Sequence[Patches]]) -> list[FrechetRow]:
    """Every decoder and control against the plain decoder; the adversarial one against its twin."""
    found = []
    for point in dict.fromkeys(point for _, point in patches):
        here = {name: seen for (name, at), seen in patches.items() if at == point}
        distances = frechet_distances(here.pop("original"), here)
        pairs = [(name, PLAIN) for name in here]
        if {ADVERSARIAL, TWIN} <= set(here):
            pairs.append((ADVERSARIAL, TWIN))
        for name, reference in pairs:
            ratio = ratio_of(distances[name], distances[reference])
            found.append(
                FrechetRow(
                    name,
                    point,
                    float(distances[name][0]),
                    reference,
                    ratio.estimate,
                    ratio.low,
                    ratio.high,
                )
            )
    return found


def judged(out: pathlib.Path, history: Sequence[Row], networks: Mapping[str, Cae]) -> list[GateRow]:
    """Whether a training taught anything, from its history, its weights and its scores.

    Args:
        out: scores.csv and frechet.csv.
        history: of the adversarial training; empty where it is not known, as of a shipped network:
            then nothing is said of the discriminator.
        networks: by decoder.
    """
    known = [row.get("discriminator_accuracy", math.nan) for row in history]
    later = np.array(known[len(known) // 2 :])
    accuracy = float(np.nanmean(later)) if np.isfinite(later).any() else 0.5
    change = changed_weights(
        list(networks[PLAIN].decoder_parameters()), list(networks[ADVERSARIAL].decoder_parameters())
    )
    scores = pd.DataFrame(read_rows(out / "scores.csv", TwinRow)).groupby("decoder")
    psnr = scores["psnr_db"].mean()
    frechet = pd.DataFrame(read_rows(out / "frechet.csv", FrechetRow))
    frechet = frechet[(frechet["decoder"] == ADVERSARIAL) & (frechet["reference"] == TWIN)]
    loss_db, ratio = float(psnr[ADVERSARIAL] - psnr[TWIN]), float(frechet["ratio"].mean())
    low, high = ACCURACY
    told = {
        f"accuracy of the discriminator over the last half, {low} to {high}": (
            accuracy, low <= accuracy <= high,
        ),
    }  # fmt: skip
    conditions = (told if history else {}) | {
        f"change of the decoder's weights, above {LEAST_CHANGE}": (change, change > LEAST_CHANGE),
        "PSNR against the twin, below 0 dB": (loss_db, loss_db < 0.0),
        "Frechet distance over the twin's, below 1": (ratio, ratio < 1.0),
    }  # fmt: skip
    return [
        GateRow(condition, value, "passed" if passed else "failed")
        for condition, (value, passed) in conditions.items()
    ]


# --- scores that see what an adversary does, and the controls that it has to beat -----------------
#
#     original, decoded --EfficientNet-Lite1--> maps --unit vectors at places--> feature distance
#     maps at stride 16 of all pictures --means, covariances--> Frechet distance over patches
#
# The feature distance asks whether a place looks like the same place, the Frechet distance whether
# all places together look like those of photographs. Neither is LPIPS nor FID: other networks,
# other layers, other numbers, which compare with nothing but themselves. A decoder that has learned
# against an adversary lowers the second; that alone proves little, as noise and sharpening lower
# some such distances, too. So every table has `CONTROLS`, and the first distance is the guard:
# noise worsens it.
#
# Source: Heusel et al. 2017 (Frechet distance of deep features); Zhang et al. 2018 (distance of
# unit vectors of deep features).

STRIDE_PX = 16
NOISE_SIGMA = 2.0
"""Of the noise of the control, grey levels."""
UNSHARP_PERCENT = (20, 40)
DRAWS = 300
"""Of the bootstrap over pictures."""


@dataclass(frozen=True)
class Patches:
    """Sums over the patches of one picture.

    Attributes:
        count: of the patches.
        total: float64 (c,), sum of their features.
        products: float64 (c, c), sum of their outer products.
    """

    count: int
    total: NDArray[np.float64]
    products: NDArray[np.float64]


class Judge:
    """Compares decoded pictures with one original.

    Args:
        original: uint8 (h, w, 3), sides of at least 16 px; the rest beyond multiples of 16 is cut
            off.

    Raises:
        DataError: a side is shorter, or the weights of the network are not installed.
    """

    def __init__(self, original: RgbArray) -> None:
        self.shape = original.shape
        if min(original.shape[:2]) < STRIDE_PX:
            raise DataError(
                f"the picture is {original.shape}, expected sides of at least {STRIDE_PX} px"
            )
        self._maps = _maps(original)
        self.patches = _patches(self._maps[-1])

    def score(self, decoded: RgbArray) -> tuple[float, Patches]:
        """The feature distance, 0 for equal pictures, and the patches of the decoded one.

        Raises:
            DataError: the shapes differ.
        """
        if decoded.shape != self.shape:
            raise DataError(
                f"the picture is {decoded.shape}, expected {self.shape} as the original"
            )
        maps = _maps(decoded)
        return float(distance(maps, self._maps)), _patches(maps[-1])


@functools.cache
def _network() -> Features:
    return Features("lite1")


@torch.inference_mode()
def _maps(picture: RgbArray) -> list[torch.Tensor]:
    height, width = (side // STRIDE_PX * STRIDE_PX for side in picture.shape[:2])
    found: list[torch.Tensor] = _network()(picture_batch(picture[:height, :width]))
    return found


def _patches(features: torch.Tensor) -> Patches:
    """Of a map (1, c, h, w)."""
    rows = features[0].flatten(1).T.double().numpy()
    return Patches(len(rows), rows.sum(0), rows.T @ rows)


def frechet_distances(
    original: Sequence[Patches], decoders: Mapping[str, Sequence[Patches]], draws: int = DRAWS
) -> dict[str, NDArray[np.float64]]:  # fmt: skip
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) of original and decoded patches.

    Args:
        original: patches of each original.
        decoders: by name, of each picture as the decoder makes it.
        draws: of the bootstrap; in each the same pictures are drawn for all.

    Returns:
        By decoder, (1 + draws,): of all pictures, and of those of each draw.

    Raises:
        DataError: there are no pictures, or a decoder has others.
    """
    counts = {name: len(pictures) for name, pictures in decoders.items()}
    if not original or set(counts.values()) - {len(original)}:
        raise DataError(f"{len(original)} originals and {counts} decoded, expected equal numbers")
    base, sets = _Set(original), {name: _Set(pictures) for name, pictures in decoders.items()}
    weights = [np.ones(len(original))]
    for drawn in resample_pictures(len(original), draws):
        weights.append(np.bincount(drawn, minlength=len(original)).astype(np.float64))
    found = {name: np.zeros(len(weights)) for name in sets}
    for index, weight in enumerate(weights):
        one = base.gaussian(weight)
        root = _root(one[1])
        for name, pictures in sets.items():
            found[name][index] = _frechet(one, root, pictures.gaussian(weight))
    return found


def ratio_of(candidate: NDArray[np.float64], reference: NDArray[np.float64]) -> Interval:
    """Of two of `frechet_distances`, with a 95 % interval over the pictures."""
    ratios = candidate / reference
    low, high = np.percentile(ratios[1:], (2.5, 97.5))
    return Interval(float(ratios[0]), float(low), float(high))


Gaussian = tuple[NDArray[np.float64], NDArray[np.float64]]


class _Set:
    """Patches of several pictures, each of which can count any number of times."""

    def __init__(self, pictures: Sequence[Patches]) -> None:
        self.count = np.array([one.count for one in pictures], np.float64)
        self.total = np.stack([one.total for one in pictures])
        self.products = np.stack([one.products for one in pictures])

    def gaussian(self, weights: NDArray[np.float64]) -> Gaussian:
        """Mean (c,) and covariance (c, c) of all patches."""
        count = float(weights @ self.count)
        mean = weights @ self.total / count
        return mean, np.tensordot(weights, self.products, 1) / count - np.outer(mean, mean)


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = (vectors * np.sqrt(values.clip(0.0))) @ vectors.T
    return root


def _frechet(one: Gaussian, root: NDArray[np.float64], other: Gaussian) -> float:
    """`root` is that of the covariance of `one`."""
    both = np.linalg.eigvalsh(root @ other[1] @ root)
    traces = np.trace(one[1]) + np.trace(other[1]) - 2.0 * np.sqrt(both.clip(0.0)).sum()
    return float(np.square(one[0] - other[0]).sum() + max(float(traces), 0.0))


def unsharp(picture: RgbArray, percent: int) -> RgbArray:
    """Pillow's unsharp mask of radius 1."""
    sharper = Image.fromarray(picture).filter(ImageFilter.UnsharpMask(1.0, percent, 0))
    return np.asarray(sharper)


def noisy(picture: RgbArray, sigma: float = NOISE_SIGMA) -> RgbArray:
    """White Gaussian noise on every sample."""
    noise = np.random.default_rng(0).normal(0.0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


CONTROLS: Mapping[str, Callable[[RgbArray], RgbArray]] = {
    **{f"unsharp {p} %": functools.partial(unsharp, percent=p) for p in UNSHARP_PERCENT},
    f"noise of sigma {NOISE_SIGMA:.0f}": noisy,
}
"""What needs no training, made of the plain decoder's picture."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare finished codecs with one encoder; 1 with a line of what is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in TWIN_DECODERS:
        parser.add_argument(name, help="shipped name or folder")
    parser.add_argument("--pictures", type=pathlib.Path, required=True, help="folder")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=float, nargs="+", default=[96.0, 48.0])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        places = {name: folders.folder_of(getattr(options, name)) for name in TWIN_DECODERS}
        networks = {name: generator_of(load_model(folder)) for name, folder in places.items()}
        codec = Codec.load(places[PLAIN])
        pictures = [file.path for file in pictures_below(str(options.pictures))]
        files = new_files(codec, pictures, options.steps)
        measure_decoders(files, decoders_of(codec, networks), options.out)
        record = places[ADVERSARIAL] / "history.csv"
        history = pd.read_csv(record).to_dict("records") if record.is_file() else []
        gate = judged(options.out, history, networks)
        write_rows(options.out / "gate.csv", GateRow, gate)
    except LinocutError as error:
        print(f"linocut.lab.studies.twin: {error}", file=sys.stderr)
        return 1
    for row in gate:
        print(f"{row.verdict}: {row.condition}: {row.value:.4g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
