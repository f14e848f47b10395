from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nomoat.data.readers import source
from nomoat.data.readers.json_values import json_array, json_lines
from nomoat.data.readers.source import Unreadable
from nomoat.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    # Two frames, the second of which knows nothing of the first.
    ".two.zst": lambda data: b"".join(
        zstandard.ZstdCompressor().compress(part) for part in (data[:9], data[9:])
    ),
}
FIXTURE = [HealthCheck.function_scoped_fixture]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


@settings(max_examples=60, deadline=None, suppress_health_check=FIXTURE)
@given(
    values=st.lists(VALUES, max_size=5),
    chunk=st.integers(1, 9),
    indent=st.sampled_from([None, 1]),
    ascii=st.booleans(),
)
def test_arrays_are_read_however_the_chunks_fall(
    tmp_path: Path, values: list[Any], chunk: int, indent: int | None, ascii: bool
) -> None:
    path = write(tmp_path / "a.json", json.dumps(values, indent=indent, ensure_ascii=ascii))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "CHUNK_BYTES", chunk)
        assert list(json_array(path)) == list(enumerate(values, 1))


@settings(max_examples=40, deadline=None, suppress_health_check=FIXTURE)
@given(
    values=st.lists(VALUES, min_size=1, max_size=5),
    chunk=st.integers(1, 9),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_lines_are_read_however_the_chunks_fall(
    tmp_path: Path, values: list[Any], chunk: int, end: str
) -> None:
    lines = [json.dumps(value, ensure_ascii=False) for value in values]
    path = write(tmp_path / "a.jsonl", end.join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "CHUNK_BYTES", chunk)
        assert list(json_lines(path)) == list(enumerate(values, 1))


@pytest.mark.parametrize("pack", PACK)
def test_compression_is_seen_in_the_bytes_and_not_in_the_name(tmp_path: Path, pack: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(PACK[pack]('{"a": "狐"}\n\n{"a": 2}\n'.encode()))
    assert list(json_lines(path)) == [(1, {"a": "狐"}), (3, {"a": 2})]


def test_values_without_an_array_around_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '\ufeff {"a":\n1}\n{"a": 2} 3')
    assert list(json_array(path)) == [(1, {"a": 1}), (2, {"a": 2}), (3, 3)]


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_bom_and_windows_lines(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CHUNK_BYTES", chunk)
    path = write(tmp_path / "a.jsonl", '\ufeff{"a": 1}\r\n{"a": 2}\r\n')
    assert list(json_lines(path)) == [(1, {"a": 1}), (2, {"a": 2})]


def test_line_separators_inside_text_do_not_end_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"a": "x\u2028y\x85z"}\n')
    assert list(json_lines(path)) == [(1, {"a": "x\u2028y\x85z"})]


SAMPLE = '[{"a": "x\\n\\u00e9\\"", "b": [1.5e3, true]},\n {"c": null, "d": "狐"}]'


@pytest.mark.parametrize("cut", range(1, len(SAMPLE)))
def test_an_array_cut_anywhere_says_so(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.json", SAMPLE[:cut])
    line = 1 + SAMPLE[:cut].count("\n")
    with pytest.raises(DataError) as error:
        list(json_array(path))
    assert error.value.message == (
        f"{path}:{line}: ends in the middle of a value: {SAMPLE[:cut].rstrip()[-40:]!r}."
    )


LINE = '{"a": "x\\n\\u00e9\\"", "b": [1.5e3, true, null]}'


@pytest.mark.parametrize("cut", range(1, len(LINE)))
def test_a_last_line_cut_anywhere_says_so(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n' + LINE[:cut])
    with pytest.raises(DataError) as error:
        list(json_lines(path))
    assert error.value.message == f"{path}:2: ends in the middle of a value: {LINE[:cut].rstrip()[-40:]!r}."
    assert error.value.hint == "The file is cut short: copy or download it again, or delete its last row."


def test_a_cut_line_in_the_middle_is_one_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"a": "x\n{"a": 2}\n')
    assert list(json_lines(path)) == [
        (1, Unreadable("ends in the middle of a value", '{"a": "x')),
        (2, {"a": 2}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": 1,}', "is not JSON: expecting property name enclosed in double quotes at character 9"),
        ('{"a" 1}', "is not JSON: expecting ':' delimiter at character 6"),
        ('{"a": 1} {"a": 2}', "is not JSON: extra data at character 10"),
        ("hello", "is not JSON: expecting value at character 1"),
        ('{"a": "\\q"}', "is not JSON: invalid \\escape at character 8"),
        ('{"a": "\\u12"}', "is not JSON: invalid \\uXXXX escape at character 9"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_bad_last_line_that_is_not_cut_is_a_bad_row(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n' + line)
    (first, (number, bad)) = list(json_lines(path))
    assert first == (1, {"a": 1})
    assert number == 2
    assert isinstance(bad, Unreadable)
    assert bad.reason == reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"a": 1}\n{"a": 2}]', ":2: is not JSON: expected a comma or ] after a row, got '{'."),
        ('[{"a": 1},\n\n {"a" 2}]', ":3: is not JSON: expecting ':' delimiter."),
        ('[{"a": 1}] x', ":1: is not JSON: more text after the end of the array."),
        ("<html>", ":1: is not JSON: expecting value."),
        ("[" * 100_000, ":1: is not JSON: a value is nested too deeply."),
    ],
)
def test_an_array_that_is_broken(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path / "a.json", text)
    with pytest.raises(DataError) as error:
        list(json_array(path))
    assert error.value.message == f"{path}{expected}"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("keep", [10, -8, -1])
def test_compressed_files_cut_short(tmp_path: Path, suffix: str, keep: int) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    rows = "".join(f'{{"a": {i}}}\n' for i in range(1000))
    path.write_bytes(PACK[suffix](rows.encode())[:keep])
    with pytest.raises(DataError) as error:
        list(json_lines(path))
    assert error.value.message.startswith(f"{path}: its compressed data is damaged or cut short (")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": "\xe9"}', ":1: is not UTF-8: byte 0xe9 at offset 7."),
        (b'{"a": 1}\n{"a": "caf\xe9"}\n', ":2: is not UTF-8: byte 0xe9 at offset 19."),
        (b'{"a": 1}\n\xc3', ":2: is not UTF-8: byte 0xc3 at offset 9."),
        (b'{"a": 1}\n\x00\x01', ": is not text: it has a zero byte at offset 9."),
    ],
)
@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_what_is_no_text(
    tmp_path: Path, data: bytes, expected: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CHUNK_BYTES", chunk)
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        list(json_lines(path))
    assert error.value.message == f"{path}{expected}"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ('{"a": 1}'.encode("utf-16"), "UTF-16: save it as UTF-8"),
        (b"PAR1....", "Parquet: its name should end in .parquet"),
        (b"PK\x03\x04....", "a zip archive or a spreadsheet: unpack it, or save it as CSV"),
    ],
)
def test_what_is_known_by_its_first_bytes(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError) as error:
        list(json_lines(path))
    assert error.value.message == f"{path}: is not text but {what}."


@pytest.mark.parametrize("reader", [json_array, json_lines])
def test_a_value_without_end_is_not_held(
    tmp_path: Path, reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_VALUE_CHARS", 1000)
    monkeypatch.setattr(source, "CHUNK_BYTES", 100)
    path = write(tmp_path / "a.jsonl", '["' + "x" * 5000)
    with pytest.raises(DataError) as error:
        list(reader(path))
    assert error.value.message == f"{path}:1: one value is longer than 1,000 characters."


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    """24 MB of rows, read in about as much memory as one chunk takes."""
    row = json.dumps({"instruction": "x" * 1000, "output": "y" * 1000})
    path = tmp_path / name
    with path.open("w") as file:
        rows = 12_000
        file.write("[" if name == "a.json" else "")
        for i in range(rows):
            file.write(row + (",\n" if name == "a.json" and i < rows - 1 else "\n"))
        file.write("]" if name == "a.json" else "")
    tracemalloc.start()
    reader = json_array(path) if name == "a.json" else json_lines(path)
    assert sum(1 for _ in reader) == rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * source.CHUNK_BYTES < path.stat().st_size / 2


def test_progress_counts_compressed_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "CHUNK_BYTES", 1000)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"a": %d}\n' % i for i in range(5000))))
    seen: list[int] = []
    assert sum(1 for _ in json_lines(path, seen.append)) == 5000
    assert seen == sorted(seen)
    assert seen[-1] == path.stat().st_size
