"""Which layout the rows of a file have: found in the first hundred, and said aloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nomoat.data.readers.alpaca import ALPACA
from nomoat.data.readers.completion import COMPLETION
from nomoat.data.readers.fields import Fields, Format
from nomoat.data.readers.messages import MESSAGES
from nomoat.data.readers.preference import PREFERENCE
from nomoat.data.readers.rating import RATING
from nomoat.data.readers.sharegpt import SHAREGPT
from nomoat.data.readers.source import Unreadable
from nomoat.data.readers.text import TEXT
from nomoat.data.rows import Where
from nomoat.errors import DataError, nearest

# The first that fits is taken: those that need more columns come first.
FORMATS = (PREFERENCE, RATING, MESSAGES, SHAREGPT, ALPACA, COMPLETION, TEXT)
ROWS_LOOKED_AT = 100


@dataclass(frozen=True)
class Detected:
    """A file's format, which column holds each of its fields, and a sentence for the owner."""

    format: str
    mapping: dict[str, str]
    said: str


def format_named(name: str) -> Format:
    found = [layout for layout in FORMATS if layout.name == name]
    if not found:
        names = [layout.name for layout in FORMATS]
        expected = f"auto, {', '.join(names)}"
        raise DataError(f'data.format: got "{name}"; expected {expected}.{nearest(name, names)}')
    return found[0]


def detect_rows(
    file: str, sample: Iterable[tuple[int, object]], name: str = "auto"
) -> tuple[Format, Detected]:
    """The format of the sampled rows, or a check that they have the named one. DataError where no format
    fits, with the columns found, the shapes expected, and what to do."""
    numbered = [(Where(file, number), value) for number, value in sample]
    if not numbered:
        raise DataError(f"{file}: holds no rows; expected at least one.")
    rows = [(where, value) for where, value in numbered if isinstance(value, dict)]
    if not rows:
        raise _no_rows(file, numbered[0])
    columns = Counter(key for _, row in rows for key, value in row.items() if value is not None)
    common = {column for column, count in columns.items() if 2 * count >= len(rows)}
    for layout in FORMATS if name == "auto" else (format_named(name),):
        mapping = _mapping(layout, common, set(columns))
        if mapping is not None and any(layout.fits(Fields(row, mapping, where)) for where, row in rows):
            return layout, Detected(layout.name, mapping, _said(file, layout, mapping, list(columns)))
    raise _no_format(file, name, list(columns), [row for _, row in rows])


def _mapping(layout: Format, common: set[str], any_row: set[str]) -> dict[str, str] | None:
    """Field to column. What the layout needs must be in most rows, the rest in any; None where it is not."""
    mapping: dict[str, str] = {}
    needed = set().union(*layout.needs)
    for field, choices in layout.fields.items():
        present = common if field in needed else any_row
        column = next(
            (choice for choice in choices if choice in present and choice not in mapping.values()), None
        )
        if column is not None:
            mapping[field] = column
    return mapping if any(need <= mapping.keys() for need in layout.needs) else None


def _said(file: str, layout: Format, mapping: dict[str, str], columns: list[str]) -> str:
    read = [column if column == field else f"{column} as {field}" for field, column in mapping.items()]
    unread = [column for column in columns if column not in mapping.values()]
    ignored = f"; not read: {_listed(unread)}" if unread else ""
    return f"{file}: {layout.name} rows, from {_listed(read)}{ignored}"


def _listed(words: list[str]) -> str:
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")


def _no_rows(file: str, first: tuple[Where, object]) -> DataError:
    where, value = first
    if isinstance(value, Unreadable):
        return DataError(f"{where}: {value.reason}: {value.excerpt}", hint=_expected())
    kind = "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a number"
    return DataError(f"{where}: the row is {kind}; expected an object with named fields.", hint=_expected())


def _no_format(file: str, name: str, columns: list[str], rows: list[dict[str, Any]]) -> DataError:
    found = _listed(columns) or "none"
    for column in columns:
        inner = rows[0].get(column)
        if len(rows) == 1 and isinstance(inner, list) and inner and isinstance(inner[0], dict):
            return DataError(
                f"{file}: is one object with the keys {found}; expected an array of rows.",
                hint=f'The rows seem to be in "{column}": write that list alone, for example with '
                f"jq .{column}",
            )
    if name != "auto":
        shape = format_named(name).shape
        return DataError(
            f"{file}: the rows have the columns {found}, which is not the format {name}.",
            hint=f"Expected {shape}. With format: auto the rows are looked at.",
        )
    return DataError(
        f"{file}: the rows have the columns {found}, which is no format that is known.", hint=_expected()
    )


def _expected() -> str:
    shapes = "\n".join(f"    {layout.name:18}{layout.shape}" for layout in reversed(FORMATS))
    return f"Expected one of these (rename your columns to match):\n{shapes}"
