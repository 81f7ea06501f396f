"""Tables of measurements: their rows, and the CSV files that hold them.

    rows --write_rows--> coded.csv, evaluation.csv, anchors.csv, ... --read_rows--> rows

All kinds of rows are here, below whatever makes or reads them: a report that reads a table needs
none of the code that measured it.
The fields of the dataclass (`str`, `int` or `float`) are the columns, in their order. Floats keep
eight digits, more than any measurement here has.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from linocut.errors import DataError

Row = TypeVar("Row")


def write_rows(path: Path, row_type: type[Row], rows: Sequence[Row]) -> None:
    """Write rows as CSV with a header, in place of what was there."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = list(get_type_hints(row_type))
    table.writerow(names)
    for row in rows:
        table.writerow(_text(getattr(row, name)) for name in names)
    path.write_text(text.getvalue(), encoding="utf-8")


def read_rows(path: Path, row_type: type[Row]) -> list[Row]:
    """Read rows of a dataclass from CSV; columns that it does not have are left alone.

    Raises:
        DataError: no such file, no rows, a column is missing, or a value is not of its type.
    """
    hints = get_type_hints(row_type)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            missing = [name for name in hints if name not in (table.fieldnames or ())]
            if missing:
                raise DataError(f"{path} lacks the columns {', '.join(missing)}")
            rows = [_row(row_type, hints, values, path, table.line_num) for values in table]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if not rows:
        raise DataError(f"{path} has no rows, expected at least one")
    return rows


def _row(
    row_type: type[Row], hints: dict[str, Any], values: dict[str, str], path: Path, line: int
) -> Row:
    try:
        return row_type(**{name: kind(values[name]) for name, kind in hints.items()})
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}, line {line}: {error}") from None


def _text(value: object) -> str:
    return f"{value:.8g}" if isinstance(value, float) else str(value)


CONTROLS = {"wavelet": "wavelet, no network", "no_contexts": "cae-l2, no contexts"}
"""Titles of the codecs with something taken away that every table shows, by name."""


@dataclass(frozen=True)
class CodedRow:
    """One compressed file, as its encoder saw it."""

    picture: str
    point: int
    step: float
    bytes: int
    estimated_bpp: float
    encode_s: float


@dataclass(frozen=True)
class PlaneRow:
    """Ideal code length of one channel of one band, mean over the test pictures."""

    point: int
    band: str
    channel: int
    bpp: float


TWIN_DECODERS = ("plain", "twin", "adversarial")
"""A codec's own decoder, one that went through the same training without, and one with an
adversary.
"""


@dataclass(frozen=True)
class TwinRow:
    """One file through one of the decoders, or the plain decoding through one of the controls."""

    decoder: str
    picture: str
    point: int
    bpp: float
    psnr_db: float
    ssimulacra2: float
    feature_distance: float


@dataclass(frozen=True)
class FrechetRow:
    """All files of one rate through one of the decoders.

    `ratio` is over the distance of the `reference`, with a 95 % interval over the pictures.
    """

    decoder: str
    point: int
    frechet_distance: float
    reference: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class GateRow:
    """One condition of a training that has taught something, what it came to, passed or failed."""

    condition: str
    value: float
    verdict: str


@dataclass(frozen=True)
class EvaluationRow:
    """One compressed file, as a decoder finds it."""

    picture: str
    point: int
    step: float
    bytes: int
    bpp: float
    estimated_bpp: float
    psnr_db: float
    ssim: float
    ms_ssim: float
    ssimulacra2: float
    encode_s: float
    decode_s: float


@dataclass(frozen=True)
class AnchorRow:
    """One picture through one anchor at one setting."""

    codec: str
    picture: str
    setting: int
    bytes: int
    bpp: float
    psnr_db: float
    ssim: float
    ms_ssim: float
    ssimulacra2: float
    encode_s: float
    decode_s: float


MeasuredRow = EvaluationRow | AnchorRow


@dataclass(frozen=True)
class BdRow:
    """One curve against one anchor; bounds of a 95 % interval; NaN where the curves do not meet."""

    curve: str
    kind: str
    metric: str
    anchor: str
    bd_rate: float
    low: float
    high: float


@dataclass(frozen=True)
class RdRow:
    """One point of a mean curve."""

    curve: str
    kind: str
    bpp: float
    psnr_db: float
    ssim_db: float
    ms_ssim_db: float
    ssimulacra2: float


LEARNED = ("fixed", "lino", "resilient")
CLASSICAL = ("jpeg", "jpeg_restart", "jpeg2000")
"""The arms of a study of bit errors."""
CLASSICAL_CELL = "classical"
PROTECTION = ("payload", "all")
"""Where bits are wrong: behind the header only, or anywhere."""


@dataclass(frozen=True)
class ErrorRow:
    """One file of one arm, damaged once.

    `decoded` is 0 where the decoder refused; its quality is then that of a grey picture.
    `concealed` is the share of squares that the decoder says are blurred or concealed.
    """

    arm: str
    picture: str
    errors_in: str
    ber: float
    trial: int
    bpp: float
    wrong_bits: int
    decoded: int
    psnr_db: float
    ms_ssim: float
    concealed: float


@dataclass(frozen=True)
class MatchedRow:
    """One picture through one anchor, at about the size of the file of `cell`."""

    picture: str
    codec: str
    cell: str
    bytes: int
    psnr_db: float
    ms_ssim: float


@dataclass(frozen=True)
class RestoredRow:
    """One test picture, degraded and restored once.

    Attributes:
        bpp: of the file between the two; 0 without a bottleneck.
        input_psnr_db: and so on: of the degraded picture, against the clean one.
        psnr_db: and so on: of the restored picture, against the clean one.
    """

    loss: str
    bottleneck: int
    seed: int
    picture: str
    step: float
    bpp: float
    input_psnr_db: float
    input_ssim: float
    input_ms_ssim: float
    input_ssimulacra2: float
    psnr_db: float
    ssim: float
    ms_ssim: float
    ssimulacra2: float


@dataclass(frozen=True)
class NoiseRow:
    """One picture with noise of `sigma` grey levels through one codec.

    Attributes:
        input_psnr_db: of the noisy picture.
        psnr_db: of the decoded picture, against the clean one.
    """

    codec: str
    picture: str
    sigma: float
    bpp: float
    input_psnr_db: float
    psnr_db: float
