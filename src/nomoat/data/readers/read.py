"""Any data file as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from nomoat.data.readers.detect import ROWS_LOOKED_AT, Detected, detect_rows, format_named
from nomoat.data.readers.fields import Fields, Format
from nomoat.data.readers.hub import hub_rows, is_hub_id
from nomoat.data.readers.json_values import json_array, json_lines
from nomoat.data.readers.plain import PASSAGE_CHARS, documents, look
from nomoat.data.readers.source import OnBytes, Unreadable, check_file
from nomoat.data.readers.tables import csv_rows, parquet_rows
from nomoat.data.rows import BadRow, Row, TextRow, Where, excerpt
from nomoat.errors import DataError

Records = Callable[[Path, OnBytes | None], Iterator[tuple[int, object]]]
_RECORDS: dict[str, Records] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_array,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
_TEXT = (".txt", ".text", ".md")
_MEDIA = ("images", "videos", "audios")


def read_rows(
    path: str | Path, *, format: str = "auto", on_bytes: OnBytes | None = None
) -> Iterator[Row | BadRow]:
    """The rows of a file or Hub data set, streamed. The file is opened and its format found at once, so that
    what is wrong with the whole file is a DataError here; a row that cannot be used is a BadRow."""
    return open_rows(path, format=format, on_bytes=on_bytes)[1]


def detect(path: str | Path, *, format: str = "auto") -> Detected:
    """What `read_rows` would read, found in the first rows."""
    return open_rows(path, format=format)[0]


def open_rows(
    path: str | Path, *, format: str = "auto", on_bytes: OnBytes | None = None
) -> tuple[Detected, Iterator[Row | BadRow]]:
    """`detect` and `read_rows` in one reading. `on_bytes` is called with how far the file is read."""
    if format != "auto":
        format_named(format)
    name, file = str(path), Path(path)
    if isinstance(path, str) and is_hub_id(name) and not file.exists() and known_suffix(name) is None:
        return _open_records(name, hub_rows(name), format)
    check_file(file)
    suffix = known_suffix(name)
    if suffix is None:
        raise DataError(
            f"{name}: has a name that says nothing of what is in it.",
            hint=f"Expected a name that ends in {', '.join([*_RECORDS, *_TEXT])}, or these with .gz or .zst.",
        )
    if suffix in _TEXT:
        return _open_text(file, format, on_bytes)
    return _open_records(name, _RECORDS[suffix](file, on_bytes), format)


def known_suffix(name: str) -> str | None:
    """The ending that says how a file is read, without .gz and .zst; None where it is no data file's."""
    suffix = Path(name.lower().removesuffix(".gz").removesuffix(".zst")).suffix
    return suffix if suffix in _RECORDS or suffix in _TEXT else None


def _open_text(file: Path, format: str, on_bytes: OnBytes | None) -> tuple[Detected, Iterator[Row | BadRow]]:
    if format not in ("auto", "text"):
        raise DataError(f"{file}: is plain text, which cannot have the format {format}.")
    divider = look(file)
    if divider:
        how = f"documents divided by {'a form feed' if divider == chr(12) else divider}"
    else:
        how = f"one document, in passages of about {PASSAGE_CHARS:,} characters (no <|endoftext|> in it)"
    rows = documents(file, divider, on_bytes)
    return Detected("text", {}, f"{file}: plain text, {how}"), _not_empty(file, rows)


def _not_empty(file: Path, rows: Iterator[TextRow]) -> Iterator[Row | BadRow]:
    first = next(rows, None)
    if first is None:
        raise DataError(f"{file}: holds nothing but white space; expected text.")
    return chain([first], rows)


def _open_records(
    name: str, records: Iterator[tuple[int, object]], format: str
) -> tuple[Detected, Iterator[Row | BadRow]]:
    sample = list(islice(records, ROWS_LOOKED_AT))
    layout, detected = detect_rows(name, sample, format)
    return detected, _rows(name, chain(sample, records), layout, layout.columns(detected.mapping))


def _rows(
    name: str, records: Iterable[tuple[int, object]], layout: Format, columns: dict[str, str]
) -> Iterator[Row | BadRow]:
    for number, value in records:
        where = Where(name, number)
        if isinstance(value, Unreadable):
            yield BadRow(where, value.reason, value.excerpt)
            continue
        try:
            yield layout.build(Fields(_object(value, where), columns, where))
        except DataError as error:
            yield BadRow(where, error.message.removeprefix(f"{where}: "), excerpt(value))


def _object(value: object, where: Where) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: is {excerpt(value)}; expected an object with named fields.")
    media = next((key for key in _MEDIA if value.get(key)), None)
    if media is not None:
        raise DataError(f"{where}: {media}: has {media}; only text is read.")
    return value
