"""Twin decoders: what pairing a codec with an adversary buys, with the encoder and files fixed.

    coded/<cell>/files/*.lino --decoder trained on the loss alone------------> plain
                              --decoder trained on the loss + an adversary---> adversarial

Both decoders start from the cell's own, see the same crops and have the same length; the encoder is
frozen, so that both decode the very same files. Whatever differs, the adversary did it.
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from linocut.codec.codec import Codec
from linocut.errors import DataError
from linocut.format.bitstream import CORRECTION, unpack
from linocut.lab.config.params import Params
from linocut.lab.evaluation.decode import TWIN_DECODERS, CodedRow, TwinRow
from linocut.lab.evaluation.rows import read_rows, write_rows
from linocut.lab.networks.losses import build_loss
from linocut.lab.networks.networks import Network
from linocut.lab.networks.store import load_model, save_model
from linocut.lab.studies.patch_distance import patch_distance
from linocut.lab.training.adversary import PairedAdversary
from linocut.lab.training.machine import pick_device
from linocut.lab.training.recipes import validation_centres, write_history
from linocut.lab.training.trainer import Log, Row, Trainer
from linocut.pictures.crop import busiest_corner, crop
from linocut.pictures.image import RgbArray, read_image, write_png
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
        codec = Codec.load(coded / "codec")
        codec.network = network
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
        distortion=build_loss(loss, params.loss[loss]),
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
