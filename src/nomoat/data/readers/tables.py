"""CSV and Parquet files, row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from nomoat.data.readers.source import MAX_VALUE_CHARS, OnBytes, Unreadable, lines
from nomoat.data.rows import excerpt
from nomoat.errors import DataError

_ROWS_A_BATCH = 256


def csv_rows(path: Path, on_bytes: OnBytes | None = None) -> Iterator[tuple[int, object]]:
    """(number, {column: text}) of every row below the header, from 1. Commas, semicolons or tabs divide,
    whichever the header has most of."""
    csv.field_size_limit(MAX_VALUE_CHARS)
    source = (line.text + "\n" for line in lines(path, on_bytes))
    first = next(source, "")
    divider = max(",;\t", key=first.count)
    header = next(csv.reader([first], delimiter=divider, strict=True), [])
    if len(set(header)) != len(header) or "" in header:
        raise DataError(
            f"{path}:1: the header has columns without a name, or twice the same: {', '.join(header)}.",
            hint="Expected one line of column names, such as: prompt,completion",
        )
    reader = csv.reader(source, delimiter=divider, strict=True)
    number = 0
    while True:
        number += 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(
                    f"{path}: row {number}: ends in the middle of a value: a quotation mark is never closed."
                ) from None
            yield number, Unreadable(f"is not CSV: {error}", "")
            continue
        if row is None:
            return
        if not row:  # a blank line
            continue
        if len(row) != len(header):
            reason = f"has {len(row)} columns; the header has {len(header)}"
            yield number, Unreadable(reason, excerpt(divider.join(row)))
        else:
            yield number, dict(zip(header, row, strict=True))


def parquet_rows(path: Path, on_bytes: OnBytes | None = None) -> Iterator[tuple[int, object]]:
    """(number, row) from 1. Keys without a value are left out: Parquet writes every key on every row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        rows, size = max(1, file.metadata.num_rows), path.stat().st_size
        number = 0
        for batch in file.iter_batches(batch_size=_ROWS_A_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, without_nulls(row)
            if on_bytes is not None:
                on_bytes(size * number // rows)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: is not a Parquet file, or is damaged: {str(error).splitlines()[0]}",
            hint="Copy or download the file again.",
        ) from None


def without_nulls(value: object) -> object:
    """The value without keys whose value is null, at every depth."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
