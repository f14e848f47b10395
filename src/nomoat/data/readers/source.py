"""Files as text, in constant memory: plain, gzip or zstandard, checked to be UTF-8 text."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from nomoat.errors import DataError, nearest

OnBytes = Callable[[int], None]
"""Called now and then with the number of bytes of the file that are read (compressed, where it is)."""

CHUNK_BYTES = 1 << 20
MAX_VALUE_CHARS = 1 << 26
"""Longest line, JSON value or document that is held in memory (about 64 MB)."""
_MAGIC = {
    b"PAR1": "Parquet: its name should end in .parquet",
    b"PK\x03\x04": "a zip archive or a spreadsheet: unpack it, or save it as CSV",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"GGUF": "a GGUF model, not data",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
}


@dataclass(frozen=True)
class Unreadable:
    """In place of a row's value, where the file is sound but this row is not."""

    reason: str
    excerpt: str


def check_file(path: Path) -> None:
    """DataError where `path` is not a file with anything in it."""
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.is_file())[:5]
        raise DataError(
            f"{path}: is a folder; expected a file.",
            hint=f"It holds {', '.join(inside)}: name the files." if inside else "It holds no files.",
        )
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: is not there.{nearest(path.name, beside)}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty; expected rows of data.")


def text_chunks(path: Path, on_bytes: OnBytes | None = None) -> Iterator[str]:
    """The file's text in pieces, line ends as they are, without byte order mark."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    lines, offset, started = 1, 0, False
    for chunk in _chunks(path, on_bytes):
        if offset == 0:
            _check_magic(path, chunk)
        zero = chunk.find(b"\0")
        if zero >= 0:
            raise DataError(f"{path}: is not text: it has a zero byte at offset {offset + zero}.")
        kept = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            lines += error.object[: error.start].count(b"\n")
            raise _not_utf8(path, lines, error, offset - kept) from None
        if text:
            yield text if started else text.removeprefix("\ufeff")
            started = True
        lines += chunk.count(b"\n")
        offset += len(chunk)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _not_utf8(path, lines, error, offset - len(error.object)) from None


@dataclass(frozen=True)
class Line:
    """A line without its end; `ended` is False for a last line that has none."""

    number: int
    text: str
    ended: bool


def lines(path: Path, on_bytes: OnBytes | None = None) -> Iterator[Line]:
    """Lines ended by \\n or \\r\\n, numbered from 1."""
    number, rest = 0, ""
    for chunk in text_chunks(path, on_bytes):
        *whole, rest = (rest + chunk).split("\n")
        for text in whole:
            number += 1
            yield Line(number, text.removesuffix("\r"), True)
        check_length(path, number + 1, rest)
    if rest:
        yield Line(number + 1, rest, False)


def check_length(path: Path, line: int, held: str) -> None:
    if len(held) > MAX_VALUE_CHARS:
        raise DataError(
            f"{path}:{line}: one value is longer than {MAX_VALUE_CHARS:,} characters.",
            hint="Expected one row a line (.jsonl) or an array of rows (.json).",
        )


def _chunks(path: Path, on_bytes: OnBytes | None) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(0)
            pieces = _zstd(file) if head == b"\x28\xb5\x2f\xfd" else _gzip_or_plain(file, head)
            for piece in pieces:
                if on_bytes is not None:
                    on_bytes(file.tell())
                yield piece
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise DataError(
            f"{path}: its compressed data is damaged or cut short ({error}).",
            hint="Copy or download the file again.",
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from None


def _gzip_or_plain(file: BinaryIO, head: bytes) -> Iterator[bytes]:
    # What counts is what the file is, not how it is named.
    opened: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=file) if head[:2] == b"\x1f\x8b" else file
    while chunk := opened.read(CHUNK_BYTES):
        yield chunk


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """zstandard's own stream reader ends in silence where a file is cut short; this does not."""
    frame, pending = zstandard.ZstdDecompressor().decompressobj(), b""
    while pending or (pending := file.read(CHUNK_BYTES)):
        if frame.eof:
            frame = zstandard.ZstdDecompressor().decompressobj()
        if text := frame.decompress(pending):
            yield text
        pending = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise EOFError("it ends in the middle of a frame")


def _check_magic(path: Path, head: bytes) -> None:
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{path}: is not text but {what}.")


def _not_utf8(path: Path, line: int, error: UnicodeDecodeError, base: int) -> DataError:
    byte = error.object[error.start]
    return DataError(
        f"{path}:{line}: is not UTF-8: byte 0x{byte:02x} at offset {base + error.start}.",
        hint=f"Convert it, for example: iconv -f latin1 -t utf-8 {path.name} > utf8-{path.name}",
    )
