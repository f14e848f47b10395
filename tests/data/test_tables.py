from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nomoat.data.readers.source import Unreadable
from nomoat.data.readers.tables import csv_rows, parquet_rows
from nomoat.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("divider", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_with_quotes_and_line_breaks(tmp_path: Path, divider: str, end: str) -> None:
    lines = [
        f"\ufeffprompt{divider}completion",
        f'"a{divider} ""b"""{divider}"two\nlines"',
        "",
        f"c{divider}",
    ]
    assert list(csv_rows(write(tmp_path / "a.csv", end.join(lines)))) == [
        (1, {"prompt": f'a{divider} "b"', "completion": "two\nlines"}),
        (3, {"prompt": "c", "completion": ""}),
    ]


def test_csv_rows_that_are_bad(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,b\n1,2,3\n"x"y,2\n4,5\n')
    assert list(csv_rows(path)) == [
        (1, Unreadable("has 3 columns; the header has 2", "1,2,3")),
        (2, Unreadable("is not CSV: ',' expected after '\"'", "")),
        (3, {"a": "4", "b": "5"}),
    ]


def test_csv_with_a_quotation_mark_that_never_closes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'a,b\n1,2\n3,"4\n5,6\n')
    with pytest.raises(DataError) as error:
        list(csv_rows(path))
    assert error.value.message == (
        f"{path}: row 2: ends in the middle of a value: a quotation mark is never closed."
    )


def test_csv_header_with_the_same_name_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "1,2,2\n3,4,5\n")
    with pytest.raises(DataError) as error:
        list(csv_rows(path))
    assert error.value.message == (
        f"{path}:1: the header has columns without a name, or twice the same: 1, 2, 2."
    )


def test_csv_with_a_long_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"a,b\n{'x' * 200_000},y\n")
    assert list(csv_rows(path)) == [(1, {"a": "x" * 200_000, "b": "y"})]


def test_parquet_leaves_out_what_has_no_value(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}], "n": 1},
        {"messages": [{"role": "assistant", "content": "Hello", "name": "bot"}]},
    ] * 300
    pq.write_table(pa.Table.from_pylist(rows), path)
    seen: list[int] = []
    read = list(parquet_rows(path, seen.append))
    assert [row for _, row in read] == rows
    assert [number for number, _ in read] == list(range(1, 601))
    assert seen[-1] == path.stat().st_size


@pytest.mark.parametrize("data", [b"hello, I am no Parquet file", b"PAR1"])
def test_parquet_that_is_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        list(parquet_rows(path))
    assert error.value.message.startswith(f"{path}: is not a Parquet file, or is damaged: ")
    assert error.value.hint == "Copy or download the file again."
