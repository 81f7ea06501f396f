"""Twin decoders: what pairing a codec with an adversary buys, with the encoder and files fixed.

    coded/<cell>/files/*.lino --decoder trained on the loss alone------------> plain
                              --decoder trained on the loss + an adversary---> adversarial

Both decoders start from the cell's own, see the same crops and have the same length; the encoder is
frozen, so that both decode the very same files. Whatever differs, the adversary did it.

The textures of two pictures are compared by the sliced Wasserstein distance of their patches:

    picture -> Laplacian pyramid -> 7x7x3 patches of each scale, normalised as the original's are
            -> projections on random directions, sorted -> mean |difference|, mean over the scales

Patches are compared as a distribution: what counts is whether the right kinds of texture are there
in the right amounts, not whether they lie in the right place, which is what PSNR and SSIM ask. It
needs no pretrained network; it is not FID, and its numbers compare with nothing but themselves.
Source: Karras et al., "Progressive growing of GANs", ICLR 2018, section 5 (there over a whole set
of pictures, here picture by picture).
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from linocut.codec.codec import Codec
from linocut.errors import DataError
from linocut.format.bitstream import CORRECTION, unpack
from linocut.lab.config.params import Params
from linocut.lab.evaluation.rows import TWIN_DECODERS, CodedRow, TwinRow, read_rows, write_rows
from linocut.lab.networks.losses import build_loss
from linocut.lab.networks.networks import Network
from linocut.lab.networks.store import load_model, save_model
from linocut.lab.networks.torch_transforms import TorchTransforms
from linocut.lab.training.adversary import PairedAdversary
from linocut.lab.training.machine import pick_device
from linocut.lab.training.recipes import validation_centres, write_history
from linocut.lab.training.trainer import Log, Row, Trainer
from linocut.pictures.image import RgbArray, busiest_corner, crop, read_image, write_png
from linocut.pictures.quality import measure, ssimulacra2

SHOWN_PICTURES = 2
SHOWN_PX = 192
"""Side of the crops that the report shows."""


def compare_twins(
    params: Params, loss: str, coded: pathlib.Path, prepared: pathlib.Path, out: pathlib.Path,
    log: Log | None = None,
) -> list[TwinRow]:  # fmt: skip
    """Train both decoders of one cell, and measure its files through both.

    Args:
        params: the whole of params.yaml.
        loss: of the cell; both decoders are trained for it.
        coded: codec/, files/ and coded.csv of the cell.
        prepared: train.npy, validation/, test/.
        out: scores.csv, crops/ of the files of the lowest rate, and a folder for each decoder.
        log: called with the history of the adversarial training.

    Returns:
        The rows of scores.csv. If `twin.points` is 0: none, nothing is trained or written.

    Raises:
        DataError: the cell has no files.
    """
    rows: list[TwinRow] = []
    crops: dict[str, dict[str, RgbArray]] = {}
    (out / "crops").mkdir(parents=True, exist_ok=True)
    if not params.twin.points:
        return rows
    for decoder in TWIN_DECODERS:
        network, history = train_decoder(params, loss, decoder, coded / "codec", prepared, log)
        save_model(out / decoder, network, {"decoder": decoder, "loss": loss})
        write_history(out / decoder / "history.csv", history)
        codec = Codec.load(coded / "codec").with_transforms(TorchTransforms(network))
        for row, original, decoded in decoded_files(codec, coded, prepared, params.twin.points):
            rows.append(_measured(decoder, row, original, decoded))
            if row.point == 0:
                corner = busiest_corner(original, SHOWN_PX)
                shown = crops.setdefault(
                    row.picture, {"original": crop(original, corner, SHOWN_PX)}
                )
                shown[decoder] = crop(decoded, corner, SHOWN_PX)
    if not rows:
        raise DataError(f"{coded} has no files, expected some of its lowest rates")
    write_rows(out / "scores.csv", TwinRow, rows)
    for picture, versions in list(crops.items())[:SHOWN_PICTURES]:
        for version, image in versions.items():
            write_png(out / "crops" / f"{picture}-{version}.png", image)
    return rows


def _measured(decoder: str, row: CodedRow, original: RgbArray, decoded: RgbArray) -> TwinRow:
    quality = measure(original, decoded)
    return TwinRow(
        decoder, row.picture, row.point, 8 * row.bytes / (original.shape[0] * original.shape[1]),
        quality.psnr_db, quality.ssim, quality.ms_ssim, ssimulacra2(original, decoded),
        patch_distance(original, decoded),
    )  # fmt: skip


def train_decoder(
    params: Params, loss: str, decoder: str, codec: pathlib.Path, prepared: pathlib.Path,
    log: Log | None = None,
) -> tuple[Network, list[Row]]:  # fmt: skip
    """Train the synthesis of a codec further, its analysis frozen."""
    network = load_model(codec)
    adversary = None
    if decoder == "adversarial":
        adversary = PairedAdversary(params.twin)
    history = Trainer(
        network=network,
        distortion=build_loss(params.loss[loss]),
        crops=np.load(prepared / "train.npy", mmap_mode="c"),
        validation=validation_centres(prepared / "validation", network.multiple)[:1],
        config=params.train,
        schedule=params.twin,
        seed=params.seed,
        device=pick_device(),
        adversary=adversary,
        log=log if adversary else None,
    ).run()
    return network, history


def decoded_files(
    codec: Codec, coded: pathlib.Path, prepared: pathlib.Path, points: int
) -> Iterator[tuple[CodedRow, RgbArray, RgbArray]]:
    """The row, the original and the decoded picture of every file of the lowest rates.

    A file's correction of the last layer was fitted to another decoder, so it is left aside.
    """
    for row in read_rows(coded / "coded.csv", CodedRow):
        if row.point < points:
            data = (coded / "files" / f"{row.picture}-{row.point}.lino").read_bytes()
            original = read_image(prepared / "test" / f"{row.picture}.png")
            yield row, original, codec.decode(unpack(data).without(CORRECTION)).picture


PATCH_PX = 7
SCALES = 3
PATCHES = 4096
DIRECTIONS = 128
SIDE_PX = PATCH_PX * 2 ** (SCALES - 1)
"""Shortest side that a picture may have."""

Picture = NDArray[np.uint8]


def patch_distance(original: Picture, decoded: Picture, seed: int = 0) -> float:
    """Distance of (h, w, 3) uint8 in thousandths of a patch value's deviation; 0 for equal ones.

    Raises:
        DataError: the shapes differ, or a side is below `SIDE_PX`.
    """
    if original.shape != decoded.shape or min(original.shape[:2]) < SIDE_PX:
        raise DataError(
            f"pictures are {original.shape} and {decoded.shape}, "
            f"expected equal shapes with sides of at least {SIDE_PX} px"
        )
    rng = np.random.default_rng(seed)
    distances = []
    for a, b in zip(_laplacians(original), _laplacians(decoded), strict=True):
        y, x = (rng.integers(0, side - PATCH_PX + 1, PATCHES) for side in a.shape[:2])
        patches = [_patches(level, y, x) for level in (a, b)]
        mean, deviation = patches[0].mean(0), patches[0].std(0) + 1e-6
        directions = rng.standard_normal((patches[0].shape[1], DIRECTIONS))
        directions /= np.linalg.norm(directions, axis=0)
        one, two = (np.sort((p - mean) / deviation @ directions, axis=0) for p in patches)
        distances.append(float(np.abs(one - two).mean()))
    return 1000.0 * float(np.mean(distances))


def _laplacians(picture: Picture) -> list[NDArray[np.float64]]:
    """Differences to the next coarser scale (2x2 means), and the coarsest scale itself."""
    level, levels = picture.astype(np.float64) / 255.0, []
    for _ in range(SCALES - 1):
        height, width = (length // 2 * 2 for length in level.shape[:2])
        level = level[:height, :width]
        coarser = level.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
        levels.append(level - coarser.repeat(2, 0).repeat(2, 1))
        level = coarser
    return [*levels, level]


def _patches(
    level: NDArray[np.float64], y: NDArray[np.int64], x: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Patches with these top left corners, (n, 7 * 7 * 3)."""
    windows = np.lib.stride_tricks.sliding_window_view(level, (PATCH_PX, PATCH_PX), axis=(0, 1))
    return windows[y, x].reshape(len(y), -1)
