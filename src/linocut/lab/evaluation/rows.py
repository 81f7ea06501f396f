"""Tables of measurements: a list of frozen dataclasses, and the CSV file that holds them.

The fields of the dataclass (`str`, `int` or `float`) are the columns, in their order. Floats keep
eight digits, more than any measurement here has.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
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
