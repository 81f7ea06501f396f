"""What a cell is worth: its files, decoded in fresh processes, against the original pictures.

coded/<cell>/{codec/, files/*.lino, coded.csv} + prepared/test/*.png
    --> evaluated/<cell>/{evaluation.csv, pictures/*.png}

Nothing that the encoder knew is used: a rate is the size of the file on disk, header included, and
a quality is that of the picture that a new process decodes from the file and the packaged codec.
The estimate of the rate that came with the file is kept beside it, never instead of it.
"""

from __future__ import annotations

import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from linocut.errors import DataError, LinocutError
from linocut.files import sha256_of
from linocut.lab.config.process import Kept, map_in_processes
from linocut.lab.evaluation.rows import CodedRow, EvaluationRow, read_rows, write_rows
from linocut.pictures.image import RgbArray, read_image, write_png
from linocut.pictures.quality import Ssimulacra2, measure

if TYPE_CHECKING:
    from linocut.lab.config.params import CompareConfig


class Decoder(Protocol):
    """What evaluation needs of a codec."""

    def decompress(self, data: bytes) -> RgbArray:
        """Decode a whole file to (h, w, 3) uint8."""


def load_codec(folder: Path) -> Decoder:
    """Load the packaged codec of a cell, on the CPU: what a user without a GPU gets."""
    from linocut.codec.codec import Codec

    codec: Decoder = Codec.load(folder)
    return codec


def evaluate_cell(
    coded_folder: Path,
    test_folder: Path,
    out_folder: Path,
    config: CompareConfig,
    *,
    load: Callable[[Path], Decoder] = load_codec,
    state: Path | None = None,
) -> None:
    """Decode and measure every file of a cell.

    Writes `evaluation.csv` (rows as `EvaluationRow`) and `pictures/<picture>-<point>.png` for the
    pictures that the report shows.

    Args:
        coded_folder: `codec/`, `files/<picture>-<point>.lino` and `coded.csv`.
        test_folder: the original pictures, PNG.
        out_folder: made if it is not there.
        config: which pictures the report shows, and at about which rate.
        load: makes the decoder from the codec's folder; a module-level function.
        state: folder for what an interrupted evaluation leaves to the next, named by the codec and
            the numbers; None for none.

    Raises:
        DataError: a file or an original is missing or is not what coded.csv says.
        BitstreamError: a file does not decode.
    """
    coded = read_rows(coded_folder / "coded.csv", CodedRow)
    by_picture: dict[str, list[CodedRow]] = defaultdict(list)
    for row in coded:
        by_picture[row.picture].append(row)
    pictures_folder = out_folder / "pictures"
    pictures_folder.mkdir(parents=True, exist_ok=True)
    shown = set(spread(sorted(by_picture), config.shown_pictures))
    shown_point = nearest_point(coded, config.shown_bpp)
    tasks = [
        _Task(
            coded_folder,
            test_folder / f"{picture}.png",
            tuple(rows),
            {shown_point: pictures_folder} if picture in shown else {},
            load,
        )
        for picture, rows in sorted(by_picture.items())
    ]
    label = f"evaluate {out_folder.name}"
    kept = Kept(state / "evaluated", _content) if state else None
    tasks.sort(key=lambda task: bool(task.shown))  # what DVC deletes before it repeats comes last
    found = map_in_processes(_evaluate, tasks, label=label, kept=kept)
    rows = sorted((row for rows in found for row in rows), key=lambda row: row.picture)
    write_rows(out_folder / "evaluation.csv", EvaluationRow, rows)


def spread(names: Sequence[str], count: int) -> list[str]:
    """`count` names at even distances, or all when there are not more."""
    if count >= len(names):
        return list(names)
    return [names[(2 * index + 1) * len(names) // (2 * count)] for index in range(count)]


def nearest_point(rows: Iterable[CodedRow], bpp: float) -> int:
    """The rate point whose mean estimated rate over the pictures is nearest to `bpp`, in ratio."""
    rates: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        rates[row.point].append(row.estimated_bpp)
    means = {point: sum(values) / len(values) for point, values in rates.items()}
    return min(means, key=lambda point: abs(math.log(max(means[point], 1e-9) / bpp)))


@dataclass(frozen=True)
class _Task:
    """One picture at all its rate points."""

    coded_folder: Path
    original: Path
    rows: tuple[CodedRow, ...]
    shown: dict[int, Path]
    load: Callable[[Path], Decoder]


def _content(task: _Task) -> str:
    """Hash of the files of one picture, and of what coded.csv says of them."""
    drawn = (folder / f"{task.original.stem}-{point}.png" for point, folder in task.shown.items())
    if not all(path.exists() for path in drawn):
        return "to be drawn"
    files = [task.coded_folder / "files" / f"{row.picture}-{row.point}.lino" for row in task.rows]
    return sha256_of(repr(task.rows).encode(), task.original, *files)


@functools.lru_cache(maxsize=1)
def _decoder(load: Callable[[Path], Decoder], folder: Path) -> Decoder:
    """Load a codec once in each worker process."""
    return load(folder)


def _evaluate(task: _Task) -> list[EvaluationRow]:
    decoder = _decoder(task.load, task.coded_folder / "codec")
    original = read_image(task.original)
    perceptual = Ssimulacra2(original)
    rows = []
    for row in task.rows:
        name = f"{row.picture}-{row.point}"
        data = _read_file(task.coded_folder / "files" / f"{name}.lino", row.bytes)
        started = time.perf_counter()
        try:
            decoded = decoder.decompress(data)
        except LinocutError as error:
            raise type(error)(f"{name}.lino: {error}") from None
        decode_s = time.perf_counter() - started
        if decoded.shape != original.shape:
            raise DataError(f"{name}.lino decodes to {decoded.shape}, expected {original.shape}")
        if row.point in task.shown:
            write_png(task.shown[row.point] / f"{name}.png", decoded)
        quality = measure(original, decoded)
        rows.append(
            EvaluationRow(
                picture=row.picture,
                point=row.point,
                step=row.step,
                bytes=len(data),
                bpp=8 * len(data) / (original.shape[0] * original.shape[1]),
                estimated_bpp=row.estimated_bpp,
                psnr_db=quality.psnr_db,
                ssim=quality.ssim,
                ms_ssim=quality.ms_ssim,
                ssimulacra2=perceptual.score(decoded),
                encode_s=row.encode_s,
                decode_s=decode_s,
            )
        )
    return rows


def _read_file(path: Path, size: int) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    if len(data) != size:
        raise DataError(f"{path} has {len(data)} bytes, expected {size} as coded.csv says")
    return data
