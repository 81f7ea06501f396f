"""Twin decoders: what pairing a codec with an adversary buys, with the encoder and files fixed.

    coded/<cell>/files/*.lino --decoder trained on the loss alone------------> plain
                              --decoder trained on the loss + an adversary---> adversarial

Both decoders start from the cell's own, see the same crops and have the same length; the encoder is
frozen, so that both decode the very same files. Whatever differs, the adversary did it.
"""

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from linocut import figures
from linocut.adversary import PairedAdversary
from linocut.checkpoint import load_model, save_model
from linocut.codec import Codec
from linocut.config import Params
from linocut.device import pick_device
from linocut.errors import DataError
from linocut.evaluation import CodedRow
from linocut.image import RgbArray, read_image, write_png
from linocut.losses import build_loss
from linocut.metrics import measure, ssimulacra2
from linocut.networks import Network
from linocut.patch_distance import patch_distance
from linocut.rd import percentile_interval, resample_pictures
from linocut.recipes import validation_centres, write_history
from linocut.side_by_side import busiest_corner, crop, labelled_row
from linocut.tables import read_rows, write_rows
from linocut.training import Log, Row, Trainer

DECODERS = ("plain", "adversarial")
SCORES = {
    "psnr_db": "PSNR [dB]",
    "ms_ssim": "MS-SSIM",
    "ssimulacra2": "SSIMULACRA 2",
    "patch_distance": "patch distance (lower is better)",
}
SHOWN_PICTURES = 2
DRAWS = 2000


@dataclass(frozen=True)
class TwinRow:
    """One file through one of the decoders."""

    decoder: str
    picture: str
    point: int
    bpp: float
    psnr_db: float
    ssim: float
    ms_ssim: float
    ssimulacra2: float
    patch_distance: float


def compare_twins(
    params: Params, loss: str, coded: pathlib.Path, prepared: pathlib.Path, out: pathlib.Path,
    log: Log | None = None,
) -> str:  # fmt: skip
    """Train both decoders of one cell, decode its files with both, and write what that gave.

    Args:
        params: the whole of params.yaml.
        loss: of the cell; both decoders are trained for it.
        coded: codec/, files/ and coded.csv of the cell.
        prepared: train.npy, validation/, test/.
        out: report.md, scores.csv, figures, and a folder for each decoder.
        log: called with the history of the adversarial training.
    """
    rows: list[TwinRow] = []
    shown: dict[str, dict[str, RgbArray]] = {}
    histories: dict[str, list[Row]] = {}
    for decoder in DECODERS:
        network, history = train_decoder(params, loss, decoder, coded / "codec", prepared, log)
        save_model(out / decoder, network, {"decoder": decoder, "loss": loss})
        write_history(out / decoder / "history.csv", history)
        histories[decoder] = history
        codec = Codec.load(coded / "codec")
        codec.network = network
        for row, original, decoded in decoded_files(codec, coded, prepared, params.twin.points):
            quality = measure(original, decoded)
            pixels = original.shape[0] * original.shape[1]
            rows.append(
                TwinRow(
                    decoder, row.picture, row.point, 8 * row.bytes / pixels, quality.psnr_db,
                    quality.ssim, quality.ms_ssim, ssimulacra2(original, decoded),
                    patch_distance(original, decoded),
                )
            )  # fmt: skip
            if row.point == 0:
                shown.setdefault(row.picture, {"original": original})[decoder] = decoded
    write_rows(out / "scores.csv", TwinRow, rows)
    names = []
    for picture, versions in list(shown.items())[:SHOWN_PICTURES]:
        corner = busiest_corner(versions["original"])
        strip = labelled_row({name: crop(image, corner) for name, image in versions.items()})
        write_png(out / f"{picture}.png", strip)
        names.append(f"{picture}.png")
    _draw_game(histories["adversarial"], out / "game.png")
    text = report_text(params, coded.name, rows, names)
    (out / "report.md").write_text(text, encoding="utf-8")
    return text


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
) -> Iterator[tuple[CodedRow, RgbArray,
                    RgbArray]]:  # fmt: skip
    """The row, the original and the decoded picture of every file of the lowest rates."""
    for row in read_rows(coded / "coded.csv", CodedRow):
        if row.point < points:
            data = (coded / "files" / f"{row.picture}-{row.point}.lino").read_bytes()
            original = read_image(prepared / "test" / f"{row.picture}.png")
            yield row, original, codec.decompress(data)


def differences(
    rows: Sequence[TwinRow], seed: int
) -> dict[tuple[int, str], tuple[float, float, float]]:
    """Adversarial minus plain with a 95 % interval over pictures, by (point, score)."""
    found = {}
    for point in sorted({row.point for row in rows}):
        by: Mapping[tuple[str, str], TwinRow] = {
            (row.decoder, row.picture): row for row in rows if row.point == point
        }
        pictures = sorted({picture for _, picture in by})
        draws = resample_pictures(len(pictures), DRAWS, seed)
        for score in SCORES:
            change = np.array(
                [
                    getattr(by["adversarial", name], score) - getattr(by["plain", name], score)
                    for name in pictures
                ]
            )
            interval = percentile_interval(float(change.mean()), change[draws].mean(1))
            found[point, score] = (interval.estimate, interval.low, interval.high)
    return found


def report_text(params: Params, cell: str, rows: Sequence[TwinRow], names: Sequence[str]) -> str:
    """The tables in Markdown.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError(f"{cell} has no files at the lowest {params.twin.points} rate points")
    changes = differences(rows, params.seed)
    lines = [
        f"# Twin decoders of {cell}\n",
        f"The same files, decoded by networks trained for {params.twin.megapixels:g} megapixels "
        "without and with an adversary. Mean over the pictures; adversarial - plain with a 95 % "
        "interval over the pictures.\n",
        "| rate [bpp] | decoder | " + " | ".join(SCORES.values()) + " |",
        "|---" * (2 + len(SCORES)) + "|",
    ]
    for point in sorted({row.point for row in rows}):
        for decoder in DECODERS:
            mine = [row for row in rows if (row.decoder, row.point) == (decoder, point)]
            rate = np.mean([row.bpp for row in mine])
            means = [float(np.mean([getattr(row, score) for row in mine])) for score in SCORES]
            cells = " | ".join(f"{value:.4g}" for value in means)
            lines.append(f"| {rate:.3f} | {decoder} | {cells} |")
        cells = " | ".join(
            "{:+.3g} [{:+.2g}, {:+.2g}]".format(*changes[point, score]) for score in SCORES
        )
        lines.append(f"| | difference | {cells} |")
    lines += ["", *(f"![{name}]({name})\n" for name in names), "![discriminator](game.png)\n"]
    return "\n".join(lines)


def _draw_game(history: Sequence[Row], path: pathlib.Path) -> None:
    """Loss and accuracy of the discriminator over the training."""
    titles = {"discriminator_loss": "loss", "discriminator_accuracy": "accuracy"}
    figure, panels = figures.small_multiples(1, len(titles), width=3.6, height=2.6)
    for axes, (name, title) in zip(panels[0], titles.items(), strict=True):
        rows = [row for row in history if name in row and math.isfinite(row[name])]
        axes.plot([row["megapixels"] for row in rows], [row[name] for row in rows], color="#0072B2")
        figures.set_title(axes, f"discriminator's {title}")
        axes.set_xlabel("megapixels seen")
    figures.save(figure, path)
