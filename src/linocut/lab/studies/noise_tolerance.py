"""How noise in its input reaches the decoded picture: learned codecs beside JPEG 2000.

    x + noise --codec, at a fixed rate--> decoded, compared with the clean x

Coding at a rate that cannot hold the noise removes a part of it; the question is which codec spends
more of its bits on the noise.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linocut.codec.codec import Codec
from linocut.codec.effort import EncodeOptions
from linocut.codec.rate_control import fit_bytes
from linocut.codec.tiles import Analysed
from linocut.lab.config.params import Params, Stream
from linocut.lab.evaluation.anchors import decode, encode_near
from linocut.lab.evaluation.rows import NoiseRow, write_rows
from linocut.lab.evaluation.workers import map_in_processes
from linocut.lab.studies.restoration import CLEAN, EFFORT, add_noise, variants
from linocut.pictures.image import read_image
from linocut.pictures.quality import psnr_db

COARSEST_STEP = 1024.0
"""Strong noise needs steps coarser than those of the training, up to the largest of the format."""


@dataclass(frozen=True)
class NoiseTask:
    """All that is done with one picture.

    Attributes:
        codecs: folders by name.
        picture: a clean PNG.
        index: of the picture, for its noise.
        sigmas: of the noise, grey levels.
        bpp: of every file.
        seed: of the noise.
    """

    codecs: Mapping[str, pathlib.Path]
    picture: pathlib.Path
    index: int
    sigmas: Sequence[float]
    bpp: float
    seed: int


def noise_tolerance(
    codecs: Mapping[str, pathlib.Path],
    pictures: Sequence[pathlib.Path],
    sigmas: Sequence[float],
    bpp: float,
    seed: int,
) -> list[NoiseRow]:
    """Code every picture with every noise to files of `bpp`, JPEG 2000 to the same sizes.

    Arguments as in `NoiseTask`.
    """
    tasks = [
        NoiseTask(codecs, path, index, sigmas, bpp, seed) for index, path in enumerate(pictures)
    ]
    return [row for rows in map_in_processes(_rows_of, tasks, label="noise") for row in rows]


def measure_noise(
    params: Params,
    arch: str,
    restored: pathlib.Path,
    bases: pathlib.Path,
    prepared: pathlib.Path,
    out: pathlib.Path,
) -> None:
    """The base network of an architecture, and the one of the first loss, beside JPEG 2000.

    Args:
        params: the whole of params.yaml.
        arch: the architecture.
        restored: a folder for every cell.
        bases: a folder for every architecture.
        prepared: the folder with test/.
        out: the CSV file to write, with rows as `NoiseRow`.
    """
    loss = params.grid.loss[0]
    name = variants(loss, params.loss[loss], params.restore.alphas)[0][0]
    codecs = {
        f"{arch}, trained on clean pictures": bases / arch / CLEAN,
        f"{arch}-{name}, trained on noisy ones": restored / f"{arch}-{loss}" / f"codec-{name}",
    }
    pictures = sorted((prepared / "test").glob("*.png"))
    numbers = params.restore
    rows = noise_tolerance(codecs, pictures, numbers.noise_sigmas, numbers.noise_bpp, params.seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_rows(out, NoiseRow, rows)


def _rows_of(task: NoiseTask) -> list[NoiseRow]:
    codecs = {title: Codec.load(folder) for title, folder in task.codecs.items()}
    clean, name = read_image(task.picture), task.picture.stem
    pixels = clean.shape[0] * clean.shape[1]
    most = round(task.bpp * pixels / 8)
    rows = []
    for sigma in task.sigmas:
        noisy = add_noise(clean, sigma, Stream.NOISE.generator(task.seed, task.index))
        before = psnr_db(clean, noisy)
        files = {"JPEG 2000": (encode_near("jpeg2000", noisy, most), decode)}
        for title, codec in codecs.items():
            encode = functools.partial(_encode, codec, codec.analyse(noisy))
            data = fit_bytes(encode, most, (codec.step_range[0], COARSEST_STEP))
            files[title] = (data, codec.decompress)
        for title, (data, decoder) in files.items():
            after = psnr_db(clean, decoder(data))
            rows.append(NoiseRow(title, name, sigma, 8 * len(data) / pixels, before, after))
    return rows


def _encode(codec: Codec, analysed: Analysed, step: float) -> bytes:
    return codec.encode(analysed, step, EncodeOptions(EFFORT))
